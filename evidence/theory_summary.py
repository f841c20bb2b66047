"""What the arms of the theory experiment add up to: every number the page shows, with its interval.

Shape legend: S test drawings, F false positives among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import theory
from evidence.one_step import BUDGETS, READINGS
from evidence.statistics import over_seeds, rank_correlation, ranks
from unigap.callbacks.dynamics_probes import GROUPS
from unigap.metrics.intervals import Estimate, bootstrap_auroc, bootstrap_ratio

SCORES = ("kernel", "kernel_adam", "p_yes", "pixels", "hidden")
SUBJECTS = ("base", "improved", "untrained", "two trunks")
Results = Mapping[str, Mapping[str, Any]]


def arms_of(results: Results, name: str, seeds: Sequence[int]) -> list[Mapping[str, Any]]:
    """One arm of every seed."""
    return [results[f"{name}-{seed}"] for seed in seeds]


def one_step_table(results: Results, seeds: Sequence[int]) -> dict[tuple[str, str], dict[str, Estimate]]:
    """By objective and reading: R^2, slope and correlation at the second smallest step, and the order of the error."""
    arms = arms_of(results, "one-step", seeds)
    table = {}
    for objective in ("sft", "dpo"):
        for reading in READINGS:
            told = [arm[objective][reading] for arm in arms]
            row = {name: over_seeds([t["fits"][1][name] for t in told]) for name in ("r2", "slope", "correlation")}
            table[objective, reading] = row | {
                "order": over_seeds([t["order"] for t in told if t["order"] is not None])
            }
    return table


def r2_by_step(results: Results, seeds: Sequence[int], objective: str, reading: str) -> list[Estimate]:
    """R^2 for each step size."""
    arms = arms_of(results, "one-step", seeds)
    return [over_seeds([arm[objective][reading]["fits"][i]["r2"] for arm in arms]) for i in range(len(BUDGETS))]


def adamw_table(results: Results, seeds: Sequence[int]) -> dict[tuple[str, str], dict[str, Estimate]]:
    """By head and part of AdamW's step: fits of the prediction along that part alone, over all watched steps."""
    table = {}
    for head in ("generation", "understanding"):
        for part in ("predicted", "gradient", "momentum"):
            fits = []
            for arm in arms_of(results, "improve", seeds):
                steps = [row[head] for row in arm["rows"] if row["kind"] == "step"]
                predicted, measured = (
                    torch.tensor([value for row in steps for value in row[name]]) for name in (part, "measured")
                )
                fits.append(vars(theory.fit(predicted, measured)))
            table[head, part] = {name: over_seeds([f[name] for f in fits]) for name in ("r2", "slope", "correlation")}
    return table


