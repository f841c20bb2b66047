"""Train understanding together with generation, with a small weight, so that the judge does not drift.

Training on self-accepted images can move generated images into the judge's blind spots, and its log-odds towards yes.
Questions with known answers counteract that. No source in this module needs an external judge.
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

from unigap.evaluation.probe_set import ProbeSet
from unigap.evaluation.probe_sources import ProbeSource
from unigap.judges.self_judge import QUESTION
from unigap.models.base import UnifiedModel
from unigap.objectives.base import Objective, Row, RowBatch, StepResult
from unigap.objectives.negatives import Negatives
from unigap.objectives.wrapper import Wrapper
from unigap.records import Candidate

# Shape legend: I images, Q claims for each image, C H W channels and sides.


@dataclass(frozen=True)
class Claims:
    """Images with Q claims each, and whether each claim is true.

    Attributes:
        pixels_ICHW: The images, in [-1, 1].
        claims_IQ: Q captions for each image.
        truth_IQ: 1 for a true claim, 0 for a false one, float32.
    """

    pixels_ICHW: torch.Tensor
    claims_IQ: Sequence[Sequence[str]]
    truth_IQ: torch.Tensor


class ClaimSource(ABC):
    """Makes claims with known truth."""

    @abstractmethod
    def claims(self, model: UnifiedModel, batch: RowBatch, rng: random.Random) -> Claims | None:
        """Return claims to train on together with a batch, or None if the batch yields none."""


class SwapNegatives(ClaimSource):
    """Asks about accepted images: yes for the own prompt, no for the prompt with one detail changed.

    Args:
        negatives: Changes a prompt: ``WordNegatives`` for English, ``ShapesNegatives`` for the embedded world.
        images: Most images taken from a batch, >= 1.
    """

    def __init__(self, negatives: Negatives, images: int = 16) -> None:
        if images < 1:
            raise ValueError(f"images must be >= 1, got {images}")
        self.negatives, self.images = negatives, images

    def claims(self, model: UnifiedModel, batch: RowBatch, rng: random.Random) -> Claims | None:
        """Return a true and a false claim for each image."""
        chosen = rng.sample(range(len(batch.texts)), min(self.images, len(batch.texts)))
        altered = [(i, self.negatives.alter(batch.texts[i], rng)) for i in sorted(chosen)]
        claims = {i: [batch.texts[i], other] for i, other in altered if other}
        if not claims:
            return None
        pixels_ICHW = model.decode(batch.drawings_B[list(claims)])
        truth_IQ = torch.tensor([[1.0, 0.0]], device=pixels_ICHW.device).expand(len(claims), 2)
        return Claims(pixels_ICHW, list(claims.values()), truth_IQ)


class Replay(ClaimSource):
    """Asks about a probe set, e.g. of the kind of images that the model was pretrained on.

    Args:
        pairs: Source of the probe set.
        size: Number of images in the probe set, >= 1.
        images: Number of images sampled from it for each batch, in [1, size].
    """

    def __init__(self, pairs: ProbeSource, size: int = 2000, images: int = 16) -> None:
        if not 1 <= images <= size:
            raise ValueError(f"images must be in [1, size = {size}], got {images}")
        self.pairs, self.size, self.images = pairs, size, images
        self._probes: ProbeSet | None = None

    def claims(self, model: UnifiedModel, batch: RowBatch, rng: random.Random) -> Claims:
        """Return a random part of the probe set, one claim for each image."""
        if self._probes is None:
            self._probes = self.pairs.load(self.size)
        chosen = rng.sample(range(self.size), self.images)
        device = batch.drawings_B.device
        truth_IQ = self._probes.truth_B[chosen, None].float().to(device)
        claims_IQ = [[self._probes.claims[i]] for i in chosen]
        return Claims(self._probes.pixels_BCHW[chosen].to(device), claims_IQ, truth_IQ)


class Joint(Wrapper):
    """An objective for generation plus a loss on yes/no questions with known answers.

    The loss is that of generation plus ``weight`` times the binary cross-entropy of yes against no.

    Args:
        generation: The objective for generation, which chooses the rows.
        sources: One or more sources of claims.
        weight: Weight of the questions, > 0.
        question: Question about a claim, with a ``{prompt}`` in it; by default the self-judge's.
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
        super().__init__(generation)
        self.weight, self.question, self.sources = weight, question, list(sources)

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
        generation = self.generation.step(model, batch)
        # torch's generator depends on the training step alone, so a resumed run asks the same questions
        rng = random.Random(int(torch.randint(2**31, ())))
        claim_sets = [claims for source in self.sources if (claims := source.claims(model, batch, rng))]
        if not claim_sets:
            return generation
        answers = [self._answer(model, claims) for claims in claim_sets]
        loss = torch.stack([loss for loss, _ in answers]).mean()
        logs = {
            "joint/generation": generation.loss.detach(),
            "joint/questions": loss.detach(),
            "joint/accuracy": torch.stack([accuracy for _, accuracy in answers]).mean(),
        }
        return StepResult(generation.loss + self.weight * loss, {**generation.logs, **logs})

    def _answer(self, model: UnifiedModel, claims: Claims) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cross-entropy of the model's answers and their accuracy, scalars."""
        questions_IQ = [[self.question.replace("{prompt}", claim) for claim in row] for row in claims.claims_IQ]
        logit_IQ = model.judge_logit(claims.pixels_ICHW, questions_IQ)
        right_IQ = (logit_IQ > 0) == claims.truth_IQ.bool()
        return F.binary_cross_entropy_with_logits(logit_IQ, claims.truth_IQ), right_IQ.float().mean()
