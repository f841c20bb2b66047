"""The figures that a guard can watch in a run, with their tolerances, and which of them the run has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from unigap.metrics.watches import Watch
from unigap.stages import ImproveStage

WATCHES = {
    watch.name: watch
    for watch in (
        Watch("auroc", "lower", 0.02),
        Watch("brier", "higher", 0.02),
        Watch("yes_bias", "away", 0.05),
        Watch("accepted", "lower", 0.05),
        Watch("redrawn", "lower", 0.05),
        Watch("spread", "lower", 0.15, relative=True),
        Watch("edges", "lower", 0.2, relative=True),
        Watch("code_entropy", "lower", 0.1, relative=True),
        Watch("duplicates", "higher", 0.05),
    )
}
"""Every figure with the tolerance that it has by default."""
GROUPED = ("spread", "duplicates")
"""Figures that compare the images of a prompt."""


def chosen_watches(stage: ImproveStage, tolerances: Mapping[str, float | None]) -> tuple[Watch, ...]:
    """Return the watches of a run.

    Args:
        stage: The stage.
        tolerances: Tolerance by figure, instead of the usual one; ``None`` leaves a figure out.

    Raises:
        ValueError: The run has no such figure, or none is left.
    """
    absent = absent_figures(stage)
    for name, tolerance in tolerances.items():
        if tolerance is not None and name in absent:
            raise ValueError(f"Guard cannot watch {name}: {absent[name]}")
    left = [watch for name, watch in WATCHES.items() if name not in absent and tolerances.get(name, 0) is not None]
    if not left:
        raise ValueError("Guard.tolerances leaves every figure out; remove the callback")
    return tuple(dataclasses.replace(watch, tolerance=_tolerance(watch, tolerances)) for watch in left)


def _tolerance(watch: Watch, tolerances: Mapping[str, float | None]) -> float:
    given = tolerances.get(watch.name)
    return watch.tolerance if given is None else given


def absent_figures(stage: ImproveStage) -> dict[str, str]:
    """Return the figures that a run does not have, each with the reason."""
    absent = {}
    if stage.schedule is None:
        absent["redrawn"] = "this stage draws once; take CurriculumStage or GRPOStage, or leave it out"
    elif stage.schedule.redraw != "all":
        absent["redrawn"] = (
            f"with schedule.redraw={stage.schedule.redraw} prompts are redrawn for their verdicts, with which later "
            "ones cannot be compared; set it to all, or leave the figure out"
        )
    if stage.eval_plan.candidates < 2:
        absent |= dict.fromkeys(GROUPED, "there is one image for each prompt; set model.eval_plan.candidates to 2")
    format = stage.model.drawing_format
    if format is not None and format.is_latent:
        absent["code_entropy"] = f"images of {type(stage.model).__name__} are latents and not codes; leave it out"
    return absent


def check_tolerances(tolerances: Mapping[str, float | None]) -> None:
    """Check names and values.

    Raises:
        ValueError: A name is unknown, or a tolerance is not in [0, 1).
    """
    for name, tolerance in tolerances.items():
        if name not in WATCHES:
            raise ValueError(f"Guard.tolerances: unknown figure {name!r}; choose from: {', '.join(WATCHES)}")
        if tolerance is not None and not 0 <= tolerance < 1:
            raise ValueError(f"Guard.tolerances: {name} must be in [0, 1), got {tolerance}; null leaves it out")
