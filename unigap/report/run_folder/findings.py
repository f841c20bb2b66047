"""What a run shows, in figures and in plain sentences: the headline, its cautions and the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass

from unigap.report.run_folder.contents import Reading, Summary

PERCENT, POINTS = "\N{NO-BREAK SPACE}%", "\N{NO-BREAK SPACE}points"


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
        "Weak generation share",
        "Of the rejected drawings, the share that are truly wrong: high means weak drawing, low means weak judging.",
        0,
    ),
)
JUDGE = (
    Metric("understanding_renders", "Understanding", "Share of known images on which the judge answers rightly."),
    Metric("judge_tnr", "True negative rate", "Of wrong images, the share that the judge rejects."),
    Metric("judge_tpr", "True positive rate", "Of right images, the share that the judge accepts."),
    Metric("judge_precision", "Precision of “yes”", "Of drawings that the judge accepts, the share that are right."),
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


@dataclass(frozen=True)
class Claim:
    """A sentence of the headline and the interval that it rests on."""

    sentence: str
    detail: str


@dataclass(frozen=True)
class Cell:
    """A table cell: the figure, its interval, what it rests on, and how to read it (``tone`` is a CSS class)."""

    figure: str
    unit: str = ""
    interval: str = ""
    n: str = ""
    verdict: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Row:
    """A metric with its cells."""

    metric: Metric
    before: Cell | None
    after: Cell | None
    change: Cell | None


def amount(value: float, share: bool = True, signed: bool = False) -> str:
    """A share in per cent with one decimal, or a plain number with three, with a true minus sign.

    >>> amount(0.4632), amount(-0.0061, share=False, signed=True)
    ('46.3', '\N{MINUS SIGN}0.006')
    """
    sign = "+" if signed else ""
    text = f"{100 * value:{sign}.1f}" if share else f"{value:{sign}.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval(reading: Reading, share: bool = True, signed: bool = False) -> str:
    """The interval in words, empty where there is none."""
    if reading.low is None or reading.high is None:
        return ""
    return f"{amount(reading.low, share, signed)} to {amount(reading.high, share, signed)}"


def value_cell(metric: Metric, reading: Reading | None) -> Cell | None:
    """The cell of a value before or after."""
    if reading is None:
        return None
    if reading.value is None:
        return Cell("\N{EN DASH}", n=f"n = {reading.n:,}", verdict="nothing to measure", tone="quiet")
    return Cell(
        amount(reading.value, metric.share),
        PERCENT if metric.share else "",
        interval(reading, metric.share),
        f"n = {reading.n:,}",
    )


def change_cell(metric: Metric, reading: Reading) -> Cell:
    """The cell of a paired difference, which says whether its interval contains zero."""
    if reading.value is None:
        return Cell("\N{EN DASH}", n=f"n = {reading.n:,}", verdict="nothing to measure", tone="quiet")
    figure, unit = amount(reading.value, metric.share, signed=True), POINTS if metric.share else ""
    quality = reading.sign * metric.better
    verdict, tone = {1: ("better", "good"), -1: ("worse", "bad")}.get(quality, ("changed", ""))
    if not reading.sign:
        verdict, tone = "no clear change" if interval(reading) else "no interval", "quiet"
    return Cell(figure, unit, interval(reading, metric.share, signed=True), f"n = {reading.n:,}", verdict, tone)


def plain_change(metric: Metric, before: Reading | None, after: Reading | None) -> Cell | None:
    """The cell of a difference of two values that has no paired interval."""
    if before is None or after is None or before.value is None or after.value is None:
        return None
    figure, unit = amount(after.value - before.value, metric.share, signed=True), POINTS if metric.share else ""
    return Cell(figure, unit, verdict="no paired interval")


def turned_cell(way: Turned, reading: Reading) -> Cell:
    """How many verdicts turned round, of how many, with the share and its interval."""
    if reading.value is None:
        return Cell("none", n=f"no drawing was {'accepted' if way.accepted else 'rejected'} like this")
    count = round(reading.value * reading.n)
    share = f"{amount(reading.value)}{PERCENT}"
    return Cell(f"{count:,} of {reading.n:,}", n=share, interval=interval(reading))


def table_row(metric: Metric, summary: Summary) -> Row:
    """The row of a metric measured before and after."""
    before, after, paired = (part.get(metric.key) for part in (summary.before, summary.after, summary.delta))
    change = change_cell(metric, paired) if paired else plain_change(metric, before, after)
    return Row(metric, value_cell(metric, before), value_cell(metric, after), change)


def table(summary: Summary) -> list[tuple[str, list[Row]]]:
    """The rows of the table in named groups; metrics the run does not have are left out."""
    groups = []
    for title, metrics in (("The gap", GAP), ("The judge", JUDGE)):
        known = [metric for metric in metrics if metric.key in summary.before.keys() | summary.after.keys()]
        groups.append((title, [table_row(metric, summary) for metric in known]))
    if "win_rate" in summary.after:
        wins = [Row(metric, None, value_cell(metric, summary.after[metric.key]), None) for metric in SAME_IMAGES[:2]]
        change = change_cell(SAME_IMAGES[2], summary.after["delta_auroc"])
        title = "The judge after against the judge before, on the same images"
        groups.append((title, [*wins, Row(SAME_IMAGES[2], None, None, change)]))
    return [(title, rows) for title, rows in groups if rows]


def headline(metric: Metric, delta: Reading) -> Claim:
    """What a paired difference shows; says plainly when its interval contains zero."""
    if delta.value is None:
        return Claim(f"{metric.name} was not measured", "")
    change = f"{amount(delta.value, signed=True)}{POINTS}"
    if not interval(delta):
        return Claim(f"{metric.name}: no claim", f"{change}, without an interval")
    if not delta.sign:
        span = interval(delta, signed=True)
        return Claim(f"{metric.name}: no clear change", f"{change}; the 95{PERCENT} interval, {span}, contains zero")
    verb = "rose" if delta.sign > 0 else "fell"
    ends = sorted(abs(end) for end in (delta.low, delta.high) if end is not None)
    span = f"95{PERCENT} interval {amount(ends[0])} to {amount(ends[1])}"
    return Claim(f"{metric.name} {verb} by {amount(abs(delta.value))}{POINTS}", span)


def fallen(metric: Metric, summary: Summary) -> str:
    """How far a metric fell, as in "precision 82.7 to 72.9 %"; empty unless it fell below its interval before."""
    before, after = (part.get(metric.key) for part in (summary.before, summary.after))
    if not before or not after or before.value is None or after.value is None:
        return ""
    if before.low is None or after.value >= before.low:
        return ""
    return f"{metric.name[0].lower()}{metric.name[1:]} {amount(before.value)} to {amount(after.value)}{PERCENT}"


def no_external(option: str) -> str:
    """Say which figures are left out because no external judge was asked, and how to get them.

    Args:
        option: The option that names the judge.
    """
    return (
        "No external judge was asked: generation accuracy, weak-generation share, and the judge's precision, TPR, TNR "
        f"and AUROC are left out. {option} CLASS_PATH names one; docs/judges.md lists them."
    )


def cautions(summary: Summary) -> list[str]:
    """What the headline alone would hide, and what was not measured."""
    said = [no_external("--model.init_args.external")] if summary.without_external else []
    judge = {metric.key: metric for metric in JUDGE}
    lost = [text for key in ("judge_tnr", "judge_precision") if (text := fallen(judge[key], summary))]
    if lost and (summary.delta["non_unification"].value or 0) < 0:
        said.append(
            f"While non-unification fell, the judge became less reliable on the drawings: {', '.join(lost)}. "
            "The drawings may have moved into its blind spots, so part of the fall need not be better drawing; "
            "generation accuracy is the safer figure."
        )
    before, after = (part.get("understanding_renders") for part in (summary.before, summary.after))
    if before and after and before.low is not None and after.value is not None and after.value < before.low:
        said.append(
            f"Understanding fell below its interval before training ({amount(after.value)}{PERCENT}, before: "
            f"{interval(before)}): the model forgets."
        )
    return said
