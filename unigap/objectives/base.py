"""Objective interface: which rows of the pool to train on, how to batch them, and the loss."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from lightning.fabric.utilities import move_data_to_device

from unigap.models.base import UnifiedModel
from unigap.records import Candidate, Prompt

# Shape legend: B rows, M image tokens.


class Row(Protocol):
    """One training example: a candidate, a pair, or any object with a prompt."""

    @property
    def prompt(self) -> Prompt:
        """The prompt of the example."""


@dataclass(frozen=True)
class RowBatch:
    """Rows as tensors, ready for a training step.

    For more data per row, derive a frozen dataclass with further fields: tensors, tuples, lists or dicts of tensors, or
    objects with a method ``to``. ``to`` moves them all.

    Attributes:
        ids: Names of the rows, for the log of trained rows.
        texts: Their prompts.
        codes_BM: Image codes to learn from, int64.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    codes_BM: torch.Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with all its tensors on ``device``; called by Lightning."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **move_data_to_device(fields, torch.device(device)))


@dataclass(frozen=True)
class StepResult:
    """Loss of a step, a scalar, and further scalars to log."""

    loss: torch.Tensor
    logs: dict[str, torch.Tensor]


def likelihood_figures(model: UnifiedModel, figures: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Append ``_estimate`` to the names of figures made of log-likelihoods if the model only estimates those.

    Args:
        model: The model that computed the log-likelihoods.
        figures: The figures by name.
    """
    suffix = "" if model.exact_likelihood else "_estimate"
    return {f"{name}{suffix}": value for name, value in figures.items()}


class Objective(ABC):
    """Learns from judged candidates.

    Attributes:
        threshold: Smallest probability of yes that accepts a candidate, in (0, 1). Prompts without an accepted
            candidate are counted as discarded.
    """

    threshold: float

    @property
    @abstractmethod
    def needs_reference(self) -> bool:
        """Whether ``collate`` needs log-likelihoods under the reference model."""

    @abstractmethod
    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> Sequence[Row]:
        """Return the training rows of a pool.

        Args:
            candidates: All candidates of all rounds.
            logits: The selecting judge's log-odds of yes, by candidate id; candidates without a verdict are missing.
        """

    @abstractmethod
    def members(self, row: Any) -> tuple[Candidate, ...]:
        """Return the candidates of a row."""

    @abstractmethod
    def collate(self, rows: Sequence[Any], references: Mapping[str, float]) -> RowBatch:
        """Return a batch of rows, a ``RowBatch`` or the objective's own subclass.

        Args:
            rows: The rows, B of them.
            references: Log-likelihoods under the reference model, in nats, by candidate id; empty unless
                ``needs_reference``.
        """

    @abstractmethod
    def step(self, model: UnifiedModel, batch: Any) -> StepResult:
        """Return the loss of a batch made by ``collate``."""
