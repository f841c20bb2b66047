"""Rows of the learning curves and of the `Dynamics` callback."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curves; figures not measured in this epoch are None.

    Attributes:
        epoch: Number of the epoch; 0 is before training.
        train_loss: Mean training loss.
        generation: Generation accuracy, with the ends of its interval if known.
        non_unification: Non-unification score, likewise.
        understanding_renders: Accuracy of the judge on the probe set, likewise.
        judge_tnr: Share of wrong images the judge rejects, likewise.
        judge_precision: Share of accepted images that are right, likewise.
    """

    epoch: int
    train_loss: float | None = None
    generation: float | None = None
    generation_low: float | None = None
    generation_high: float | None = None
    non_unification: float | None = None
    non_unification_low: float | None = None
    non_unification_high: float | None = None
    understanding_renders: float | None = None
    understanding_renders_low: float | None = None
    understanding_renders_high: float | None = None
    judge_tnr: float | None = None
    judge_tnr_low: float | None = None
    judge_tnr_high: float | None = None
    judge_precision: float | None = None
    judge_precision_low: float | None = None
    judge_precision_high: float | None = None


@dataclass(frozen=True)
class Watched:
    """One row of the `Dynamics` callback.

    Attributes:
        kind: ``"step"`` for a prediction and its measurement, ``"kernel"`` for the coupling of the two branches.
        step: Number of optimizer steps before it.
        figures: Numbers by name.
    """

    kind: str
    step: int
    figures: dict[str, float] = field(default_factory=dict)
