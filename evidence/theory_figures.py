"""Draw the figures of ``theory.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from evidence import theory_summary as summary
from evidence.one_step import BUDGETS
from unigap.metrics.intervals import Estimate
from unigap.report.plots import style

TITLES = {"generation": "Lemma 1/3, generation", "bayes": "Lemma 2/4, Bayes", "head": "understanding head"}
SCORE_NAMES = {
    "kernel": "kernel, SFT gradient",
    "kernel_adam": "kernel, AdamW's first step",
    "p_yes": "the judge's own doubt",
    "pixels": "far from training pixels",
    "hidden": "far from training hidden states",
    "category": "category alone",
}


def draw_figures(results: summary.Results, seeds: Sequence[int], category_of: Sequence[str], out: Path) -> list[str]:
    """Draw every figure into ``out``; return their names."""
    corrections = summary.correction_table(summary.false_positives(results, seeds, category_of))
    figures = {
        "theory-lemmas.png": _lemmas(results, seeds),
        "theory-coupling.png": _coupling(results, seeds),
        "theory-corrections.png": _corrections(corrections),
        "theory-bayes.png": _bayes(results, seeds),
    }
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=130)
    return list(figures)


def _lemmas(results: summary.Results, seeds: Sequence[int]) -> Figure:
    figure = style.canvas(12.6, 7.2)
    for row, objective in enumerate(("sft", "dpo")):
        for column, (reading, title) in enumerate(TITLES.items(), 1):
            name = f"{objective.upper()}: {title}"
            axes = style.panel(figure, name, "predicted (nats)", "measured (nats)", (2, 3, 3 * row + column))
            ends: list[float] = []
            for arm in summary.arms_of(results, "one-step", seeds):
                changes = arm[objective][reading]
                axes.scatter(changes["predicted"], changes["measured"], s=14, alpha=0.7, linewidths=0)
                ends += [*changes["predicted"], *changes["measured"]]
            axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=style.NULL, linewidth=1, zorder=0)
            axes.ticklabel_format(style="sci", scilimits=(-2, 3), axis="both")
    figure.suptitle(f"a step that lowers the loss by {BUDGETS[1]} nats; one colour a seed", fontsize=10)
    return figure


def _coupling(results: summary.Results, seeds: Sequence[int]) -> Figure:
    figure = style.canvas(12.6, 4.2)
    table = summary.coupling_table(results, seeds)
    axes = style.panel(figure, "mean own-pair cosine, false and true accepts", "", "", (1, 3, 1))
    places = range(len(table))
    for shift, group in ((-0.15, "true accept"), (0.15, "false accept")):
        colour, marker = style.GROUP_STYLE[group]
        estimates = [row[group] for row in table.values()]
        _points(axes, [p + shift for p in places], estimates, colour, marker, group)
    axes.set_xticks(list(places), [name.replace(" ", "\n") for name in table], fontsize=8)
    axes.axhline(0, color=style.INK, linewidth=0.8)
    axes.legend(fontsize=8, frameon=False)
    parts = summary.part_table(results, seeds)
    axes = style.panel(figure, "which parts carry it (base)", "addition to the own-pair cosine", "", (1, 3, 2))
    rows = list(range(len(parts)))[::-1]
    axes.barh(rows, [value.value for value, _, _ in parts.values()], color=style.GENERATION, height=0.62)
    null = [(mean, 2 * spread) for _, mean, spread in parts.values()]
    axes.errorbar([m for m, _ in null], rows, xerr=[s for _, s in null], fmt="none", ecolor=style.NULL, label="null")
    axes.set_yticks(rows, list(parts))
    axes.axvline(0, color=style.INK, linewidth=0.8)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes = style.panel(figure, "during self-improvement", "step", "mean own-pair cosine", (1, 3, 3))
    for name, colour in (("value", style.GENERATION), ("null", style.NULL)):
        steps = summary.movement(results, seeds, f"own_cosine/{name}")
        _points(
            axes, [s for s, _ in steps], [e for _, e in steps], colour, "o", "own pairs" if name == "value" else name
        )
    axes.set_xticks([step for step, _ in steps])
    axes.margins(x=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _corrections(table: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    figure = style.canvas(10.6, 4.2)
    names = list(table)[::-1]
    for column, (kind, title, chance) in enumerate(
        (("auroc", "AUROC for being corrected", 0.5), ("rank", "rank correlation with the fall of the log-odds", 0.0)),
        1,
    ):
        axes = style.panel(figure, title, "", "", (1, 2, column))
        for key, label, shift, colour in (
            (kind, "over all drawings", 0.13, style.NULL),
            (f"{kind}_within", "within a category and seed", -0.13, style.GENERATION),
        ):
            shown = [(place + shift, table[name][key]) for place, name in enumerate(names) if table[name][key].n]
            for place, estimate in shown:
                axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=2)
            places = [place for place, _ in shown]
            axes.plot([estimate.value for _, estimate in shown], places, "o", color=colour, label=label)
        axes.set_yticks(range(len(names)), [SCORE_NAMES[name] for name in names])
        axes.axvline(chance, color=style.INK, linewidth=0.8)
    figure.axes[1].legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def _bayes(results: summary.Results, seeds: Sequence[int]) -> Figure:
    figure = style.canvas(5.2, 4.2)
    axes = style.panel(
        figure,
        "over all of self-improvement, one colour a seed",
        "change through Bayes (nats)",
        "change of the head's log-odds",
    )
    for arm in summary.arms_of(results, "corrections", seeds):
        axes.scatter(arm["bayes"]["bayes"], arm["bayes"]["head"], s=10, alpha=0.6, linewidths=0)
    axes.axhline(0, color=style.NULL, linewidth=0.8)
    axes.axvline(0, color=style.NULL, linewidth=0.8)
    return figure


def _points(axes: Any, x: Sequence[float], estimates: Sequence[Estimate], colour: str, marker: str, label: str) -> None:
    values = torch.tensor([e.value for e in estimates])
    reach = torch.tensor([[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]).nan_to_num(0.0)
    style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1, "linestyle": "none"}
    axes.errorbar(x, values.numpy(), yerr=reach.numpy(), label=label, capsize=2, **style)
