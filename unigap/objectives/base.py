"""What a stage learns from the pool: which rows it picks, how they are batched, and the loss on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from unigap.models.base import UnifiedModel
from unigap.records import Candidate, Prompt

# Shape legend: B rows, M image tokens.


class Row(Protocol):
    """What one example is made of: a candidate, a pair, or an objective's own noun."""

    @property
    def prompt(self) -> Prompt:
        """The prompt it is an example of."""


@dataclass(frozen=True)
class BaseDrawings:
    """Images the base drew, whatever a judge said of them.

    Attributes:
        texts: Their prompts.
        codes_BM: The images, int64.
        logp_B: Log-likelihoods under the base, in nats, float64.
    """

    texts: tuple[str, ...]
    codes_BM: torch.Tensor
    logp_B: torch.Tensor

    def to(self, device: torch.device | str) -> BaseDrawings:
        """The images on another device."""
        return BaseDrawings(self.texts, self.codes_BM.to(device), self.logp_B.to(device))


@dataclass(frozen=True)
class RowBatch:
    """Rows ready for a training step.

    Attributes:
        ids: Names of the rows, for the log of what was trained on.
        texts: Their prompts.
        codes_BM: Accepted (SFT) or chosen (DPO) images, int64.
        rejected_BM: Rejected images, int64; ``None`` for SFT.
        reference_B2: Reference log-likelihood of chosen and rejected, float64; ``None`` for SFT.
        base: Drawings of the base beside the rows, as many; ``None`` but for ``KLToBase``.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    codes_BM: torch.Tensor
    rejected_BM: torch.Tensor | None = None
    reference_B2: torch.Tensor | None = None
    base: BaseDrawings | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RowBatch:
        """The batch on another device (Lightning moves objects that have this method)."""
        rejected, reference = (None if t is None else t.to(device) for t in (self.rejected_BM, self.reference_B2))
        base = None if self.base is None else self.base.to(device)
        return RowBatch(self.ids, self.texts, self.codes_BM.to(device), rejected, reference, base)


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


def codes_of(candidates: Sequence[Candidate]) -> torch.Tensor:
    """Codes of images, int64 (B, M)."""
    return torch.from_numpy(np.stack([candidate.codes for candidate in candidates]).astype(np.int64))
