"""WISE: a judge that writes text rates consistency, realism and aesthetic quality from 0 to 2."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

import torch

from unigap.bench.base import Benchmark
from unigap.evaluation.scoring.wise import BEST, WEIGHTS
from unigap.judges import Judge
from unigap.judges.asked import ExplainingJudge, Writing
from unigap.models.base import UnifiedModel
from unigap.records import Candidate, Prompt

REQUEST = """Rate this generated image strictly, with three whole numbers from 0 to 2.
The image was asked for as: "{prompt}"
What a right image shows: "{explanation}"
Consistency: does it show all that was asked for? 0 no, 1 in part, 2 in full.
Realism: does it look like a photograph of a possible scene? 0 no, 1 with flaws, 2 yes.
Aesthetic: is it well composed and pleasing? 0 no, 1 passable, 2 outstanding.
Give 2 only where nothing is wrong. Answer with these three lines and nothing else:
Consistency: N
Realism: N
Aesthetic: N"""
RATING = re.compile(r"(consistency|realism|aesthetic)(?:\s+quality)?\W{0,6}([0-2])(?![\d.])", re.IGNORECASE)
WRITING = Writing(samples=1, temperature=0.0, max_tokens=256)
MAX_UNREADABLE = 0.5
"""Share of unreadable replies in a batch from which the judge is refused."""


class Wise(Benchmark):
    """WISE (arXiv 2503.07265) by any judge that writes text.

    Args:
        vqa: The judge that rates, ``VQAJudge`` or ``OpenAIJudge``.
    """

    title = "WISE"
    rule = "wise"
    differs = (
        "The published judge is GPT-4o-2024-05-13 with the authors' instructions. Here any judge rates, by "
        "instructions in other words with the same three scales. A reply without one of the ratings counts 0 for it. "
        "The weights of ratings (0.7, 0.2, 0.1) and of categories are the published ones."
    )

    def __init__(self, vqa: Judge) -> None:
        if not isinstance(vqa, ExplainingJudge):
            raise ValueError(f"judge {vqa.name!r} writes no text, and WISE needs ratings; take VQAJudge or OpenAIJudge")
        self.vqa: ExplainingJudge = vqa

    @property
    def name(self) -> str:
        return f"wise-{self.vqa.name}"

    def wanted(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        strange = next((prompt for prompt in prompts if not _explanation(prompt)), None)
        if strange:
            raise ValueError(f"prompt {strange.id!r} has no explanation; give --prompts wise:FOLDER")
        return list(prompts)

    @torch.no_grad()
    def answer(
        self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor
    ) -> list[dict[str, Any]]:
        requests = [
            REQUEST.replace("{prompt}", candidate.prompt.text).replace("{explanation}", _explanation(candidate.prompt))
            for candidate in candidates
        ]
        texts = [texts[0] for texts in self.vqa.explain(model, requests, pixels_BCHW, WRITING)]
        found = [ratings_in(text) for text in texts]
        if sum(not ratings for ratings in found) > MAX_UNREADABLE * len(found):
            raise ValueError(
                f"judge {self.vqa.name!r} replies without ratings, e.g. {texts[0][:60]!r}; take a larger model"
            )
        partial = sum(len(ratings) < len(WEIGHTS) for ratings in found)
        if partial:
            print(f"warning: {partial} of {len(found)} replies lack a rating, which counts 0", file=sys.stderr)
        return [{"ratings": {name: ratings.get(name, 0) for name in WEIGHTS}} for ratings in found]


def ratings_in(text: str) -> dict[str, int]:
    """Return the ratings that a reply holds; of several of one name, the last.

    >>> ratings_in("**Consistency**: 2, Realism - 1")
    {'consistency': 2, 'realism': 1}
    """
    found = {name.lower(): int(value) for name, value in RATING.findall(text)}
    assert all(0 <= value <= BEST for value in found.values())
    return found


def _explanation(prompt: Prompt) -> str:
    return str(json.loads(prompt.truth or "{}").get("explanation", ""))
