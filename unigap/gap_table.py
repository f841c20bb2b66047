"""Tables of the gap for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from unigap.intervals import Estimate

TITLES = {
    "generation": "generation accuracy",
    "non_unification": "non-unification score",
    "weak_generation": "weak-generation share",
    "judge_precision": "precision of yes",
    "understanding_renders": "understanding on renders",
    "judge_accuracy": "judge accuracy, fixed drawings",
    "judge_tpr": "judge TPR, fixed drawings",
    "judge_tnr": "judge TNR, fixed drawings",
    "judge_auroc": "judge AUROC, fixed drawings",
}


def print_gap(figures: Mapping[str, Mapping[str, Estimate]]) -> None:
    """Prints the figures of the drawings by group, then those that have no groups, with 95 % intervals."""
    grouped = {name: found for name, found in figures.items() if len(found) > 1}
    groups = list(dict.fromkeys(group for found in grouped.values() for group in found))
    table = Table(title="The gap, in % with 95 % intervals")
    table.add_column("prompts")
    for name in grouped:
        table.add_column(TITLES.get(name, name.replace("_", " ")), justify="right")
    for group in groups:
        table.add_row(group, *(_percent(found[group].to_dict()) for found in grouped.values()))
    plain = Table(title="Understanding, in % with 95 % intervals", show_header=False)
    for name, found in figures.items():
        if name not in grouped:
            plain.add_row(TITLES.get(name, name.replace("_", " ")), _percent(found["all"].to_dict()))
    console = Console()
    console.print(table)
    if plain.row_count:
        console.print(plain)


def print_comparison(summary: Mapping[str, Any]) -> None:
    """Prints a run's figures before and after, and the paired changes."""
    table = Table(title=f"{summary['n_eval_prompts']} test prompts, in % with 95 % intervals")
    for name in ("", "before", "after", "change (paired)"):
        table.add_column(name, justify="left" if not name else "right")
    for name, title in TITLES.items():
        if name in summary["before"]:
            row = [_percent(summary[when][name]) for when in ("before", "after")]
            table.add_row(title, *row, _percent(summary["delta"][name], sign="+") if name in summary["delta"] else "")
    win = summary["after"]["win_rate"]
    matched, drift = summary["after"]["matched_win_rate"], summary["after"]["delta_auroc"]
    table.add_row(f"win rate of the judge (n = {win['n']})", "50", _percent(win), "")
    table.add_row("  at a matched yes-rate", "50", _percent(matched), "")
    table.add_row("  change of its AUROC", "", "", _percent(drift, sign="+"))
    Console().print(table)


def _percent(estimate: Mapping[str, Any], sign: str = "") -> str:
    if estimate["value"] is None:
        return "no samples"
    value = f"{100 * estimate['value']:{sign}.1f}"
    if estimate["low"] is None:
        return value
    return f"{value} [{100 * estimate['low']:{sign}.1f}, {100 * estimate['high']:{sign}.1f}]"
