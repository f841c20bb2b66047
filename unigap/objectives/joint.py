"""Understanding taught beside generation, with a small weight, so that the judge does not drift with what it accepts.

Training on self-accepted images can move drawings into the judge's blind spots and its threshold towards yes. Questions
with known answers are to hold against it, and none of the sources here needs an external judge.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from unigap.evaluation.known_pairs import KnownPairs
from unigap.evaluation.probe_set import ProbeSet
from unigap.judges.self_judge import QUESTION
from unigap.models.base import UnifiedModel
from unigap.objectives.base import Objective, Row, RowBatch, StepResult
from unigap.objectives.negatives import Negatives
from unigap.records import Candidate

# Shape legend: I images, Q claims an image, C H W channels and sides.


@dataclass(frozen=True)
class Claims:
    """Images, claims about each, and which of them are true.

    Attributes:
        pixels_ICHW: The images, in [-1, 1].
        claims_IQ: Q claims about each image.
        truth_IQ: 1 where the claim is true, 0 where not, float32.
    """

    pixels_ICHW: torch.Tensor
    claims_IQ: Sequence[Sequence[str]]
    truth_IQ: torch.Tensor


class ClaimSource(ABC):
    """Where claims of known truth come from."""

    @abstractmethod
    def claims(self, model: UnifiedModel, batch: RowBatch, rng: random.Random) -> Claims | None:
        """The claims that go with a training batch; ``None`` where it gives rise to none."""


class SwapNegatives(ClaimSource):
    """An accepted image is a yes for its own prompt and a no for the prompt with one thing changed.

    Args:
        negatives: How a prompt is changed: ``WordNegatives`` for English, ``ShapesNegatives`` for the embedded world.
        images: At most this many images of a batch, >= 1.
    """

    def __init__(self, negatives: Negatives, images: int = 16) -> None:
        if images < 1:
            raise ValueError(f"images must be >= 1, got {images}")
        self.negatives, self.images = negatives, images

    def claims(self, model: UnifiedModel, batch: RowBatch, rng: random.Random) -> Claims | None:
        """As many yes as no."""
        chosen = rng.sample(range(len(batch.texts)), min(self.images, len(batch.texts)))
        altered = [(i, self.negatives.alter(batch.texts[i], rng)) for i in sorted(chosen)]
        asked = [(i, [batch.texts[i], other]) for i, other in altered if other]
        if not asked:
            return None
        pixels_ICHW = model.decode(batch.codes_BM[[i for i, _ in asked]])
        truth_IQ = torch.tensor([[1.0, 0.0]], device=pixels_ICHW.device).expand(len(asked), 2)
        return Claims(pixels_ICHW, [claims for _, claims in asked], truth_IQ)


class Replay(ClaimSource):
    """Labelled pairs of the kind the model was pretrained on, asked again.

    Args:
        pairs: Where they come from.
        size: How many are kept to draw from, >= 1.
        images: How many are asked beside each batch, in [1, size].
    """

    def __init__(self, pairs: KnownPairs, size: int = 2000, images: int = 16) -> None:
        if not 1 <= images <= size:
            raise ValueError(f"images must be in [1, size = {size}], got {images}")
        self.pairs, self.size, self.images = pairs, size, images
        self._exam: ProbeSet | None = None

    def claims(self, model: UnifiedModel, batch: RowBatch, rng: random.Random) -> Claims:
        """A random part of the pairs, half of which are true."""
        if self._exam is None:
            self._exam = self.pairs.load(self.size)
        chosen = rng.sample(range(self.size), self.images)
        device = batch.codes_BM.device
        truth_IQ = self._exam.truth_B[chosen, None].float().to(device)
        return Claims(self._exam.pixels_BCHW[chosen].to(device), [[self._exam.claims[i]] for i in chosen], truth_IQ)


class Joint(Objective):
    """An objective for generation, and the model's own answers to questions of known truth beside it.

    The loss is that of generation plus ``weight`` times the binary cross-entropy of yes against no.

    Args:
        generation: The objective for generation, which chooses the rows.
        sources: Where the questions come from, one or more.
        weight: Weight of the questions, > 0.
        question: How a claim is asked, with a ``{prompt}`` in it; the judge's own question.
    """

    def __init__(
        self,
        generation: Objective,
        sources: Sequence[ClaimSource],
        weight: float = 0.1,
        question: str = QUESTION,
    ) -> None:
        if not 0 < weight < math.inf:
            raise ValueError(f"weight must be > 0 and finite, got {weight}; leave Joint out for none")
        if not sources:
            raise ValueError("Joint needs at least one source of questions; leave Joint out for none")
        if "{prompt}" not in question:
            raise ValueError(f"question {question!r} has no {{prompt}} to put the claim in")
        self.generation, self.weight, self.question = generation, weight, question
        self.sources = list(sources)
        self.threshold = generation.threshold

    @property
    def needs_reference(self) -> bool:
        return self.generation.needs_reference

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> Sequence[Row]:
        return self.generation.rows(candidates, logits)

    def members(self, row: Any) -> tuple[Candidate, ...]:
        return self.generation.members(row)

    def collate(self, rows: Sequence[Any], references: Mapping[str, float]) -> RowBatch:
        return self.generation.collate(rows, references)

    def step(self, model: UnifiedModel, batch: RowBatch) -> StepResult:
        drawn = self.generation.step(model, batch)
        # torch's generator is a function of the training step, so that a resumed run asks the same questions
        rng = random.Random(int(torch.randint(2**31, ())))
        asked = [claims for source in self.sources if (claims := source.claims(model, batch, rng))]
        if not asked:
            return drawn
        answers = [self._answer(model, claims) for claims in asked]
        loss = torch.stack([loss for loss, _ in answers]).mean()
        logs = {
            "joint/generation": drawn.loss.detach(),
            "joint/questions": loss.detach(),
            "joint/accuracy": torch.stack([accuracy for _, accuracy in answers]).mean(),
        }
        return StepResult(drawn.loss + self.weight * loss, {**drawn.logs, **logs})

    def _answer(self, model: UnifiedModel, claims: Claims) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of the answers, and the share that is right."""
        asked = [[self.question.replace("{prompt}", claim) for claim in row] for row in claims.claims_IQ]
        logit_IQ = model.judge_logit(claims.pixels_ICHW, asked)
        right_IQ = (logit_IQ > 0) == claims.truth_IQ.bool()
        return F.binary_cross_entropy_with_logits(logit_IQ, claims.truth_IQ), right_IQ.float().mean()
