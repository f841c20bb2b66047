"""The page of a pretrained model: what was measured, compared with the targets of its recipe.

Shape legend: S images of all seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evidence.claims.setting import Setting
from evidence.markdown import percent, points
from unigap.evaluation.gap import drawing_counts, paired_share
from unigap.files.markdown import table
from unigap.metrics import scores
from unigap.metrics.intervals import Estimate
from unigap.worlds.shapes.pretraining_curve import curve_table, largest_fall

Run = Mapping[str, Any]
Runs = Mapping[str, Sequence[Run]]
"""Runs of each arm, one a seed."""
BASE, IMPROVED, RECALLED = "base", "self-improvement", "recall"
NAMES = {
    "generation": "generation accuracy",
    "non_unification": "non-unification score",
    "weak_generation": "weak-generation share",
    "judge_precision": "precision of yes",
}


@dataclass(frozen=True)
class Target:
    """Range in which a figure must lie.

    Attributes:
        name: The figure.
        least: Smallest value that holds.
        most: Largest value that holds.
    """

    name: str
    least: float
    most: float

    def row(self, estimate: Estimate) -> dict[str, Any]:
        """Return the target with what was measured."""
        held = self.least <= estimate.value <= self.most
        return {"target": self.name, "least": self.least, "most": self.most, "held": held, **estimate.to_dict()}


FALL = Target("largest fall of generation accuracy during pretraining", 0.0, 0.02)
RECALL = Target("gain of recall, as a share of the gain of self-improvement", -1.0, 0.25)
AUROC = Target("AUROC of the judge on its own images", 0.85, 0.95)
HEADROOM = (
    Target("generation accuracy", 0.40, 0.50),
    AUROC,
    Target("precision of yes", 0.70, 0.85),
    Target("weak-generation share", 0.80, 1.0),
)


def target_rows(curve: Sequence[Mapping[str, Any]], runs: Runs) -> list[dict[str, Any]]:
    """Return every target with what was measured and whether it holds."""
    fall = largest_fall([row["generation"]["value"] for row in curve])
    (right_S, own_S), prompt_S = _images(runs[BASE]), _prompts(runs[BASE])
    shares = {name: scores.share(*counts, prompt_S) for name, counts in drawing_counts(own_S >= 0, right_S).items()}
    measured = (
        shares["generation"],
        scores.auroc(own_S, right_S, prompt_S),
        shares["judge_precision"],
        shares["weak_generation"],
    )
    recalled, improved = (gains(runs[BASE], runs[arm])["generation"].value for arm in (RECALLED, IMPROVED))
    share = max(RECALL.least, recalled / improved) if improved > 0 else math.inf
    return [
        FALL.row(Estimate(fall, math.nan, math.nan, len(curve))),
        RECALL.row(Estimate(share, math.nan, math.nan, len(runs[BASE]))),
        *(target.row(estimate) for target, estimate in zip(HEADROOM, measured, strict=True)),
    ]


def gains(before: Sequence[Run], after: Sequence[Run]) -> dict[str, Estimate]:
    """Return the change of each figure of generation over all seeds, paired by image and clustered by prompt."""
    (right_S, own_S), (right_after_S, own_after_S), prompt_S = _images(before), _images(after), _prompts(before)
    first, last = drawing_counts(own_S >= 0, right_S), drawing_counts(own_after_S >= 0, right_after_S)
    return {name: paired_share(first[name], prompt_S, last[name], prompt_S) for name in first}


def pretraining_page(
    setting: Setting, curve: Sequence[Mapping[str, Any]], runs: Runs, rows: Sequence[Mapping[str, Any]]
) -> str:
    """Return the page, in Markdown."""
    images = len(runs[BASE][0]["right"])
    steps = ", ".join(str(run["steps"]) for run in runs[IMPROVED])
    parts = [
        "# Does the gap come from difficulty?",
        "Written by `python -m evidence pretraining` from the results in `pretraining.parquet`. "
        f"Weights {setting.weights[:12]}; number of seeds: {len(runs[BASE])}; {images} images of test prompts each; "
        "95 % intervals resample prompts.",
        "## Targets",
        table(("target", "from", "to", "measured", "holds"), [_target(row) for row in rows]),
        "## Gains",
        f"Change in points after self-improvement (`configs/shapes/c_sft.yaml`, {steps} steps) and after as many steps "
        "on new batches of pretraining data (`configs/shapes/recall.yaml`), from the same weights. Bold intervals "
        "exclude zero.",
        _gain_table(runs),
        "## Pretraining curve",
        "Figures on validation prompts in percent.",
        curve_table(curve),
    ]
    return "\n\n".join(parts) + "\n"


def _target(row: Mapping[str, Any]) -> list[str]:
    value, low, high = (math.nan if row[name] is None else row[name] for name in ("value", "low", "high"))
    measured = percent(Estimate(value, low, high, row["n"]))
    ends = [f"{100 * row[end]:.0f}" for end in ("least", "most")]
    return [row["target"], *ends, measured, "yes" if row["held"] else "no"]


def _gain_table(runs: Runs) -> str:
    lines = []
    for arm in (IMPROVED, RECALLED):
        found = gains(runs[BASE], runs[arm])
        alone = [gains([one], [other])["generation"] for one, other in zip(runs[BASE], runs[arm], strict=True)]
        each = ", ".join(f"{100 * gain.value:+.1f}" for gain in alone)
        lines.append([arm, *(points(found[name]) for name in NAMES), each])
    return table(("arm", *NAMES.values(), "generation accuracy, each seed"), lines)


def _images(runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
    """Return external verdicts and own log-odds of yes of the images of all seeds, (S,) each."""
    right_S = torch.tensor([right for run in runs for right in run["right"]]).bool()
    return right_S, torch.tensor([logit for run in runs for logit in run["own"]])


def _prompts(bases: Sequence[Run]) -> Tensor:
    """Return the prompt's number of each image, int64 (S,)."""
    prompts = len(bases[0]["cells"])
    return torch.arange(prompts).repeat_interleave(len(bases[0]["right"]) // prompts).repeat(len(bases))
