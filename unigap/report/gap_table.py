"""Tables of the gap for the terminal, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from unigap.estimate import Estimate
from unigap.files.typed_json import build
from unigap.report.run_folder.contents import Summary
from unigap.report.run_folder.figures import FIGURES, GAP, JUDGE_ACCURACY, Metric
from unigap.report.run_folder.findings import in_words, no_external

NEW_IMAGES = (*GAP, FIGURES["judge_precision"], FIGURES["understanding_renders"])
"""Figures of the images that a model generates now, and of the probe set."""
SAME_IMAGES = (
    JUDGE_ACCURACY,
    *(FIGURES[key] for key in ("judge_tpr", "judge_tnr", "judge_auroc", "judge_auroc_within")),
)
"""Figures of images that are the same before and after training."""
METRICS = {**FIGURES, JUDGE_ACCURACY.key: JUDGE_ACCURACY}


def print_gap(figures: Mapping[str, Mapping[str, Estimate]], option: str = "--model.init_args.external") -> None:
    """Print the figures of generated images by group, then those without groups, with 95 % intervals.

    Args:
        figures: Estimates by name and group; ``"all"`` stands for all images.
        option: The option that names an external judge, for the note that is printed without one.
    """
    grouped = {name: found for name, found in figures.items() if len(found) > 1}
    groups = list(dict.fromkeys(group for found in grouped.values() for group in found))
    table = _table("The gap, in % with 95 % intervals", "prompts", (_title(name) for name in grouped))
    for group in groups:
        table.add_row(group, *(_percent(found[group]) for found in grouped.values()))
    plain = _table("Understanding", "", ("",))
    for name, found in figures.items():
        if name not in grouped:
            plain.add_row(_title(name), _percent(found["all"]))
    note = [] if "generation" in figures else ["", no_external(option)]
    Console(markup=False).print(table, *(["", plain] if plain.row_count else []), *note, sep="\n")


def print_comparison(summary: Mapping[str, Any]) -> None:
    """Print a run's figures before and after training, the paired changes, and what they say in words.

    Args:
        summary: The content of ``summary.json``.
    """
    columns = ("before", "after", "change (paired)")
    before, after, changes = (build(dict[str, Estimate], summary[key], key) for key in ("before", "after", "delta"))
    gap = _table(f"The gap on {summary['n_eval_prompts']} test prompts, in % with 95 % intervals", "", columns)
    judge = _table("The judge on images generated before training, in % with 95 % intervals", "", columns)
    tables: list[tuple[Table, Iterable[Metric]]] = [(gap, NEW_IMAGES), (judge, SAME_IMAGES)]
    for table, metrics in tables:
        for name in (metric.key for metric in metrics):
            if name in before:
                delta = _percent(changes[name], sign="+") if name in changes else ""
                table.add_row(_title(name), _percent(before[name]), _percent(after[name]), delta)
    shown: list[Any] = [gap, ""]
    if "win_rate" in after:
        judge.add_row(f"win rate (n = {after['win_rate'].n})", "50", _percent(after["win_rate"]), "")
        judge.add_row("  at a matched yes-rate", "50", _percent(after["matched_win_rate"]), "")
        shown.append(judge)
    else:
        shown.append(no_external("--model.init_args.external"))
    Console(markup=False).print(*shown, "", *folded(in_words(build(Summary, summary, "summary"))), sep="\n")


def folded(sentences: Iterable[str]) -> list[str]:
    """Return sentences as lines of at most 80 characters, each sentence on lines of its own."""
    return [line for sentence in sentences for line in textwrap.wrap(sentence, 80)]


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _title(key: str) -> str:
    """The name of a figure, in lower case unless it is an abbreviation."""
    name = METRICS[key].name if key in METRICS else key.replace("_", " ")
    return name if name[:2].isupper() else name[0].lower() + name[1:]


def _percent(estimate: Estimate, sign: str = "") -> str:
    if not estimate.measured:
        return "no samples"
    if not estimate.has_interval:
        return _number(estimate.value, sign)
    return f"{_number(estimate.value, sign)} [{_number(estimate.low, sign)}, {_number(estimate.high, sign)}]"


def _number(share: float, sign: str) -> str:
    """Per cent with one decimal; 100 without, so that columns stay narrow."""
    return f"{100 * share:{sign}.1f}".replace("100.0", "100")
