"""What a stage learns from the pool: which rows it picks, how they are batched, and the loss on them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unigap.losses import PreferenceLoss, dpo_loss, sft_loss
from unigap.models.base import UnifiedModel
from unigap.records import Candidate, Pair
from unigap.selection import PairRule, accepted_rows, balanced, logit_threshold, preference_pairs

Row = Candidate | Pair

# Shape legend: B rows, M image tokens.


@dataclass(frozen=True)
class RowBatch:
    """Rows ready for a training step.

    Attributes:
        ids: Names of the rows, for the log of what was trained on.
        texts: Their prompts.
        codes_BM: Accepted (SFT) or chosen (DPO) images, int64.
        rejected_BM: Rejected images, int64; ``None`` for SFT.
        reference_B2: Reference log-likelihood of chosen and rejected, float64; ``None`` for SFT.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    codes_BM: torch.Tensor
    rejected_BM: torch.Tensor | None = None
    reference_B2: torch.Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RowBatch:
        """The batch on another device (Lightning moves objects that have this method)."""
        moved = [None if t is None else t.to(device) for t in (self.codes_BM, self.rejected_BM, self.reference_B2)]
        return RowBatch(self.ids, self.texts, *moved)  # type: ignore[arg-type]


@dataclass(frozen=True)
class StepResult:
    """Loss of a step, a scalar, and what to log beside it."""

    loss: torch.Tensor
    logs: dict[str, torch.Tensor]


class Objective(ABC):
    """A way to learn from judged candidates."""

    threshold: float

    @property
    @abstractmethod
    def needs_reference(self) -> bool:
        """Whether rows need log-likelihoods under the weights the stage started from."""

    @abstractmethod
    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> Sequence[Row]:
        """What to learn from, given the judge's log-odds of each candidate by id."""

    @abstractmethod
    def members(self, row: Any) -> tuple[Candidate, ...]:
        """The candidates a row is made of."""

    @abstractmethod
    def collate(self, rows: Sequence[Any], references: Mapping[str, float]) -> RowBatch:
        """Puts rows into tensors."""

    @abstractmethod
    def step(self, model: UnifiedModel, batch: RowBatch) -> StepResult:
        """The loss of a batch."""


class SFT(Objective):
    """Maximum likelihood of the accepted images (Algorithm 1, SFT).

    Args:
        threshold: Least probability of yes that counts as accepted, in (0, 1).
        keep: At most this many images of a prompt, the surest first.
        balance: Repeat the images of prompts with fewer than ``keep``, so that every prompt something was accepted for
            counts the same and a rare acceptance is not drowned by easy ones.
    """

    def __init__(self, threshold: float = 0.5, keep: int = 8, balance: bool = False) -> None:
        logit_threshold(threshold)
        if keep < 1:
            raise ValueError(f"keep must be >= 1, got {keep}")
        self.threshold, self.keep, self.balance = threshold, keep, balance

    @property
    def needs_reference(self) -> bool:
        return False

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> list[Candidate]:
        rows = accepted_rows(candidates, logits, self.threshold, self.keep)
        return balanced(rows, self.keep) if self.balance else rows

    def members(self, row: Candidate) -> tuple[Candidate, ...]:
        return (row,)

    def collate(self, rows: Sequence[Candidate], references: Mapping[str, float]) -> RowBatch:
        return RowBatch(tuple(row.id for row in rows), tuple(row.prompt.text for row in rows), _codes(rows))

    def step(self, model: UnifiedModel, batch: RowBatch) -> StepResult:
        logp_BM = model.image_logps(model.encode_prompt(batch.texts), batch.codes_BM)
        return StepResult(sft_loss(logp_BM), {})


