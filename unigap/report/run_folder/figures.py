"""The figures that reports and tables show: key, name, meaning, and whether more is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is presented.

    Attributes:
        key: Name in the files of the run folder.
        name: Name on pages and in tables.
        meaning: One short line of explanation.
        better: 1 if more is better, -1 if less is, 0 if neither.
        share: Shown in per cent; otherwise as a number with three decimals.
    """

    key: str
    name: str
    meaning: str
    better: int = 1
    share: bool = True


GAP = (
    Metric("generation", "Generation accuracy", "Share of generated images that the external judge accepts."),
    Metric("non_unification", "Non-unification", "Share of its own images that the model, as judge, rejects.", -1),
    Metric(
        "weak_generation",
        "Weak-generation share",
        "Of the images that the own judge rejects, the share that the external judge rejects too: high means weak "
        "generation, low means weak understanding.",
        0,
    ),
)
JUDGE = (
    Metric("understanding_renders", "Understanding", "Share of probe-set statements that the judge answers correctly."),
    Metric("judge_tnr", "True negative rate", "Share of wrong images that the judge rejects."),
    Metric("judge_tpr", "True positive rate", "Share of right images that the judge accepts."),
    Metric("judge_precision", "Precision of yes", "Of the images that the judge accepts, the share that are right."),
    Metric(
        "judge_auroc",
        "AUROC",
        "Probability that a right image gets a higher logit than a wrong one; 0.5 is guessing.",
        share=False,
    ),
    Metric(
        "judge_auroc_within",
        "AUROC within categories",
        "The same among images of one category, so that distinguishing categories does not count.",
        share=False,
    ),
    Metric("yes_rate", "Yes rate", "Share of images that the judge accepts.", 0),
)
JUDGE_ACCURACY = Metric("judge_accuracy", "Accuracy", "Share of images on which both judges agree.")
"""Shown by tables in the terminal only."""
SAME_IMAGES = (
    Metric(
        "win_rate",
        "Win rate",
        "Where the judges before and after training disagree, the share in which the later one is right; n counts "
        "the disagreements. A drift of the threshold alone changes it.",
    ),
    Metric(
        "matched_win_rate",
        "Win rate, matched",
        "The same with the later threshold reset so that both judges accept equally often: only a better ranking "
        "increases it.",
    ),
    Metric("delta_auroc", "Change of AUROC", "Effect of training on the judge's ranking of the images.", share=False),
)


@dataclass(frozen=True)
class Flip:
    """A way in which a verdict on an image generated before training flipped.

    Attributes:
        metric: The share of verdicts that flipped.
        accepted: Whether the judge before training accepted the image.
        right: Whether the image is right.
    """

    metric: Metric
    accepted: bool
    right: bool


FLIPS = (
    Flip(
        Metric("false_positives_rejected", "False positives corrected", "Wrong, yet accepted before; rejected now."),
        accepted=True,
        right=False,
    ),
    Flip(
        Metric("true_positives_rejected", "True positives lost", "Right, and accepted before; rejected now.", -1),
        accepted=True,
        right=True,
    ),
    Flip(
        Metric("false_negatives_accepted", "False negatives corrected", "Right, yet rejected before; accepted now."),
        accepted=False,
        right=True,
    ),
    Flip(
        Metric("true_negatives_accepted", "True negatives lost", "Wrong, and rejected before; accepted now.", -1),
        accepted=False,
        right=False,
    ),
)

FIGURES = {metric.key: metric for metric in (*GAP, *JUDGE)}
"""Figures of one model by key, in the order of tables."""
HEADLINE = GAP[:2]
GLANCE = (*HEADLINE, FIGURES["judge_precision"])
"""Figures at the top of the report of a run, and of a comparison."""
