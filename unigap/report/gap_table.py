"""Tables of the gap for the terminal, no wider than 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from unigap.metrics.intervals import Estimate
from unigap.report.run_folder.findings import no_external

TITLES = {
    "generation": "generation accuracy",
    "non_unification": "non-unification score",
    "weak_generation": "weak-generation share",
    "judge_precision": "precision of yes",
}
"""Figures of the drawings a model makes now."""
KNOWN = {
    "understanding_renders": "understanding, renders",
    "judge_accuracy": "accuracy",
    "judge_tpr": "TPR",
    "judge_tnr": "TNR",
    "judge_auroc": "AUROC",
    "judge_auroc_within": "AUROC, one category",
}
"""Figures of images that are the same before and after."""


def print_gap(figures: Mapping[str, Mapping[str, Estimate]], option: str = "--model.init_args.external") -> None:
    """Prints the figures of the drawings by group, then those that have no groups, with 95 % intervals.

    Args:
        figures: Estimates by name and group; ``"all"`` is every drawing.
        option: The option that names an external judge, for the note that is printed where there was none.
    """
    grouped = {name: found for name, found in figures.items() if len(found) > 1}
    groups = list(dict.fromkeys(group for found in grouped.values() for group in found))
    table = _table("The gap, in % with 95 % intervals", "prompts", (_title(name) for name in grouped))
    for group in groups:
        table.add_row(group, *(_percent(found[group].to_dict()) for found in grouped.values()))
    plain = _table("Understanding", "", ("",))
    for name, found in figures.items():
        if name not in grouped:
            plain.add_row(_title(name), _percent(found["all"].to_dict()))
    note = [] if "generation" in figures else ["", no_external(option)]
    Console(markup=False).print(table, *(["", plain] if plain.row_count else []), *note, sep="\n")


def print_comparison(summary: Mapping[str, Any]) -> None:
    """Prints a run's figures before and after, and the paired changes."""
    before, after, columns = summary["before"], summary["after"], ("before", "after", "change (paired)")
    changes = summary["delta"]
    gap = _table(f"The gap on {summary['n_eval_prompts']} test prompts, in % with 95 % intervals", "", columns)
    judge = _table("The judge on the drawings made before, in % with 95 % intervals", "", columns)
    for table, names in ((gap, [*TITLES, "understanding_renders"]), (judge, list(KNOWN)[1:])):
        for name in names:
            if name in before:
                delta = _percent(changes[name], sign="+") if name in changes else ""
                table.add_row(_title(name), _percent(before[name]), _percent(after[name]), delta)
    if "win_rate" not in after:
        Console().print(gap, "", no_external("--model.init_args.external"), sep="\n")
        return
    win = after["win_rate"]
    judge.add_row(f"win rate (n = {win['n']})", "50", _percent(win), "")
    judge.add_row("  at a matched yes-rate", "50", _percent(after["matched_win_rate"]), "")
    Console(markup=False).print(gap, "", judge, sep="\n")


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _title(name: str) -> str:
    return (TITLES | KNOWN).get(name, name.replace("_", " "))


def _percent(estimate: Mapping[str, Any], sign: str = "") -> str:
    if estimate["value"] is None:
        return "no samples"
    value, low, high = (estimate[end] for end in ("value", "low", "high"))
    if low is None:
        return _number(value, sign)
    return f"{_number(value, sign)} [{_number(low, sign)}, {_number(high, sign)}]"


def _number(share: float, sign: str) -> str:
    """Per cent with one decimal; a whole has none, so that columns stay narrow."""
    return f"{100 * share:{sign}.1f}".replace("100.0", "100")
