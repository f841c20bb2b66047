"""The page and the table of the guard experiment, written from the stored runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from evidence.markdown import percent, points
from evidence.statistics import over_seeds
from unigap.files.markdown import table
from unigap.metrics.intervals import Estimate, wilson
from unigap.metrics.judge_drift import harms

Run = Mapping[str, Any]
Arms = Mapping[str, Sequence[Run]]
"""Runs by arm or group."""
NONE = "no runs"
CLAIM = "the guard notices co-degradation"
CLEAN, CORRUPTED, FELL = "clean", "all corrupted", "quality fell"
TOLERANCES = (0.0, 0.01, 0.02, 0.05, 0.1)
PATIENCE = (1, 2, 3)
CHANGES = {
    "generation": "generation accuracy (oracle)",
    "non_unification": "non-unification",
    "auroc": "judge AUROC on known pairs",
    "brier": "judge Brier score on known pairs",
    "yes_rate": "judge yes-rate on known pairs",
    "accepted": "validation drawings its own judge accepts",
}
WATCHED = ("auroc", "brier", "yes_rate", "accepted")
"""The figures that the guard watches."""


def fired_at(run: Run) -> int | None:
    """Return the first epoch after which the guard fired, counted from 1; None if it never did."""
    return next((row["epoch"] for row in run["guard"] if row["fired"]), None)


def reasons(run: Run) -> set[str]:
    """Return the figures that counted as harm when the guard fired."""
    return {name for row in run["guard"] if row["fired"] for name in row["harms"]}


def would_fire(run: Run, tolerance: float, patience: int) -> bool:
    """Return whether a guard with another tolerance and patience would have fired."""
    unsound = 0
    for row in run["guard"]:
        change = {name: Estimate(**found) for name, found in row["change"].items()}
        unsound = unsound + 1 if harms(row["now"], change, row["true_share"], tolerance) else 0
        if unsound >= patience:
            return True
    return False


def fell_at(run: Run) -> int | None:
    """Return the first epoch whose paired change of generation accuracy has an interval wholly below zero, or None."""
    return next((row["epoch"] for row in run["truth"][1:] if row["generation_change"]["high"] < 0), None)


def groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group the runs by arm; add all corrupted runs, and all runs of any arm whose real quality fell."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run["arm"], []).append(run)
    found[CORRUPTED] = [run for run in runs if run["arm"] != CLEAN]
    found[FELL] = [run for run in runs if fell_at(run)]
    return found


def guard_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row for each arm and metric: ``claim, arm, metric, value, low, high, n, seeds``."""
    rows = []
    for arm, members in groups(runs).items():
        found = {"fired": _share(members, fired_at), "real quality fell": _share(members, fell_at)}
        found |= {f"change of {title}": _mean(members, name) for name, title in CHANGES.items()}
        found["epochs from firing to the fall"] = _lead(members)
        seeds = len({run["seed"] for run in members})
        rows += [
            {"claim": CLAIM, "arm": arm, "metric": metric, **estimate.to_dict(), "seeds": seeds}
            for metric, estimate in found.items()
        ]
    return rows


