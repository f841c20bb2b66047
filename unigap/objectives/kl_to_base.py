"""Any objective, held to what the base draws by the divergence of the policy from it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import torch

from unigap.loop.sampling import codes_of
from unigap.models.base import UnifiedModel
from unigap.objectives.base import Objective, Row, RowBatch, StepResult, likelihood_figures
from unigap.objectives.losses import kl_to_base
from unigap.records import Candidate, Prompt


@dataclass(frozen=True)
class HeldRow:
    """A row of another objective beside one drawing of the base, which has nothing to do with it.

    Attributes:
        row: What is learned from.
        drawn: What the base drew, for whichever prompt.
    """

    row: Row
    drawn: Candidate

    @property
    def prompt(self) -> Prompt:
        """The prompt of what is learned from."""
        return self.row.prompt


@dataclass(frozen=True)
class HeldBatch(RowBatch):
    """A batch of another objective, whose names, prompts and images it repeats, and as many images of the base.

    Attributes:
        rows: The batch of the other objective.
        base_texts: Prompts of images the base drew, whatever a judge said of them.
        base_codes_BM: Those images, int64.
        base_logp_B: Their log-likelihoods under the base, in nats, float64.
    """

    rows: RowBatch
    base_texts: tuple[str, ...]
    base_codes_BM: torch.Tensor
    base_logp_B: torch.Tensor


class KLToBase(Objective):
    """An objective and ``weight`` times KL(base || policy) beside it, both per image token.

    The divergence is estimated, to second order (``losses.kl_to_base``), on images of the first round whatever the
    judge said of them: samples of the base. The accepted images cannot serve. They are what selection left of those,
    and a penalty on their log-ratios says only how far their own likelihood has risen, which is what training is for.

    Where images are drawn under guidance, at another temperature or filtered, the likelihoods of what the base draws in
    that way are held, and the logged ``kl/to_base`` is no divergence. With a model that only estimates likelihoods the
    figure is logged as ``kl/to_base_estimate``.

    Args:
        generation: The objective, which chooses the rows.
        weight: Weight of the divergence, > 0.
    """

    def __init__(self, generation: Objective, weight: float = 0.3) -> None:
        if not 0 < weight < math.inf:
            raise ValueError(f"weight must be > 0 and finite, got {weight}; leave KLToBase out for none")
        self.generation, self.weight = generation, weight
        self.threshold = generation.threshold

    @property
    def needs_reference(self) -> bool:
        return True

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> list[HeldRow]:
        every = list(candidates)
        drawn = [candidate for candidate in every if candidate.round == 0]
        # in an order that knows no verdict
        random.Random("drawings of the base").shuffle(drawn)
        return [
            HeldRow(row, other) for row, other in zip(self.generation.rows(every, logits), cycle(drawn), strict=False)
        ]

    def members(self, row: HeldRow) -> tuple[Candidate, ...]:
        return (*self.generation.members(row.row), row.drawn)

    def collate(self, rows: Sequence[HeldRow], references: Mapping[str, float]) -> HeldBatch:
        batch, drawn = self.generation.collate([row.row for row in rows], references), [row.drawn for row in rows]
        logp_B = torch.tensor([references[candidate.id] for candidate in drawn], dtype=torch.float64)
        texts = tuple(candidate.prompt.text for candidate in drawn)
        return HeldBatch(batch.ids, batch.texts, batch.codes_BM, batch, texts, codes_of(drawn), logp_B)

    def step(self, model: UnifiedModel, batch: HeldBatch) -> StepResult:
        learned = self.generation.step(model, batch.rows)
        logp_BM = model.image_logps(model.encode_prompt(batch.base_texts), batch.base_codes_BM)
        kl = kl_to_base(logp_BM.sum(-1), batch.base_logp_B.to(logp_BM.dtype)) / logp_BM.shape[1]
        logs = {"kl/generation": learned.loss.detach(), **likelihood_figures(model, {"kl/to_base": kl.detach()})}
        return StepResult(learned.loss + self.weight * kl, {**learned.logs, **logs})
