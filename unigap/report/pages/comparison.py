"""Compare the figures of several runs with the first run, and list the differences of their recipes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice, product
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from unigap.estimate import Estimate
from unigap.files.seals import was_written
from unigap.report.run_folder.contents import Estimates, read_run
from unigap.report.run_folder.curves import Epoch
from unigap.report.run_folder.fit_folder import read_fit
from unigap.report.run_folder.measured import AFTER_TRAINING, Samples, check_alike


@dataclass(frozen=True)
class Contender:
    """A run in a comparison.

    Attributes:
        letter: Its letter on the page.
        name: Its folder, as given.
        before: Estimates by metric before training; empty if the run measured none.
        after: Estimates by metric at the end.
        recipe: Settings by name.
        epochs: Its learning curves.
        measured_on: What its figures were measured on, as far as recorded.
        samples: Verdicts on each sample after training; None if not recorded.
    """

    letter: str
    name: str
    before: Estimates
    after: Estimates
    recipe: Mapping[str, Any]
    epochs: Sequence[Epoch]
    measured_on: Mapping[str, Any]
    samples: Samples | None = None


def read_contenders(folders: Sequence[str]) -> list[Contender]:
    """Read runs to compare; they get letters in the order given.

    Args:
        folders: Run folders of ``unigap demo`` or ``unigap fit``, two or more.

    Raises:
        ValueError: There are fewer than two, one is given twice, one has measured nothing, or two were not measured on
            the same things.
    """
    if len(folders) < 2:
        raise ValueError("compare needs two runs or more; give their folders")
    for number, folder in enumerate(folders):
        if Path(folder).resolve() in (Path(other).resolve() for other in folders[:number]):
            raise ValueError(f"{folder} is given twice; give each run once")
    runs = [read_contender(letter, folder) for letter, folder in zip(letters(len(folders)), folders, strict=True)]
    unrecorded(runs)
    return runs


def unrecorded(runs: Sequence[Contender]) -> list[str]:
    """Return a line for each run that does not record what it was measured on; refuse runs measured otherwise.

    Raises:
        ValueError: Two runs were not measured on the same things.
    """
    return check_alike([(run.name, run.measured_on) for run in runs])


def letters(number: int) -> list[str]:
    """Return the letters A, B, ... Z, AA, AB, ...

    >>> letters(28)[-3:]
    ['Z', 'AA', 'AB']
    """
    names = ("".join(name) for length in count(1) for name in product(ascii_uppercase, repeat=length))
    return list(islice(names, number))


def read_contender(letter: str, folder: str) -> Contender:
    """Read a run to compare: one with a ``summary.json``, otherwise one of ``unigap fit``.

    Raises:
        ValueError: It is neither, it is damaged, or it has measured nothing yet.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"no run folder at {folder}; give the folder of a run of unigap demo or unigap fit")
    if was_written(Path(folder) / "summary.json"):
        run = read_run(folder)
        summary = run.summary
        recipe = {"model": summary.model, "seed": summary.seed, **summary.recipe}
        on = {"figures": AFTER_TRAINING, **summary.measured_on}
        return Contender(letter, folder, summary.before, summary.after, recipe, run.epochs, on, summary.samples)
    fit = read_fit(folder)
    if not fit.estimates:
        raise ValueError(f"{folder} has measured nothing; keep unigap.callbacks.CurveLog among trainer.callbacks")
    return Contender(letter, folder, {}, fit.estimates, fit.recipe, fit.epochs, fit.measured_on)


def difference(metric: str, first: Contender, other: Contender) -> Estimate:
    """Return the difference of another run from the first in a metric that both measured.

    If both recorded their samples, the interval is paired: each resample draws the same prompts for both runs.
    Otherwise it is computed from both intervals, see `unpaired_difference`.
    """
    if first.samples is not None and other.samples is not None and drawn_alike(first, other):
        from unigap.report.pages.paired import paired_difference  # imports torch, which nothing else here needs

        paired = paired_difference(metric, first.samples, other.samples)
        if paired is not None:
            return paired
    return unpaired_difference(first.after[metric], other.after[metric])


def drawn_alike(first: Contender, other: Contender) -> bool:
    """Return whether two runs are known to have sampled for the same prompts with the same seed."""
    return all(
        key in first.measured_on and first.measured_on[key] == other.measured_on.get(key)
        for key in ("prompts_sha256", "seed", "candidates")
    )


def unpaired_difference(first: Estimate, other: Estimate) -> Estimate:
    """Return the difference of two estimates, with an interval computed from both intervals.

    The method of variance estimates recovery (MOVER; Zou and Donner, Statistics in Medicine 2008) assumes independent
    estimates. Runs on the same prompts vary together, so the interval tends to be too wide rather than too narrow.

    Args:
        first: Estimate of the reference run.
        other: Estimate of the other run.

    Returns:
        Other minus first; nan where one was not measured, and without an interval where one has none.

    >>> unpaired_difference(Estimate(0.4, 0.36, 0.44, 900), Estimate(0.5, 0.47, 0.53, 800))
    Estimate(value=0.1, low=0.05, high=0.15, n=800)
    """
    n = min(first.n, other.n)
    value = other.value - first.value
    if not (first.has_interval and other.has_interval):
        return Estimate(_share(value), math.nan, math.nan, n)
    low = value - math.hypot(other.value - other.low, first.high - first.value)
    high = value + math.hypot(other.high - other.value, first.value - first.low)
    return Estimate(_share(value), _share(low), _share(high), n)


def _share(difference: float) -> float:
    """Round a difference of shares to remove rounding errors."""
    return difference if math.isnan(difference) else round(min(max(difference, -1.0), 1.0), 12)


@dataclass(frozen=True)
class RecipeDifferences:
    """Differences of recipes.

    Attributes:
        different: Settings of all runs that differ, with the value of each run.
        partial: Settings that only some of the runs have, likewise.
        same: Number of settings that are equal in all runs.
    """

    different: dict[str, list[str]]
    partial: dict[str, list[str]]
    same: int


def recipe_differences(runs: Sequence[Contender]) -> RecipeDifferences:
    """Return the settings in which the runs differ."""
    names = list(dict.fromkeys(name for run in runs for name in run.recipe))
    values = {name: [setting_text(run.recipe.get(name)) for run in runs] for name in names}
    different = {name: row for name, row in values.items() if len(set(row)) > 1}
    partial = {name: row for name, row in different.items() if any(name not in run.recipe for run in runs)}
    shared = {name: row for name, row in different.items() if name not in partial}
    return RecipeDifferences(shared, partial, len(values) - len(different))


def setting_text(value: Any) -> str:
    """Return a setting as text; an en dash if the run has none."""
    return "\N{EN DASH}" if value is None else str(value)
