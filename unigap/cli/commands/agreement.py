"""``unigap judge agreement``: yes-rates of the judges of a pool, and their agreement beyond chance."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table

from unigap.console.closing import close, command
from unigap.metrics.agreement import cohen_kappa, fleiss_kappa, raw_agreement
from unigap.metrics.intervals import Estimate
from unigap.metrics.scores import share
from unigap.pool import Pool
from unigap.prompt_sets.same_text import prompt_numbers

MASS = "P(yes or no): the rest of the probability is on answers that are neither"
Verdicts = Mapping[str, Mapping[str, bool]]
"""Verdicts by judge, then by candidate id."""


def judge_agreement(pool: str, judges: str = "") -> None:
    """Show the yes-rate of each judge of a pool and their agreement beyond chance, with 95 % intervals by prompt.

    Args:
        pool: The pool.
        judges: Names of two or more judges, separated by commas, e.g. ``self,oracle,human``. Default: all.
    """
    source = Pool.open(pool)
    verdicts: dict[str, dict[str, bool]] = {}
    masses: dict[str, list[float]] = {}
    for judgment in source.judgments():
        verdicts.setdefault(judgment.judge, {})[judgment.candidate_id] = judgment.logit >= 0
        if judgment.mass is not None:
            masses.setdefault(judgment.judge, []).append(judgment.mass)
    named = [name.strip() for name in judges.split(",") if name.strip()]
    unknown = [name for name in named if name not in verdicts]
    if unknown:
        raise ValueError(
            f"pool {pool!r} holds no verdict of {unknown[0]!r}; choose one of: {', '.join(sorted(verdicts))}"
        )
    names = list(dict.fromkeys(named)) or sorted(verdicts)
    if len(names) < 2:
        raise ValueError(f"agreement takes two judges or more, pool {pool!r} gives {', '.join(names) or 'none'}")
    candidates = source.candidates()
    cluster = dict(zip((c.id for c in candidates), prompt_numbers(c.prompt for c in candidates), strict=True))
    chosen, console = {name: verdicts[name] for name in names}, Console(markup=False)
    console.print(_yes_rates(chosen, cluster, masses))
    console.print(_agreement(chosen, cluster))
    close({}, command("export", "pool", pool, "--out", "FOLDER"))


def _yes_rates(verdicts: Verdicts, cluster: Mapping[str, int], masses: Mapping[str, Sequence[float]]) -> Table:
    table = Table(title="Verdicts of each judge", caption=MASS if masses else None)
    for column in ("judge", "images", "yes, in %", *(["P(yes or no), in %"] if masses else [])):
        table.add_column(column, justify="left" if column == "judge" else "right")
    for name in verdicts:
        verdict_SJ, cluster_S = _columns({name: verdicts[name]}, cluster)
        rate = share(verdict_SJ[:, 0], torch.ones(len(cluster_S), dtype=torch.bool), cluster_S)
        mass = f"{100 * mean(masses[name]):.3g}" if name in masses else ""
        table.add_row(name, str(rate.n), _format(rate, 100, 1), *([mass] if masses else []))
    return table


def _agreement(verdicts: Verdicts, cluster: Mapping[str, int]) -> Table:
    table = Table(title="Agreement, with 95 % intervals")
    for column in ("judges", "images", "agree, in %", "kappa"):
        table.add_column(column, justify="left" if column == "judges" else "right")
    for pair in itertools.combinations(verdicts, 2):
        verdict_SJ, cluster_S = _columns({name: verdicts[name] for name in pair}, cluster)
        kappa = cohen_kappa(verdict_SJ[:, 0], verdict_SJ[:, 1], cluster_S) if len(cluster_S) else None
        _add_row(table, " / ".join(pair), verdict_SJ, cluster_S, kappa)
    if len(verdicts) > 2:
        verdict_SJ, cluster_S = _columns(verdicts, cluster)
        kappa = fleiss_kappa(verdict_SJ, cluster_S) if len(cluster_S) else None
        _add_row(table, "all", verdict_SJ, cluster_S, kappa)
    return table


def _add_row(
    table: Table, title: str, verdict_SJ: torch.Tensor, cluster_S: torch.Tensor, kappa: Estimate | None
) -> None:
    if kappa is None:
        table.add_row(title, "0", "none in common", "")
    else:
        agree = raw_agreement(verdict_SJ, cluster_S)
        table.add_row(title, str(agree.n), _format(agree, 100, 1), _format(kappa, 1, 2))


def _columns(verdicts: Verdicts, cluster: Mapping[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return verdicts (S, J) on the images that every judge judged, and the prompt number (S,) of each image."""
    common = [name for name in cluster if all(name in given for given in verdicts.values())]
    rows = [[given[name] for given in verdicts.values()] for name in common]
    verdict_SJ = torch.tensor(rows, dtype=torch.bool).view(-1, len(verdicts))
    return verdict_SJ, torch.tensor([cluster[name] for name in common])


def _format(estimate: Estimate, scale: float, digits: int) -> str:
    if estimate.n == 0:
        return "undefined"
    value, low, high = (f"{scale * end:.{digits}f}" for end in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]" if estimate.low == estimate.low else value