class DPO(Objective):
    """Direct preference optimisation with a likelihood term on the chosen images (Algorithm 1, DPO).

    Args:
        threshold: Least probability of yes that counts as accepted, in (0, 1).
        beta: Strength of the pull towards the reference, > 0.
        nll_weight: Weight of the per-token likelihood of the chosen images, >= 0.
        per_prompt: At most this many pairs of a prompt.
        pairs: ``extreme`` sets the surest accepted image against the most firmly rejected one (the paper), ``closest``
            against the rejected one the judge was least sure of.
        loss: ``sigmoid`` (DPO), ``robust`` or ``ipo``.
        label_smoothing: Share of the preferences taken to be wrong, in [0, 0.5); makes ``sigmoid`` conservative DPO.
        per_token: Divide log-likelihoods by the number of image tokens, so that beta means the same for every family.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        beta: float = 0.1,
        nll_weight: float = 1.0,
        per_prompt: int = 1,
        pairs: PairRule = "extreme",
        loss: PreferenceLoss = "sigmoid",
        label_smoothing: float = 0.0,
        per_token: bool = False,
    ) -> None:
        logit_threshold(threshold)
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be > 0 and finite, got {beta}; common values are 0.1 to 0.2")
        if not 0 <= nll_weight < math.inf:
            raise ValueError(f"nll_weight must be >= 0 and finite, got {nll_weight}; 0 leaves the term out")
        if per_prompt < 1:
            raise ValueError(f"per_prompt must be >= 1, got {per_prompt}")
        if not 0 <= label_smoothing < 0.5 or (label_smoothing and loss == "ipo"):
            raise ValueError(f"label_smoothing must be in [0, 0.5), and 0 with ipo, got {label_smoothing} with {loss}")
        self.threshold, self.beta, self.nll_weight, self.per_prompt = threshold, beta, nll_weight, per_prompt
        self.pairs, self.loss, self.label_smoothing, self.per_token = pairs, loss, label_smoothing, per_token

    @property
    def needs_reference(self) -> bool:
        return True

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> list[Pair]:
        return preference_pairs(candidates, logits, self.threshold, self.per_prompt, self.pairs)

    def members(self, row: Pair) -> tuple[Candidate, ...]:
        return (row.chosen, row.rejected)

    def collate(self, rows: Sequence[Pair], references: Mapping[str, float]) -> RowBatch:
        return RowBatch(
            tuple(f"{row.chosen.id}>{row.rejected.id}" for row in rows),
            tuple(row.prompt.text for row in rows),
            _codes([row.chosen for row in rows]),
            _codes([row.rejected for row in rows]),
            torch.tensor(
                [[references[row.chosen.id], references[row.rejected.id]] for row in rows], dtype=torch.float64
            ),
        )

    def step(self, model: UnifiedModel, batch: RowBatch) -> StepResult:
        assert batch.rejected_BM is not None and batch.reference_B2 is not None
        both_RM = torch.stack([batch.codes_BM, batch.rejected_BM], 1).flatten(0, 1)
        # chosen and rejected share their prompt
        logp_RM = model.image_logps(model.encode_prompt(batch.texts), both_RM)
        chosen_BM, rejected_BM = logp_RM[0::2], logp_RM[1::2]
        reference_B2 = batch.reference_B2.to(chosen_BM.dtype)
        logps = [chosen_BM.sum(-1), rejected_BM.sum(-1), reference_B2[:, 0], reference_B2[:, 1]]
        if self.per_token:
            logps = [logp_B / chosen_BM.shape[1] for logp_B in logps]
        chosen_B, rejected_B, chosen_reference_B, rejected_reference_B = logps
        terms = dpo_loss(
            chosen_B,
            rejected_B,
            chosen_reference_B,
            rejected_reference_B,
            self.beta,
            self.loss,
            self.label_smoothing,
        )
        logs = {
            "dpo/loss": terms.loss.detach(),
            "dpo/margin": terms.margin_B.mean(),
            "dpo/margin_per_token": terms.margin_B.mean() / chosen_BM.shape[1],
            "dpo/accuracy": terms.accuracy,
            "dpo/chosen": terms.chosen_B.mean(),
            "dpo/rejected": terms.rejected_B.mean(),
        }
        return StepResult(terms.loss + self.nll_weight * sft_loss(chosen_BM), logs)


def _codes(candidates: Sequence[Candidate]) -> torch.Tensor:
    return torch.from_numpy(np.stack([candidate.codes for candidate in candidates]).astype(np.int64))
