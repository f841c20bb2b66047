"""Compute every number on the theory page from the stored arms, with its interval.

Shape legend: S test images, F false positives among them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import theory
from evidence.corrections import bayes_sample
from evidence.one_step import BUDGETS, READINGS
from evidence.statistics import over_seeds, rank_correlation, ranks_within
from unigap.callbacks.dynamics_probes import GROUPS
from unigap.metrics.intervals import Estimate, bootstrap_auroc, bootstrap_ratio

SCORES = ("kernel", "kernel_adam", "p_yes", "pixels", "hidden")
RANGE = {"r2": (-math.inf, 1.0), "slope": (-math.inf, math.inf), "correlation": (-1.0, 1.0)}
"""Smallest and largest possible value of each figure of a fit."""
COSINE = (-1.0, 1.0)
SUBJECTS = ("base", "improved", "untrained", "two trunks")
Results = Mapping[str, Mapping[str, Any]]


def arms_of(results: Results, name: str, seeds: Sequence[int]) -> list[Mapping[str, Any]]:
    """Return the results of one arm, one for each seed."""
    return [results[f"{name}-{seed}"] for seed in seeds]


def one_step_table(results: Results, seeds: Sequence[int]) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Return fits of the one-step experiment by objective and reading.

    The figures are R^2, slope and correlation at the second smallest step, and the order of the error in the step size.
    """
    arms = arms_of(results, "one-step", seeds)
    table = {}
    for objective in ("sft", "dpo"):
        for reading in READINGS:
            stored = [arm[objective][reading] for arm in arms]
            row = {name: over_seeds([t["fits"][1][name] for t in stored], *RANGE[name]) for name in RANGE}
            table[objective, reading] = row | {
                "order": over_seeds([t["order"] for t in stored if t["order"] is not None])
            }
    return table


def r2_by_step(results: Results, seeds: Sequence[int], objective: str, reading: str) -> list[Estimate]:
    """Return R^2 for each step size."""
    arms = arms_of(results, "one-step", seeds)
    return [
        over_seeds([arm[objective][reading]["fits"][i]["r2"] for arm in arms], *RANGE["r2"])
        for i in range(len(BUDGETS))
    ]


def adamw_table(results: Results, seeds: Sequence[int]) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Return fits of the prediction along each part of AdamW's step, by head, over all watched steps."""
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
            table[head, part] = {name: over_seeds([f[name] for f in fits], *RANGE[name]) for name in RANGE}
    return table


