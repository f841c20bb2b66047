"""Objective interface: which rows of the pool to train on, how to batch them, and the loss."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from lightning.fabric.utilities import move_data_to_device

from unigap.judges.base import Judge
from unigap.loop.plan import RoundPlan
from unigap.loop.selection import nothing_to_learn
from unigap.models.base import PromptBatch, SamplingRecipe, UnifiedModel
from unigap.records import Candidate, Prompt

# Shape legend: B rows, R images, M image tokens.


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
        drawings_B: Drawings to learn from, codes as int64 or latents as float32.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    drawings_B: torch.Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with all its tensors on ``device``; called by Lightning."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **move_data_to_device(fields, torch.device(device)))


@dataclass(frozen=True)
class StepResult:
    """Loss of a step, a scalar, and further scalars to log."""

    loss: torch.Tensor
    logs: dict[str, torch.Tensor]


def step_noise(model: UnifiedModel, images: int) -> torch.Tensor | None:
    """Return new noise seeds from torch's generator for ``UnifiedModel.image_logps``, int64 (R,).

    ``None`` for a model with an exact likelihood, which takes no noise.

    Args:
        model: The model.
        images: R.
    """
    return None if model.exact_likelihood else torch.randint(2**62, (images,))


def has_velocity(model: UnifiedModel) -> bool:
    """Return whether a model is a flow model, whose ``image_logps`` is minus the squared error of its velocity."""
    return not model.exact_likelihood and type(model).velocity_terms is not UnifiedModel.velocity_terms


def with_dropped(prompt: PromptBatch, share: float) -> PromptBatch:
    """Return prompts with about a share of them, by torch's generator, replaced by null prompts (prompt dropout).

    Args:
        prompt: B prompts.
        share: Probability of each prompt to be replaced, in [0, 1); at 0 the generator is left alone.
    """
    if not share:
        return prompt
    return prompt.unconditional((torch.rand(len(prompt.ids_BL)) < share).to(prompt.ids_BL.device))


def reference_logps(
    model: UnifiedModel,
    prompt: PromptBatch,
    drawings_R: torch.Tensor,
    noise_R: torch.Tensor | None,
    recipe: SamplingRecipe | None = None,
) -> torch.Tensor:
    """Return ``image_logps`` under the reference model, float32 (R, M), without gradient.

    For a model without an exact likelihood: its estimates are compared at the noise of the step. References computed
    once would fix the noise, and the objective would be minimised at that noise alone. For a model with one: where an
    objective needs every token's log-probability, and the pool stores only that of the image.
    """
    with model.as_reference():
        return model.image_logps(prompt, drawings_R, noise_R, recipe)


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
        judges: Judges whose verdicts ``rows`` needs in addition to the selecting judge's; ``use_verdicts`` gets them.
        needs_behaviour: Whether ``collate`` needs each token's log-probability under the recipe it was sampled with
            (``Candidate.behaviour_M``). The pool stores these while such an objective draws.
        needs_stored_references: Whether ``collate`` needs ``references``, if ``needs_reference``. False for an
            objective that computes what it needs of the reference model in ``step``.
        reference_follows: Whether the reference model becomes the present one whenever a round has been drawn, so that
            it is the model that drew the newest round. Otherwise it is the model as the stage starts it.
    """

    threshold: float
    judges: tuple[Judge, ...] = ()
    needs_behaviour: bool = False
    needs_stored_references: bool = True
    reference_follows: bool = False

    def prepare(self, model: UnifiedModel, plan: RoundPlan) -> None:
        """Check the model and how candidates are drawn, before anything is drawn. By default everything is allowed.

        Args:
            model: The model that draws and learns.
            plan: How candidates are drawn, with the sampling recipe.

        Raises:
            ValueError: The objective cannot learn from such candidates.
        """
        return None

    def first_round(self, newest: int) -> int:
        """Return the first round to learn from, in [0, newest]; by default 0, all rounds.

        Args:
            newest: Number of the newest round.
        """
        return 0

    def learning_recipe(self) -> dict[str, Any]:
        """Return what the objective adds to the recipe of the rounds that it draws; by default nothing."""
        return {}

    def use_verdicts(self, verdicts: Mapping[str, Mapping[str, float]]) -> None:
        """Take the log-odds of yes of ``judges`` before ``rows`` is called, by name of the judge and candidate id."""
        return None

    def count_rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> dict[str, int]:
        """Return further counts of a pool for the log, by name; arguments as for ``rows``."""
        return {}

    def nothing_to_learn(self, logits: Mapping[str, float]) -> str:
        """Say why ``rows`` returned none, and what to do, given the logits it got."""
        return nothing_to_learn(logits, self.threshold)

    @property
    @abstractmethod
    def needs_reference(self) -> bool:
        """Whether the loss compares with a reference model, the model as the stage starts it."""

    @abstractmethod
    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> Sequence[Row]:
        """Return the training rows of a pool.

        Args:
            candidates: All candidates of all rounds; those of ``first_round`` and later have ``behaviour_M`` if
                ``needs_behaviour``.
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
            references: Log-likelihoods under the reference model, in nats, by candidate id. Empty unless
                ``needs_reference``, and for a model without an exact likelihood, where ``step`` computes them
                (``reference_logps``).
        """

    @abstractmethod
    def step(self, model: UnifiedModel, batch: Any) -> StepResult:
        """Return the loss of a batch made by ``collate``."""
