"""Read what a guard with other tolerances would have done in the stored runs, and choose tolerances."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from evidence.guard_arms import CHOOSING_SEED, CLEAN
from unigap.callbacks.guard_watches import WATCHES
from unigap.metrics.watches import Comparison

Run = Mapping[str, Any]
GRID = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
"""Tolerances to choose from."""
USUAL = {name: watch.tolerance for name, watch in WATCHES.items()}


def harms_at(run: Run, tolerances: Mapping[str, float]) -> list[tuple[int, list[str]]]:
    """Return each epoch at which a guard with these tolerances fires, with the figures that made it.

    Args:
        run: A stored run.
        tolerances: Tolerance by figure; a figure that is missing is not looked at.
    """
    found = []
    for row in run["guard"]:
        harms = [
            name
            for name, figure in row["figures"].items()
            if name in tolerances and _p_value(name, tolerances[name], figure) <= row["level"]
        ]
        if harms:
            found.append((row["epoch"], harms))
    return found


def _p_value(name: str, tolerance: float, figure: Mapping[str, Any]) -> float:
    watch = dataclasses.replace(WATCHES[name], tolerance=tolerance)
    return watch.p_value(Comparison(**figure["from_best"]))


def chosen_tolerances(runs: Sequence[Run]) -> dict[str, float]:
    """Choose the tolerance of each figure on the clean runs with other seeds than those reported.

    One step of ``GRID`` above the smallest with which the figure is never harmful in these runs.
    """
    clean = [run for run in runs if run["judge"] == CLEAN and run["seed"] >= CHOOSING_SEED]
    chosen = {}
    for name in WATCHES:
        silent = [i for i, t in enumerate(GRID) if not any(harms_at(run, {name: t}) for run in clean)]
        chosen[name] = GRID[min((silent[0] if silent else len(GRID)) + 1, len(GRID) - 1)]
    return chosen


def reported(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that tolerances were not chosen on."""
    return [run for run in runs if run["seed"] < CHOOSING_SEED]


def fell_at(run: Run) -> int | None:
    """Return the first epoch whose paired change of generation accuracy has an interval wholly below zero, or None."""
    return next((row["epoch"] for row in run["truth"][1:] if row["generation_change"]["high"] < 0), None)
