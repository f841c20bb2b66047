"""Which statements of the paper are reproduced, each decided by one difference with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evidence.claims.contrasts import Contrast, Readings
from evidence.markdown import points
from unigap.files.markdown import table
from unigap.metrics.intervals import Estimate


@dataclass(frozen=True)
class Statement:
    """A statement of the paper and the difference that decides it.

    Attributes:
        says: The statement.
        claim: Name of the claim that measures it.
        figure: Name of the figure.
        arm: Name of the arm.
        control: Name of the control; empty compares with the base.
        falls: Whether the statement says that the figure falls; otherwise it rises.
    """

    says: str
    claim: str
    figure: str
    arm: str
    control: str = ""
    falls: bool = False


INVERTED = "SFT, inverted accepts"
STATEMENTS = (
    Statement("SFT on own judgments improves generation", "improvement", "generation", "SFT", "SFT, random accepts"),
    Statement("SFT lowers non-unification", "improvement", "non-unification", "SFT", "SFT, random accepts", falls=True),
    *(
        Statement(f"the judge improves with {arm}", "co-improvement", "AUROC", arm, "SFT, random accepts")
        for arm in ("SFT", "recommended")
    ),
    Statement("poor supervision degrades generation", "degradation", "generation", INVERTED, falls=True),
    Statement("poor supervision degrades understanding", "degradation", "AUROC", INVERTED, falls=True),
    Statement("non-unification falls with poor supervision", "degradation", "non-unification", INVERTED, falls=True),
)


def verdicts_section(found: Readings, gaps: Mapping[str, Sequence[Contrast]], weak: Estimate) -> str:
    """Return a table of every measured statement and its outcome.

    Args:
        found: Figures of every arm.
        gaps: Differences between arms and controls, by claim.
        weak: Share of wrong images among those that the base model rejects.
    """
    half = Estimate(weak.value - 0.5, weak.low - 0.5, weak.high - 0.5, weak.n)
    rows = [["most images that the model rejects are wrong", "one half", points(half), _verdict(half, falls=False)]]
    for statement in STATEMENTS:
        if statement.claim in gaps:
            estimate = _difference(statement, found, gaps[statement.claim])
            against = f"{statement.figure}: {statement.arm}, against {statement.control or 'the base'}"
            rows.append([statement.says, against, points(estimate), _verdict(estimate, statement.falls)])
    header = ("statement of the paper", "comparison", "difference", "here")
    return "## What is reproduced\n\n" + table(header, rows)


def _difference(statement: Statement, found: Readings, gaps: Sequence[Contrast]) -> Estimate:
    if not statement.control:
        return found[statement.arm][f"change of {statement.figure}"].estimate()
    pair = statement.arm, statement.control
    return next(gap for gap in gaps if (gap.arm, gap.control) == pair).estimates[statement.figure]


def _verdict(estimate: Estimate, falls: bool) -> str:
    rises, sinks = ("the opposite", "reproduced") if falls else ("reproduced", "the opposite")
    return ("no significant difference", rises, sinks)[estimate.side()]
