"""The figures that reports and tables show: key, name, meaning, and whether more is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is presented.

    Attributes:
        key: Its name in the run folder.
        name: Its name on the page.
        meaning: One short line of explanation.
        better: 1 if more is better, -1 if less is, 0 if neither.
        share: Shown in per cent; else as a number with three decimals.
    """

    key: str
    name: str
    meaning: str
    better: int = 1
    share: bool = True


GAP = (
    Metric("generation", "Generation accuracy", "Share of drawings that the external judge finds right."),
    Metric("non_unification", "Non-unification", "Share of its own drawings that the model, as judge, rejects.", -1),
    Metric(
        "weak_generation",
        "Weak-generation share",
        "Of the rejected drawings, the share that are truly wrong: high means weak drawing, low means weak judging.",
        0,
    ),
)
JUDGE = (
    Metric("understanding_renders", "Understanding", "Share of known images on which the judge answers rightly."),
    Metric("judge_tnr", "True negative rate", "Of wrong images, the share that the judge rejects."),
    Metric("judge_tpr", "True positive rate", "Of right images, the share that the judge accepts."),
    Metric("judge_precision", "Precision of yes", "Of drawings that the judge accepts, the share that are right."),
    Metric(
        "judge_auroc",
        "AUROC",
        "Chance that the judge ranks a right image above a wrong one; 0.5 is guessing.",
        share=False,
    ),
    Metric(
        "judge_auroc_within",
        "AUROC within categories",
        "The same among images of one category, so that telling the categories apart earns nothing.",
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
        "Where the judge before and the judge after disagree, how often the later one is right; n counts the "
        "disagreements. A drift of the threshold alone moves it.",
    ),
    Metric(
        "matched_win_rate",
        "Win rate, matched",
        "The same after resetting the later threshold so that both judges accept equally often: only a better "
        "ranking moves it.",
    ),
    Metric("delta_auroc", "Change of AUROC", "What training did to how the judge ranks the images.", share=False),
)


@dataclass(frozen=True)
class Turned:
    """A way in which a verdict on a drawing made before training turned round.

    Attributes:
        metric: How often it happened.
        accepted: Whether the judge before accepted the drawing.
        right: Whether the drawing is right.
    """

    metric: Metric
    accepted: bool
    right: bool


TURNED = (
    Turned(
        Metric("false_positives_rejected", "False positives corrected", "Wrong, yet accepted before; rejected now."),
        accepted=True,
        right=False,
    ),
    Turned(
        Metric("true_positives_rejected", "True positives lost", "Right, and accepted before; rejected now.", -1),
        accepted=True,
        right=True,
    ),
    Turned(
        Metric("false_negatives_accepted", "False negatives corrected", "Right, yet rejected before; accepted now."),
        accepted=False,
        right=True,
    ),
    Turned(
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
