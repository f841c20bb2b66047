"""Metrics with intervals: pure functions, and a torchmetrics class for each."""

from unigap.metrics.gap_metrics import (
    Auroc,
    GenerationAccuracy,
    JudgeAccuracy,
    JudgePrecision,
    NonUnificationScore,
    TrueNegativeRate,
    TruePositiveRate,
    WeakGenerationShare,
    WinRate,
    YesRate,
)
from unigap.metrics.grouped_metric import GroupedMetric
from unigap.metrics.intervals import Estimate
from unigap.metrics.scores import (
    auroc,
    generation_accuracy,
    judge_accuracy,
    judge_precision,
    non_unification_score,
    true_negative_rate,
    true_positive_rate,
    weak_generation_share,
    yes_rate,
)
from unigap.metrics.win_rate import WinRateResult, win_rate

__all__ = [
    "Auroc",
    "Estimate",
    "GenerationAccuracy",
    "GroupedMetric",
    "JudgeAccuracy",
    "JudgePrecision",
    "NonUnificationScore",
    "TrueNegativeRate",
    "TruePositiveRate",
    "WeakGenerationShare",
    "WinRate",
    "WinRateResult",
    "YesRate",
    "auroc",
    "generation_accuracy",
    "judge_accuracy",
    "judge_precision",
    "non_unification_score",
    "true_negative_rate",
    "true_positive_rate",
    "weak_generation_share",
    "win_rate",
    "yes_rate",
]
