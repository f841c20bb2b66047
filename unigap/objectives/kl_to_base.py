"""KL penalty that keeps the policy close to the base model, on top of any objective."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unigap.loop.sampling import stack_drawings
from unigap.loop.verdict_columns import joined_rows, verdict_columns
from unigap.models.base import UnifiedModel
from unigap.objectives.base import (
    Objective,
    Row,
    RowBatch,
    StepResult,
    likelihood_figures,
    reference_logps,
    step_noise,
)
from unigap.objectives.losses import kl_to_base
from unigap.objectives.wrapper import Wrapper
from unigap.records import Candidate, Prompt


@dataclass(frozen=True)
class HeldRow:
    """A row of another objective, together with an unrelated sample of the base model.

    Attributes:
        row: The row of the other objective.
        base: A sample of the base model, for any prompt.
    """

    row: Row
    base: Candidate

    @property
    def prompt(self) -> Prompt:
        """The prompt of ``row``."""
        return self.row.prompt


@dataclass(frozen=True)
class HeldBatch(RowBatch):
    """A batch of another objective and as many samples of the base model.

    ``ids``, ``texts`` and ``drawings_B`` are those of the other objective's batch.

    Attributes:
        rows: The batch of the other objective.
        base_texts: Prompts of the base model's samples, accepted or not.
        base_drawings_B: Drawings of those samples.
        base_logp_B: Their log-likelihoods under the base model, in nats, float64; ``None`` if the model has no exact
            likelihood: the step then computes them at its own noise.
    """

    rows: RowBatch
    base_texts: tuple[str, ...]
    base_drawings_B: torch.Tensor
    base_logp_B: torch.Tensor | None


class KLToBase(Wrapper):
    """An objective plus ``weight`` times KL(base || policy), both per image token.

    The divergence is estimated to second order (``losses.kl_to_base``) on images of the first round, accepted or not:
    these are samples of the base model. Accepted images cannot replace them: they are a selection, and a penalty on
    their log-ratios would only counteract the rise of their likelihood, which is the aim of training.

    With guidance, filters or a temperature other than 1, the penalty keeps the likelihoods of images sampled in that
    way, and the logged ``kl/to_base`` is not a divergence. If the model only estimates likelihoods, the figure is
    logged as ``kl/to_base_estimate``.

    Args:
        generation: The objective, which chooses the rows.
        weight: Weight of the divergence, > 0.
    """

    def __init__(self, generation: Objective, weight: float = 0.3) -> None:
        if not 0 < weight < math.inf:
            raise ValueError(f"weight must be > 0 and finite, got {weight}; leave KLToBase out for none")
        super().__init__(generation)
        self.weight = weight

    def _take_needs(self) -> None:
        super()._take_needs()
        if self.reference_follows:
            raise ValueError(
                f"KLToBase needs the base model as reference, and {type(self.generation).__name__} replaces it after "
                "each round; take one of the two"
            )
        self.needs_stored_references = True

    @property
    def needs_reference(self) -> bool:
        return True

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> Sequence[HeldRow]:
        pool = verdict_columns(candidates)
        base = pool.of_round(0).tolist()
        # shuffled independently of the verdicts, since the estimate needs unselected samples
        random.Random("drawings of the base").shuffle(base)
        rows = self.generation.rows(pool.candidates, logits)
        count = len(rows) if base else 0
        return joined_rows(HeldRow, rows[:count], pool.take(np.resize(np.array(base, np.int64), count)))

    def members(self, row: HeldRow) -> tuple[Candidate, ...]:
        return (*self.generation.members(row.row), row.base)

    def collate(self, rows: Sequence[HeldRow], references: Mapping[str, float]) -> HeldBatch:
        batch, base = self.generation.collate([row.row for row in rows], references), [row.base for row in rows]
        logps = [references[candidate.id] for candidate in base] if references else None
        logp_B = None if logps is None else torch.tensor(logps, dtype=torch.float64)
        texts = tuple(candidate.prompt.text for candidate in base)
        return HeldBatch(batch.ids, batch.texts, batch.drawings_B, batch, texts, stack_drawings(base), logp_B)

    def step(self, model: UnifiedModel, batch: HeldBatch) -> StepResult:
        generation = self.generation.step(model, batch.rows)
        prompt, noise_B = model.encode_prompt(batch.base_texts), step_noise(model, len(batch.base_texts))
        base_logp_B = batch.base_logp_B
        if base_logp_B is None:
            base_logp_B = reference_logps(model, prompt, batch.base_drawings_B, noise_B).sum(-1)
        logp_BM = model.image_logps(prompt, batch.base_drawings_B, noise_B)
        kl = kl_to_base(logp_BM.sum(-1), base_logp_B.to(logp_BM.dtype)) / logp_BM.shape[1]
        logs = {"kl/generation": generation.loss.detach(), **likelihood_figures(model, {"kl/to_base": kl.detach()})}
        return StepResult(generation.loss + self.weight * kl, {**generation.logs, **logs})