def coupling_table(results: Results, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return own-pair cosine and coupling by subject: means over seeds, their nulls, and the largest p-value."""
    subjects = {name: [arm[name] for arm in arms_of(results, "coupling", seeds)] for name in SUBJECTS}
    subjects["shared tokens"] = arms_of(results, "shared", seeds)
    table = {}
    for subject, stored in subjects.items():
        row: dict[str, Any] = {"n": [t["n"] for t in stored]}
        for test in ("own_cosine", "coupling", "cka"):
            found = [t["tests"][test] for t in stored]
            row[test] = over_seeds([f["value"] for f in found], *COSINE)
            row[f"{test}_null"] = over_seeds([f["null_mean"] for f in found])
            row[f"{test}_p"] = max(f["p_value"] for f in found)
        for group in GROUPS:
            found = [t["groups"][group] for t in stored if group in t["groups"]]
            row[group] = over_seeds([f["value"] for f in found], *COSINE)
            row[f"{group}_null"] = over_seeds([f["null_mean"] for f in found])
            row[f"{group}_p"] = max((f["p_value"] for f in found), default=math.nan)
        table[subject] = row
    return table


def part_table(
    results: Results, seeds: Sequence[int], subject: str = "base"
) -> dict[str, tuple[Estimate, float, float]]:
    """Return each part's contribution to the own-pair cosine, with mean and standard deviation of its null."""
    stored = [arm[subject]["parts"] for arm in arms_of(results, "coupling", seeds)]
    return {
        part: (
            over_seeds([t[part]["value"] for t in stored]),
            sum(t[part]["null_mean"] for t in stored) / len(stored),
            sum(t[part]["null_std"] for t in stored) / len(stored),
        )
        for part in stored[0]
    }


def movement(results: Results, seeds: Sequence[int], figure: str) -> list[tuple[int, Estimate]]:
    """Return a figure of the kernel at each step that all seeds have."""
    series = [
        {row["step"]: row["figures"][figure] for row in arm["rows"] if row["kind"] == "kernel"}
        for arm in arms_of(results, "improve", seeds)
    ]
    steps = sorted(set.intersection(*(set(s) for s in series)))
    return [(step, over_seeds([s[step] for s in series])) for step in steps]


@dataclass(frozen=True)
class FalsePositives:
    """Held-out images that the base judge wrongly accepts, all seeds together.

    Attributes:
        corrected_F: Whether the image is rejected after training, at the yes-rate before training.
        unmatched_F: Whether it is rejected after training at the old threshold.
        fall_F: Decrease of its log-odds.
        scores_F: Scores known before training, by name; a higher one predicts a correction.
        prompt_F: Number of the prompt and seed, the clusters of the bootstrap.
        seed_F: Number of the seed.
        category_F: Number of the category.
    """

    corrected_F: Tensor
    unmatched_F: Tensor
    fall_F: Tensor
    scores_F: Mapping[str, Tensor]
    prompt_F: Tensor
    seed_F: Tensor
    category_F: Tensor

    @property
    def stratum_F(self) -> Tensor:
        """Category and seed; only images that share both are compared."""
        return self.category_F + 1000 * self.seed_F

    @property
    def category_alone_F(self) -> Tensor:
        """Share of the same category that was corrected in the other seeds: a score that knows only the category."""
        share_F = torch.zeros(len(self.corrected_F), dtype=torch.float64)
        for i, (seed, category) in enumerate(zip(self.seed_F.tolist(), self.category_F.tolist(), strict=True)):
            others_F = (self.seed_F != seed) & (self.category_F == category)
            share_F[i] = self.corrected_F[others_F].double().mean().nan_to_num()
        return share_F


def false_positives(results: Results, seeds: Sequence[int], category_of: Sequence[str]) -> FalsePositives:
    """Collect the base judge's false positives of all seeds.

    Args:
        results: Results by arm.
        seeds: The seeds.
        category_of: Category of each test prompt.
    """
    names = list(dict.fromkeys(category_of))
    columns: dict[str, list[Tensor]] = {}
    for number, arm in enumerate(arms_of(results, "corrections", seeds)):
        before, after = (torch.tensor(arm[name], dtype=torch.float64) for name in ("before", "after"))
        at = (before >= 0) & ~torch.tensor(arm["right"])
        prompt = torch.tensor(arm["prompt"])[at]
        found = {
            "corrected": ~torch.tensor(arm["matched_yes"])[at],
            "unmatched": (after < 0)[at],
            "fall": (before - after)[at],
            "prompt": prompt + 10_000_000 * number,
            "seed": torch.full_like(prompt, number),
            "category": torch.tensor([names.index(category_of[i]) for i in prompt.tolist()], dtype=torch.long),
        }
        found |= {name: torch.tensor(arm[name], dtype=torch.float64)[at] for name in SCORES}
        for name, column in found.items():
            columns.setdefault(name, []).append(column)
    joined = {name: torch.cat(parts) for name, parts in columns.items()}
    return FalsePositives(
        joined["corrected"],
        joined["unmatched"],
        joined["fall"],
        {name: joined[name] for name in SCORES},
        *(joined[name] for name in ("prompt", "seed", "category")),
    )


def correction_table(wrong: FalsePositives) -> dict[str, dict[str, Estimate]]:
    """Measure how well each score predicts which false positives are corrected.

    Returns:
        Figures by score; the score ``category`` knows only the category. ``auroc`` is for being corrected and ``rank``
        is the rank correlation with the decrease of the log-odds, both after ranking within each seed.
        ``auroc_within`` and ``rank_within`` compare only images of the same category and seed.
    """
    fall_F = ranks_within(wrong.fall_F, wrong.seed_F)
    table = {}
    for name, score_F in {**wrong.scores_F, "category": wrong.category_alone_F}.items():
        ranked_F = ranks_within(score_F, wrong.seed_F)
        table[name] = {
            "auroc": bootstrap_auroc(ranked_F, wrong.corrected_F, wrong.prompt_F),
            "auroc_within": bootstrap_auroc(score_F, wrong.corrected_F, wrong.prompt_F, stratum_S=wrong.stratum_F),
            "rank": rank_correlation(ranked_F, fall_F, wrong.prompt_F),
            "rank_within": rank_correlation(score_F, wrong.fall_F, wrong.prompt_F, stratum_S=wrong.stratum_F),
        }
    return table


def corrections_by_category(wrong: FalsePositives, category_of: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Count the false positives of each category, and those of them that are corrected."""
    counts = {}
    for number, name in enumerate(dict.fromkeys(category_of)):
        among_F = wrong.category_F == number
        counts[name] = int(among_F.sum()), int(wrong.corrected_F[among_F].sum())
    return counts


def judge_movement(results: Results, seeds: Sequence[int]) -> dict[str, dict[str, Estimate]]:
    """Return predicted (per unit step) and realised change of the log-odds, by group of held-out images."""
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


def bayes_table(
    results: Results, seeds: Sequence[int], category_of: Sequence[str]
) -> dict[str, tuple[Estimate, Estimate | None]]:
    """Return the rank correlation of the change in Bayes' formula with that of the understanding head.

    Returns:
        By experiment (one step, or all of training): over all images, and within a category; None if the results do
        not store the category of an image.
    """
    table: dict[str, tuple[Estimate, Estimate | None]] = {}
    for objective in ("sft", "dpo"):
        for kind in ("predicted", "measured"):
            steps = [arm[objective] for arm in arms_of(results, "one-step", seeds)]
            pooled = over_seeds([_rank(step["bayes"][kind], step["head"][kind]) for step in steps], *COSINE)
            table[f"one {objective.upper()} step, {kind}"] = pooled, None
    for title, x, y in (
        ("all of SFT self-improvement, measured", "bayes", "head"),
        ("generation with Bayes, all of SFT", "generation", "bayes"),
    ):
        sides, strata = [], []
        for seed, arm in zip(seeds, arms_of(results, "corrections", seeds), strict=True):
            sides.append((arm["bayes"][x], arm["bayes"][y]))
            prompts = [arm["prompt"][i] for i in bayes_sample(len(arm["prompt"]), seed)]
            names = [category_of[prompt] for prompt in prompts]
            strata.append(torch.tensor([sorted(set(names)).index(name) for name in names]))
        within = [_rank(*side, stratum_S) for side, stratum_S in zip(sides, strata, strict=True)]
        table[title] = over_seeds([_rank(*side) for side in sides], *COSINE), over_seeds(within, *COSINE)
    return table


def _rank(x: Sequence[float], y: Sequence[float], stratum_S: Tensor | None = None) -> float:
    x_S, y_S = (torch.tensor(side, dtype=torch.float64) for side in (x, y))
    return rank_correlation(x_S, y_S, torch.arange(len(x_S)), stratum_S=stratum_S).value