def guard_page(settings: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """Return the page, in Markdown."""
    by_arm = groups(runs)
    parts = [
        "# Does the guard notice?",
        _setting(settings, runs),
        _findings(by_arm),
        "## When it fired, and when real quality fell",
        "Share of runs in percent, with Wilson's 95 % interval. Epoch of the first event: median (range) over the runs "
        "in which it happened.",
        _events_table(by_arm),
        "## Why it fired",
        "Share of runs, in percent, in which the guard fired and this figure was among its reasons.",
        _reasons_table(by_arm),
        "## Change from the start to the last epoch",
        "Mean over runs, in points, with Student's 95 % interval; bold if it excludes zero. AUROC and Brier score are "
        "over pairs of all categories, because the runs do not store the category of a pair.",
        _moves_table(by_arm),
        "## Other thresholds, on the same runs",
        "Share of runs, in percent, in which a guard with that tolerance and patience would have fired.",
        _thresholds_table(by_arm),
    ]
    return "\n\n".join(parts) + "\n"


def _events_table(by_arm: Arms) -> str:
    header = ("who selects", "runs", "rightly accepted", "fired", "at epoch", "real quality fell", "at epoch")
    return table(header, [[arm, *_events(members)] for arm, members in by_arm.items()])


def _events(members: Sequence[Run]) -> list[str]:
    if not members:
        return ["0", *[NONE] * 5]
    accepted = sum(run["drawn"]["accepted"] for run in members)
    right = sum(run["drawn"]["truly_right"] for run in members)
    cells = [str(len(members)), f"{100 * right / accepted:.0f} %"]
    for event in (fired_at, fell_at):
        epochs = sorted(found for run in members if (found := event(run)))
        when = f"{epochs[len(epochs) // 2]} ({epochs[0]}-{epochs[-1]})" if epochs else "never"
        cells += [percent(_share(members, event)), when]
    return cells


def _reasons_table(by_arm: Arms) -> str:
    rows = []
    for arm, members in by_arm.items():
        counts = [sum(name in reasons(run) for run in members) for name in WATCHED]
        rows.append([arm, *(percent(wilson(count, len(members)), NONE) for count in counts)])
    return table(("who selects", *(CHANGES[name] for name in WATCHED)), rows)


def _moves_table(by_arm: Arms) -> str:
    rows = [[arm, *(points(_mean(members, name), NONE) for name in CHANGES)] for arm, members in by_arm.items()]
    return table(("who selects", *CHANGES.values()), rows)


def _thresholds_table(by_arm: Arms) -> str:
    rows = []
    for tolerance, patience in itertools.product(TOLERANCES, PATIENCE):
        cells = [f"{tolerance:g}", str(patience)]
        for members in (by_arm.get(arm, []) for arm in (CLEAN, CORRUPTED, FELL)):
            fired = sum(would_fire(run, tolerance, patience) for run in members)
            cells.append(percent(wilson(fired, len(members)), NONE))
        rows.append(cells)
    header = ("tolerance", "patience", "false alarms (clean)", "fired (corrupted)", "fired (real quality fell)")
    return table(header, rows)


def _setting(settings: Mapping[str, Any], runs: Sequence[Run]) -> str:
    minutes = sum(run["seconds"] for run in runs) / 60
    return (
        "Written by `python -m evidence guard` from the results in `guard.parquet`. "
        f"{len(runs)} runs of `{settings['checkpoint']}` (weights {settings['weights'][:12]}), {minutes:.0f} minutes: "
        f"{settings['per_cell']} prompts a cell, {settings['candidates']} candidates each, {settings['epochs']} epochs "
        f"of SFT at learning rate {settings['lr']:g}. After each epoch the guard measures the model's own judge on "
        f"{settings['pairs']} rendered images with captions known to be true or false, and the share of images sampled "
        f"for validation prompts ({settings['drawn_per_cell']} a cell, {settings['drawn_candidates']} each) that this "
        "judge accepts. It only records what it finds, so every run trains to its end. `flipped-30` flips 30 % of the "
        "model's own verdicts. Real quality is the share of images for test prompts that the oracle accepts. It fell "
        "at the first epoch whose change, paired by prompt, has a 95 % interval wholly below zero."
    )


def _findings(by_arm: Arms) -> str:
    clean, corrupted, fell = (by_arm.get(name, []) for name in (CLEAN, CORRUPTED, FELL))
    alarms, noticed, warned = (_share(members, fired_at) for members in (clean, corrupted, fell))
    lines = [
        f"- **False alarms:** the guard fired in {_in_percent(alarms)} of the {len(clean)} clean runs.",
        f"- **Detection:** it fired in {_in_percent(noticed)} of the {len(corrupted)} runs with corrupted selection, "
        f"and in {_in_percent(warned)} of the {len(fell)} runs whose real quality fell.",
    ]
    if clean and corrupted:
        apart = noticed.low > alarms.high
        lines.append(
            "- These intervals do not overlap: in this setting the guard distinguishes corrupted from clean selection."
            if apart
            else "- These intervals overlap: in this setting the guard does **not** distinguish the two."
        )
    lead = _lead(fell)
    if lead.n:
        spread = f" [{lead.low:+.1f}, {lead.high:+.1f}]" if lead.n > 1 else ""
        lines.append(
            f"- **Timing:** in the {lead.n} runs with both events, quality fell {lead.value:+.1f}{spread} epochs after "
            "the guard fired, on average; a negative number means that the guard was late."
        )
    blind = [run for run in fell if _moved(run, "non_unification") < 0]
    if fell:
        lines.append(
            f"- **The score alone:** non-unification fell, as if the model had improved, in {len(blind)} of the "
            f"{len(fell)} runs whose real quality fell."
        )
    return "\n".join(lines)


def _in_percent(share: Estimate) -> str:
    return f"{percent(share)} %" if share.n else NONE


def _share(members: Sequence[Run], event: Any) -> Estimate:
    return wilson(sum(event(run) is not None for run in members), len(members))


def _moved(run: Run, name: str) -> float:
    if name in run["guard"][-1]["change"]:
        return run["guard"][-1]["change"][name]["value"]
    return run["truth"][-1][name] - run["truth"][0][name]


def _mean(members: Sequence[Run], name: str) -> Estimate:
    return over_seeds([_moved(run, name) for run in members])


def _lead(members: Sequence[Run]) -> Estimate:
    both = [(fired_at(run), fell_at(run)) for run in members]
    return over_seeds([fell - fired for fired, fell in both if fired and fell])
