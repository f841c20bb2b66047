"""What of the paper is reproduced here, sentence by sentence, each decided by one difference with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evidence.claims.contrasts import Contrast, Readings
from evidence.markdown import points
from unigap.files.markdown import table
from unigap.metrics.intervals import Estimate


@dataclass(frozen=True)
class Statement:
    """A sentence of the paper's and what decides it.

    Attributes:
        says: The sentence.
        claim: Stage that measures it.
        figure: What it is about.
        arm: The arm it speaks of.
        control: What the arm is held against; empty is the base.
        falls: Whether the figure has to fall for the sentence to hold; otherwise it has to rise.
    """

    says: str
    claim: str
    figure: str
    arm: str
    control: str = ""
    falls: bool = False


INVERTED = "SFT, inverted accepts"
STATEMENTS = (
    *(
        Statement(f"{arm} on own judgments draws better", "improvement", "generation", arm, f"{arm}, random accepts")
        for arm in ("SFT", "DPO")
    ),
    *(
        Statement(f"{arm} unifies", "improvement", "non-unification", arm, f"{arm}, random accepts", falls=True)
        for arm in ("SFT", "DPO")
    ),
    Statement("replay adds to SFT", "replay", "generation", "C-SFT", "SFT, steps of C-SFT"),
    Statement("replay adds to DPO", "replay", "generation", "C-DPO", "DPO, steps of C-DPO"),
    Statement(
        "replay adds where half is rejected", "replay-hard", "generation", "hard: C-SFT", "hard: SFT, steps of C-SFT"
    ),
    *(
        Statement(f"the judge improves with {arm}", "co-improvement", "AUROC", arm, f"{arm}, random accepts")
        for arm in ("SFT", "DPO", "C-SFT", "C-DPO")
    ),
    Statement("poor supervision makes drawing worse", "degradation", "generation", INVERTED, falls=True),
    Statement("poor supervision makes judging worse", "degradation", "AUROC", INVERTED, falls=True),
    Statement("and the score falls all the same", "degradation", "non-unification", INVERTED, falls=True),
)


def verdicts_section(found: Readings, gaps: Mapping[str, Sequence[Contrast]], weak: Estimate) -> str:
    """Every sentence that was measured, with what came of it.

    Args:
        found: Figures of every arm.
        gaps: Arms against their controls, by stage.
        weak: Share of the base's rejected drawings that are wrong.
    """
    half = Estimate(weak.value - 0.5, weak.low - 0.5, weak.high - 0.5, weak.n)
    rows = [["most of what the model rejects is drawn wrong", "one half", points(half), _verdict(half, falls=False)]]
    for said in STATEMENTS:
        if said.claim in gaps:
            told = _difference(said, found, gaps[said.claim])
            against = f"{said.figure}: {said.arm}, against {said.control or 'the base'}"
            rows.append([said.says, against, points(told), _verdict(told, said.falls)])
    header = ("the paper says", "held against", "difference", "here")
    return "## What is reproduced\n\n" + table(header, rows)


def _difference(said: Statement, found: Readings, gaps: Sequence[Contrast]) -> Estimate:
    if not said.control:
        return found[said.arm][f"change of {said.figure}"].estimate()
    return next(gap for gap in gaps if (gap.arm, gap.control) == (said.arm, said.control)).estimates[said.figure]


def _verdict(told: Estimate, falls: bool) -> str:
    rises, sinks = ("the opposite", "reproduced") if falls else ("reproduced", "the opposite")
    return ("no significant difference", rises, sinks)[told.side()]
