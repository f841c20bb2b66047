"""The page and the table of the guard experiment, written from the stored runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evidence.guard_arms import CHOOSING_SEED, CLEAN, kinds
from evidence.guard_replay import USUAL, Run, chosen_tolerances, fell_at, harms_at, reported
from evidence.markdown import percent, points
from evidence.statistics import over_seeds
from unigap.callbacks.guard_watches import WATCHES
from unigap.files.markdown import table
from unigap.metrics.intervals import Estimate, wilson

Arms = Mapping[str, Sequence[Run]]
"""Runs by arm or group."""
NONE = "no runs"
CLAIM = "the guard notices co-degradation"
ALL_CLEAN, ALL_CORRUPTED, FELL = "all clean", "all corrupted", "quality fell"


def groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs by arm; add all clean ones, all corrupted ones, and all whose real quality fell."""
    found = {
        f"{objective} {judge}": [run for run in runs if (run["objective"], run["judge"]) == (objective, judge)]
        for objective, judge in kinds()
    }
    found[ALL_CLEAN] = [run for run in runs if run["judge"] == CLEAN]
    found[ALL_CORRUPTED] = [run for run in runs if run["judge"] != CLEAN]
    found[FELL] = [run for run in runs if fell_at(run)]
    return {name: members for name, members in found.items() if members}


def fired_at(run: Run, tolerances: Mapping[str, float]) -> int | None:
    """Return the first epoch after which a guard with these tolerances fires, counted from 1; None if it never does."""
    return next((epoch for epoch, _ in harms_at(run, tolerances)), None)


