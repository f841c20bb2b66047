"""Phrase the results of a run: the headline, its cautions and the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass

from unigap.estimate import Estimate
from unigap.report.run_folder.contents import Estimates, Summary
from unigap.report.run_folder.figures import FIGURES, FLIPS, GAP, HEADLINE, JUDGE, SAME_IMAGES, Flip, Metric

PERCENT, POINTS = "\N{NO-BREAK SPACE}%", "\N{NO-BREAK SPACE}points"


@dataclass(frozen=True)
class Headline:
    """A sentence of the headline and its interval."""

    sentence: str
    detail: str


@dataclass(frozen=True)
class Cell:
    """A table cell: value, unit, interval, number of samples, and verdict; ``tone`` is its CSS class."""

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
    """Format a share in per cent with one decimal, or a number with three, with a true minus sign.

    >>> amount(0.4632), amount(-0.0061, share=False, signed=True)
    ('46.3', '\N{MINUS SIGN}0.006')
    """
    sign = "+" if signed else ""
    text = f"{100 * value:{sign}.1f}" if share else f"{value:{sign}.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval(estimate: Estimate, share: bool = True, signed: bool = False) -> str:
    """Format the interval; empty without one."""
    if not estimate.has_interval:
        return ""
    return f"{amount(estimate.low, share, signed)} to {amount(estimate.high, share, signed)}"


def value_cell(metric: Metric, estimate: Estimate | None) -> Cell | None:
    """Return the cell of a value before or after training."""
    if estimate is None:
        return None
    if not estimate.measured:
        return Cell("\N{EN DASH}", n=f"n = {estimate.n:,}", verdict="nothing to measure", tone="quiet")
    return Cell(
        amount(estimate.value, metric.share),
        PERCENT if metric.share else "",
        interval(estimate, metric.share),
        f"n = {estimate.n:,}",
    )


def change_cell(metric: Metric, estimate: Estimate) -> Cell:
    """Return the cell of a paired difference, with its significance."""
    if not estimate.measured:
        return Cell("\N{EN DASH}", n=f"n = {estimate.n:,}", verdict="nothing to measure", tone="quiet")
    figure, unit = amount(estimate.value, metric.share, signed=True), POINTS if metric.share else ""
    quality = estimate.side() * metric.better
    verdict, tone = {1: ("better", "good"), -1: ("worse", "bad")}.get(quality, ("changed", ""))
    if not estimate.side():
        verdict, tone = "no significant change" if interval(estimate) else "no interval", "quiet"
    return Cell(figure, unit, interval(estimate, metric.share, signed=True), f"n = {estimate.n:,}", verdict, tone)


def plain_change(metric: Metric, before: Estimate | None, after: Estimate | None) -> Cell | None:
    """Return the cell of a difference of two values without a paired interval."""
    if before is None or after is None or not (before.measured and after.measured):
        return None
    figure, unit = amount(after.value - before.value, metric.share, signed=True), POINTS if metric.share else ""
    return Cell(figure, unit, verdict="no paired interval")


def flip_cell(flip: Flip, estimate: Estimate) -> Cell:
    """Return the cell with the number of flipped verdicts, their share and its interval."""
    if not estimate.measured:
        return Cell("none", n=f"no image was {'accepted' if flip.accepted else 'rejected'} like this")
    count = round(estimate.value * estimate.n)
    share = f"{amount(estimate.value)}{PERCENT}"
    return Cell(f"{count:,} of {estimate.n:,}", n=share, interval=interval(estimate))


def table_row(metric: Metric, summary: Summary) -> Row:
    """Return the row of a metric measured before and after training."""
    before, after, paired = (part.get(metric.key) for part in (summary.before, summary.after, summary.delta))
    change = change_cell(metric, paired) if paired else plain_change(metric, before, after)
    return Row(metric, value_cell(metric, before), value_cell(metric, after), change)


def table(summary: Summary) -> list[tuple[str, list[Row]]]:
    """Return the rows of the table in named groups, without metrics that the run did not measure."""
    groups = []
    for title, metrics in (("The gap", GAP), ("The judge", JUDGE)):
        known = [metric for metric in metrics if metric.key in summary.before.keys() | summary.after.keys()]
        groups.append((title, [table_row(metric, summary) for metric in known]))
    if "win_rate" in summary.after:
        wins = [Row(metric, None, value_cell(metric, summary.after[metric.key]), None) for metric in SAME_IMAGES[:2]]
        change = change_cell(SAME_IMAGES[2], summary.after["delta_auroc"])
        title = "The judge after training compared with before, on the same images"
        groups.append((title, [*wins, Row(SAME_IMAGES[2], None, None, change)]))
    return [(title, rows) for title, rows in groups if rows]


def headline(metric: Metric, delta: Estimate) -> Headline:
    """Phrase a paired difference; it is significant if its interval excludes zero."""
    if not delta.measured:
        return Headline(f"{metric.name} was not measured", "")
    change = f"{amount(delta.value, signed=True)}{POINTS}"
    if not interval(delta):
        return Headline(f"{metric.name}: no claim", f"{change}, without an interval")
    if not delta.side():
        span = interval(delta, signed=True)
        return Headline(
            f"{metric.name}: no significant change", f"{change}; the 95{PERCENT} interval, {span}, contains zero"
        )
    verb = "rose" if delta.side() > 0 else "fell"
    ends = sorted((abs(delta.low), abs(delta.high)))
    span = f"95{PERCENT} interval {amount(ends[0])} to {amount(ends[1])}"
    return Headline(f"{metric.name} {verb} by {amount(abs(delta.value))}{POINTS}", span)


def fallen(metric: Metric, summary: Summary) -> str:
    """Phrase the fall of a metric, as in "precision 82.7 to 72.9 %"; empty if it is within its earlier interval."""
    before, after = (part.get(metric.key) for part in (summary.before, summary.after))
    if not before or not after or not after.value < before.low:
        return ""
    return f"{metric.name[0].lower()}{metric.name[1:]} {amount(before.value)} to {amount(after.value)}{PERCENT}"


def no_external(option: str) -> str:
    """Name the figures that are left out without an external judge, and how to get them.

    Args:
        option: The option that names the judge.
    """
    return (
        "No external judge was asked: generation accuracy, weak-generation share, and the judge's precision, TPR, TNR "
        f"and AUROC are left out. {option} CLASS_PATH names one; docs/judges.md lists them."
    )


def in_words(summary: Summary) -> list[str]:
    """Return what a run changed, in a few sentences: generation, the own judge, and the discarded prompts."""
    sentences = []
    for metric in HEADLINE:
        if metric.key in summary.delta:
            said = headline(metric, summary.delta[metric.key])
            sentences.append(f"{said.sentence} ({said.detail})" if said.detail else said.sentence)
    if sentences and (counts := outcome_counts(summary.redrawn)):
        sentences[0] += f": {counts}"
    corrected = summary.rejudged.get(FLIPS[0].metric.key)
    if sentences and corrected and corrected.measured:
        count = round(corrected.value * corrected.n)
        sentences[-1] += f"; the judge now rejects {count:,} of {corrected.n:,} images that it wrongly accepted before"
    if summary.rounds:
        first, last = summary.rounds[0], summary.rounds[-1]
        prompts = f"{first.discarded:,} of {first.prompts:,} prompts had no accepted image after the first round"
        later = f", {last.discarded:,} after round {last.round}" if len(summary.rounds) > 1 else ""
        sentences.append(prompts + later)
    sentences.append("The intervals are over test prompts; they do not contain how runs with other seeds differ")
    return [f"{sentence}.".replace("\N{NO-BREAK SPACE}", " ") for sentence in sentences]


def outcome_counts(estimates: Estimates) -> str:
    """Count the images that changed between right and wrong; empty if not measured."""
    counts = []
    for key, was, now in (("wrong_to_right", "wrong", "right"), ("right_to_wrong", "right", "wrong")):
        estimate = estimates.get(key)
        if estimate and estimate.measured:
            counts.append(f"{round(estimate.value * estimate.n):,} of {estimate.n:,} {was} images are {now} now")
    return ", and ".join(counts)


def cautions(summary: Summary) -> list[str]:
    """Return warnings about facts that the headline hides, and about figures that were not measured."""
    found = [no_external("--model.init_args.external")] if summary.without_external else []
    lost = [text for key in ("judge_tnr", "judge_precision") if (text := fallen(FIGURES[key], summary))]
    if lost and summary.delta["non_unification"].value < 0:
        found.append(
            f"While non-unification fell, the judge became less reliable on generated images: {', '.join(lost)}. "
            "The images may have moved into its blind spots, so part of the fall may not be better generation; "
            "generation accuracy is the more reliable figure."
        )
    before, after = (part.get("understanding_renders") for part in (summary.before, summary.after))
    if before and after and after.value < before.low:
        found.append(
            f"Understanding fell below its interval before training ({amount(after.value)}{PERCENT}, before: "
            f"{interval(before)}): the model forgets."
        )
    return found
