"""Human judge: verdicts that people wrote into a CSV sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from unigap.files.outside import read_outside_text
from unigap.judges.base import CERTAIN, Judge
from unigap.models.base import UnifiedModel
from unigap.prompt_sets.rows import MAX_BYTES, csv_rows
from unigap.records import Candidate

Ties = Literal["refuse", "yes", "no"]
NAME = "human"
COLUMNS = ("candidate_id", "verdict")
RATER = "rater"
SHOWN = ("image", "prompt", "p_yes")
"""Columns of an exported sheet that only inform the rater; they are not read back."""
ANSWERS = {"yes": True, "no": False}
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of a cell that a spreadsheet would run as a formula; the last four are full-width forms."""


class HumanJudge(Judge):
    """Majority verdict of people.

    As the selecting judge it makes every round wait: the run samples a round and stops; export its images, rate them,
    import the sheet, and continue with ``--resume auto``. Images without a verdict give no training rows.

    Args:
        path: A CSV file with the columns ``candidate_id``, ``verdict`` (yes or no; empty if not rated yet) and, with
            several raters, ``rater``. A notice names other columns, which are not read. A run needs no file: it takes
            the verdicts that were imported into its pool.
        ties: Verdict of an even split: ``yes``, ``no``, or ``refuse`` to raise an error.
    """

    deferred = True

    def __init__(self, path: str = "", ties: Ties = "refuse") -> None:
        if ties not in ("refuse", *ANSWERS):
            raise ValueError(f"unknown value of ties {ties!r}; choose one of: refuse, yes, no")
        self.path, self.ties = Path(path) if path else None, ties
        votes = read_votes(self.path) if self.path else {}
        self.verdicts = {name: _majority(name, list(by_rater.values()), ties) for name, by_rater in votes.items()}

    @property
    def name(self) -> str:
        return NAME

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        unrated = [candidate.id for candidate in candidates if candidate.id not in self.verdicts]
        if unrated:
            raise ValueError(
                f"verdicts {str(self.path or NAME)!r}: {len(unrated)} of {len(candidates)} images are not rated, "
                f"first {unrated[0][:80]!r}; rate them, or take a judge that can judge new images"
            )
        right_B = torch.tensor([self.verdicts[candidate.id] for candidate in candidates], dtype=torch.bool)
        return torch.where(right_B, CERTAIN, -CERTAIN)


def read_votes(path: Path) -> dict[str, dict[str, bool]]:
    """Read a verdict sheet into ``{candidate id: {rater: verdict}}``; rows without a verdict are left out.

    Raises:
        ValueError: The file is missing or not strict CSV, lacks a column or has one twice, has a cell of several lines,
            holds something other than yes and no, two verdicts of one rater on a candidate, or no verdict at all.
    """
    named = f"verdicts {str(path)!r}"
    text = read_outside_text(path, named, f"a CSV file of {', '.join(COLUMNS)}", MAX_BYTES)
    votes: dict[str, dict[str, bool]] = {}
    for where, row in csv_rows(text, named, COLUMNS, (RATER, *SHOWN)):
        _refuse_long_cells(row, where)
        name, verdict = plain_cell(row["candidate_id"]), row["verdict"].strip().lower()
        if not verdict:
            continue
        if verdict not in ANSWERS:
            raise ValueError(f"{where}: a verdict is yes or no, got {verdict[:40]!r}")
        if not name:
            raise ValueError(f"{where}: a verdict without a candidate; give the candidate_id")
        rater = row.get(RATER, "").strip()
        if rater in votes.setdefault(name, {}):
            raise ValueError(
                f"{where}: candidate {name[:80]!r} is rated twice by {rater[:40]!r}; give each rater a name in a "
                f"column {RATER!r}"
            )
        votes[name][rater] = ANSWERS[verdict]
    if not votes:
        raise ValueError(f"{named}: nobody has rated anything; write yes or no into the column 'verdict'")
    return votes


def _refuse_long_cells(row: Mapping[str, str], where: str) -> None:
    """Refuse a cell of several lines: an unclosed quote swallows all rows up to the next quote."""
    for column, cell in row.items():
        if "\n" in cell.strip():
            raise ValueError(
                f"{where}: the cell {column[:40]!r} spans several lines, as after a quote that is not closed; "
                "write it on one line"
            )


def safe_cell(text: str) -> str:
    """Return text for a sheet, with a ``'`` in front if a spreadsheet would take it for a formula.

    >>> safe_cell("=1+1"), safe_cell("a red circle"), plain_cell(safe_cell("'@x"))
    ("'=1+1", 'a red circle', "'@x")
    """
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def plain_cell(text: str) -> str:
    """Return the text that `safe_cell` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith((*FORMULA, "'")) else text


def _majority(name: str, verdicts: Sequence[bool], ties: Ties) -> bool:
    margin = 2 * sum(verdicts) - len(verdicts)
    if margin == 0 and ties == "refuse":
        raise ValueError(
            f"candidate {name[:80]!r} has as many yes as no; ask one more rater, or count ties as yes or no"
        )
    return margin > 0 if margin else ANSWERS[ties]