def guard_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row for each arm and metric: ``claim, arm, metric, value, low, high, n, seeds``."""
    chosen, rows = chosen_tolerances(runs), []
    for arm, members in groups(reported(runs)).items():
        found = {
            "fired": share(members, chosen),
            "fired, usual tolerances": share(members, USUAL),
            "real quality fell": wilson(sum(fell_at(run) is not None for run in members), len(members)),
            "change of generation accuracy (oracle)": _moved(members),
            "epochs from firing to the fall": _lead(members, chosen),
        }
        seeds = len({run["seed"] for run in members})
        rows += [
            {"claim": CLAIM, "arm": arm, "metric": metric, **estimate.to_dict(), "seeds": seeds}
            for metric, estimate in found.items()
        ]
    return rows


def guard_page(settings: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """Return the page, in Markdown."""
    chosen, by_arm = chosen_tolerances(runs), groups(reported(runs))
    parts = [
        "# Does the guard notice?",
        _setting(settings, runs),
        _findings(by_arm, chosen),
        "## When it fired, and when real quality fell",
        "Share of runs in percent, with Wilson's 95 % interval. Epoch of the first event: median (range) over the runs "
        "in which it happened. The change of generation accuracy is in points, from the start to the last epoch, with "
        "Student's 95 % interval over runs.",
        _events_table(by_arm, chosen),
        "## Why it fired",
        "Share of runs, in percent, in which each figure was harmful at some validation.",
        _reasons_table(by_arm, chosen),
        "## Tolerances",
        f"Each is chosen on the clean runs with seeds from {CHOOSING_SEED} on, which are counted nowhere else: one "
        "step of a grid above the smallest with which the figure stays silent in all of them. The last columns are the "
        "share of reported runs, in percent, in which the figure alone would have fired with the chosen tolerance.",
        _tolerances_table(by_arm, chosen),
    ]
    return "\n\n".join(parts) + "\n"


def share(members: Sequence[Run], tolerances: Mapping[str, float]) -> Estimate:
    """Return the share of runs in which a guard with these tolerances fires."""
    return wilson(sum(fired_at(run, tolerances) is not None for run in members), len(members))


def _setting(settings: Mapping[str, Any], runs: Sequence[Run]) -> str:
    minutes = sum(run["cpu_seconds"] for run in runs) / 60
    return (
        "Written by `python -m evidence guard` from the results in `guard.parquet`. "
        f"{len(runs)} runs of `{settings['checkpoint']}` (weights {settings['weights'][:12]}), {minutes:.0f} CPU "
        f"minutes: {settings['per_cell']} prompts a cell, {settings['candidates']} candidates each; SFT and DPO for "
        "three epochs on one round, GRPO for six with a new round for 90 prompts after each, validated after every "
        "second. At each validation the guard reads the model's own judge on "
        f"{settings['pairs']} rendered images with captions known to be true or false, and images for validation "
        f"prompts ({settings['drawn_per_cell']} a cell, {settings['drawn_candidates']} each). It only records what it "
        "finds, so every run trains to its end. `flipped-30` flips 30 % of the model's own verdicts; `few-objects` "
        "accepts images with one object at most. A judge that accepts everything gives DPO and GRPO nothing to learn "
        "and is left out there. Real quality is the share of validation images that the oracle accepts. It fell at the "
        "first epoch whose change, paired by prompt, has a 95 % interval wholly below zero."
    )


def _findings(by_arm: Arms, chosen: Mapping[str, float]) -> str:
    clean, corrupted, fell = (by_arm.get(name, []) for name in (ALL_CLEAN, ALL_CORRUPTED, FELL))
    lines = [
        f"- **False alarms:** the guard fired in {_in_percent(share(clean, chosen))} of {len(clean)} clean runs "
        f"({_in_percent(share(clean, USUAL))} with its usual tolerances).",
        f"- **Detection:** it fired in {_in_percent(share(corrupted, chosen))} of {len(corrupted)} runs with corrupted "
        f"selection ({_in_percent(share(corrupted, USUAL))} with its usual tolerances), and in "
        f"{_in_percent(share(fell, chosen))} of the {len(fell)} runs whose real quality fell.",
    ]
    lead = _lead(fell, chosen)
    if lead.n:
        spread = f" [{lead.low:+.1f}, {lead.high:+.1f}]" if lead.n > 1 else ""
        lines.append(
            f"- **Timing:** in the {lead.n} runs with both events, quality fell {lead.value:+.1f}{spread} epochs after "
            "the guard fired, on average; a negative number means that the guard was late."
        )
    return "\n".join(lines)


def _events_table(by_arm: Arms, chosen: Mapping[str, float]) -> str:
    header = ("run", "runs", "fired", "at epoch", "real quality fell", "at epoch", "generation accuracy")
    rows = []
    for arm, members in by_arm.items():
        cells = [arm, str(len(members))]
        for epochs in ([fired_at(run, chosen) for run in members], [fell_at(run) for run in members]):
            happened = sorted(epoch for epoch in epochs if epoch)
            when = f"{happened[len(happened) // 2]} ({happened[0]}-{happened[-1]})" if happened else "never"
            cells += [percent(wilson(len(happened), len(members))), when]
        rows.append([*cells, points(_moved(members))])
    return table(header, rows)


def _reasons_table(by_arm: Arms, chosen: Mapping[str, float]) -> str:
    rows = []
    for arm, members in by_arm.items():
        found = [{name for _, harms in harms_at(run, chosen) for name in harms} for run in members]
        rows.append([arm, *(f"{100 * sum(name in harms for harms in found) / len(found):.0f}" for name in WATCHES)])
    return table(("run", *(f"`{name}`" for name in WATCHES)), rows)


def _tolerances_table(by_arm: Arms, chosen: Mapping[str, float]) -> str:
    rows = []
    for name, watch in WATCHES.items():
        kind = f"{watch.worse}, share of the best" if watch.relative else watch.worse
        alone = [percent(share(by_arm.get(arm, []), {name: chosen[name]}), NONE) for arm in (ALL_CLEAN, ALL_CORRUPTED)]
        rows.append([f"`{name}`", kind, f"{watch.tolerance:g}", f"{chosen[name]:g}", *alone])
    return table(("figure", "worse", "usual", "chosen", "clean", "corrupted"), rows)


def _in_percent(estimate: Estimate) -> str:
    return f"{percent(estimate)} %" if estimate.n else NONE


def _moved(members: Sequence[Run]) -> Estimate:
    return over_seeds([run["truth"][-1]["generation"] - run["truth"][0]["generation"] for run in members])


def _lead(members: Sequence[Run], tolerances: Mapping[str, float]) -> Estimate:
    both = [(fired_at(run, tolerances), fell_at(run)) for run in members]
    return over_seeds([fell - fired for fired, fell in both if fired and fell])
