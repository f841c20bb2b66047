"""What a stage learns from the pool: which rows it picks, how they are batched, and the loss on them."""

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
    """What one example is made of: a candidate, a pair, or an objective's own noun."""

    @property
    def prompt(self) -> Prompt:
        """The prompt it is an example of."""


@dataclass(frozen=True)
class RowBatch:
    """Rows ready for a training step.

    An objective that needs more of its rows derives a frozen dataclass with further fields: tensors, tuples, lists and
    dicts of tensors, or whatever has a method ``to`` of its own. ``to`` moves them all.

    Attributes:
        ids: Names of the rows, for the log of what was trained on.
        texts: Their prompts.
        codes_BM: The images to learn from, int64.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    codes_BM: torch.Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with every tensor in it on ``device`` (Lightning calls this)."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **move_data_to_device(fields, torch.device(device)))


@dataclass(frozen=True)
class StepResult:
    """Loss of a step, a scalar, and what to log beside it."""

    loss: torch.Tensor
    logs: dict[str, torch.Tensor]


def likelihood_figures(model: UnifiedModel, figures: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name figures that are made of log-likelihoods: with ``_estimate`` behind, where the model only estimates them.

    Args:
        model: The model whose log-likelihoods they are.
        figures: The figures by name.
    """
    end = "" if model.exact_likelihood else "_estimate"
    return {f"{name}{end}": value for name, value in figures.items()}


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
        """Puts rows into tensors, in a batch of the objective's own kind."""

    @abstractmethod
    def step(self, model: UnifiedModel, batch: Any) -> StepResult:
        """The loss of a batch, as ``collate`` made it."""