def coupling_table(results: Results, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """By subject: mean own-pair cosine and coupling over seeds, their nulls, and the largest p-value of a seed."""
    subjects = {name: [arm[name] for arm in arms_of(results, "coupling", seeds)] for name in SUBJECTS}
    subjects["shared tokens"] = arms_of(results, "shared", seeds)
    table = {}
    for subject, told in subjects.items():
        row: dict[str, Any] = {"n": [t["n"] for t in told]}
        for test in ("own_cosine", "coupling", "cka"):
            found = [t["tests"][test] for t in told]
            row[test] = over_seeds([f["value"] for f in found])
            row[f"{test}_null"] = over_seeds([f["null_mean"] for f in found])
            row[f"{test}_p"] = max(f["p_value"] for f in found)
        for group in GROUPS:
            found = [t["groups"][group] for t in told if group in t["groups"]]
            row[group] = over_seeds([f["value"] for f in found])
            row[f"{group}_null"] = over_seeds([f["null_mean"] for f in found])
            row[f"{group}_p"] = max((f["p_value"] for f in found), default=math.nan)
        table[subject] = row
    return table


def part_table(
    results: Results, seeds: Sequence[int], subject: str = "base"
) -> dict[str, tuple[Estimate, float, float]]:
    """What each part of the network adds to the own-pair cosine, with mean and spread of its null."""
    told = [arm[subject]["parts"] for arm in arms_of(results, "coupling", seeds)]
    return {
        part: (
            over_seeds([t[part]["value"] for t in told]),
            sum(t[part]["null_mean"] for t in told) / len(told),
            sum(t[part]["null_std"] for t in told) / len(told),
        )
        for part in told[0]
    }


def movement(results: Results, seeds: Sequence[int], figure: str) -> list[tuple[int, Estimate]]:
    """How a figure of the kernel moves over the steps all seeds have."""
    series = [
        {row["step"]: row["figures"][figure] for row in arm["rows"] if row["kind"] == "kernel"}
        for arm in arms_of(results, "improve", seeds)
    ]
    steps = sorted(set.intersection(*(set(s) for s in series)))
    return [(step, over_seeds([s[step] for s in series])) for step in steps]


def correction_table(results: Results, seeds: Sequence[int]) -> dict[str, Any]:
    """AUROC of every score for "is corrected", and its rank correlation with the change of the log-odds, pooled.

    Scores are turned into ranks within a seed's false positives, so that seeds can be pooled; prompts are resampled.
    """
    columns: dict[str, list[torch.Tensor]] = {name: [] for name in (*SCORES, "turned", "raw", "fall", "cluster")}
    for number, arm in enumerate(arms_of(results, "corrections", seeds)):
        before, after = (torch.tensor(arm[name], dtype=torch.float64) for name in ("before", "after"))
        at = (before >= 0) & ~torch.tensor(arm["right"])
        if not at.any():
            continue
        columns["turned"].append(~torch.tensor(arm["matched_yes"])[at])
        columns["raw"].append((after < 0)[at])
        columns["fall"].append(ranks((before - after)[at]) / at.sum())
        columns["cluster"].append(torch.tensor(arm["prompt"])[at] + 10_000_000 * number)
        for name in SCORES:
            columns[name].append(ranks(torch.tensor(arm[name], dtype=torch.float64)[at]) / at.sum())
    joined = {name: torch.cat(found) if found else torch.zeros(0) for name, found in columns.items()}
    turned, cluster = joined["turned"].bool(), joined["cluster"].long()
    return {
        "false_positives": len(turned),
        "corrected": int(turned.sum()),
        "corrected_unmatched": int(joined["raw"].sum()),
        "scores": {
            name: {
                "auroc": bootstrap_auroc(joined[name], turned, cluster),
                "rank": rank_correlation(joined[name], joined["fall"], cluster),
            }
            for name in SCORES
        },
    }


def judge_movement(results: Results, seeds: Sequence[int]) -> dict[str, dict[str, Estimate]]:
    """By group of held-out drawings: predicted change of the log-odds (per unit step) and the realised one."""
    found: dict[str, dict[str, Estimate]] = {}
    for group in GROUPS:
        columns: dict[str, list[torch.Tensor]] = {"predicted": [], "predicted_adam": [], "realised": [], "cluster": []}
        for number, arm in enumerate(arms_of(results, "corrections", seeds)):
            before, after = (torch.tensor(arm[name], dtype=torch.float64) for name in ("before", "after"))
            right = torch.tensor(arm["right"])
            at = ((before >= 0) == group.endswith("accept")) & (right == (group in (GROUPS[0], GROUPS[3])))
            columns["predicted"].append(-torch.tensor(arm["kernel"], dtype=torch.float64)[at])
            columns["predicted_adam"].append(-torch.tensor(arm["kernel_adam"], dtype=torch.float64)[at])
            columns["realised"].append((after - before)[at])
            columns["cluster"].append(torch.tensor(arm["prompt"])[at] + 10_000_000 * number)
        cluster = torch.cat(columns.pop("cluster"))
        found[group] = {
            name: bootstrap_ratio(torch.cat(values), torch.ones(len(cluster)), cluster)
            for name, values in columns.items()
        }
    return found


def bayes_table(results: Results, seeds: Sequence[int]) -> dict[str, Estimate]:
    """Rank correlation of Bayes' change with the understanding head's own, in one step and over training."""

    def seeds_mean(pick: Callable[[Mapping[str, Any]], tuple[list[float], list[float]]], arm: str) -> Estimate:
        values = []
        for found in arms_of(results, arm, seeds):
            x, y = (torch.tensor(side, dtype=torch.float64) for side in pick(found))
            values.append(rank_correlation(x, y, torch.arange(len(x))).value)
        return over_seeds(values)

    table = {}
    for objective in ("sft", "dpo"):
        for kind in ("predicted", "measured"):
            table[f"one {objective.upper()} step, {kind}"] = seeds_mean(
                lambda found, o=objective, k=kind: (found[o]["bayes"][k], found[o]["head"][k]),  # type: ignore[misc]
                "one-step",
            )
    table["all of SFT self-improvement, measured"] = seeds_mean(
        lambda found: (found["bayes"]["bayes"], found["bayes"]["head"]), "corrections"
    )
    table["generation with Bayes, all of SFT"] = seeds_mean(
        lambda found: (found["bayes"]["generation"], found["bayes"]["bayes"]), "corrections"
    )
    return table
