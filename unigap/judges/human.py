"""What people said of drawings, from the file in which they wrote it down."""

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
"""Columns of an exported sheet that are for the rater's eyes."""
SAYS = {"yes": True, "no": False}
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that a spreadsheet would run; the last four are the full-width forms of the first."""


class HumanJudge(Judge):
    """People's verdicts on drawings, by majority.

    People judge what they were shown. Where they select, every round waits for them: a run draws it and stops, its
    drawings are exported, rated and imported, and ``--resume auto`` goes on. Drawings nobody rated are no rows.

    Args:
        path: A CSV file with the columns ``candidate_id``, ``verdict`` (yes or no; empty where not rated yet) and,
            where there are several raters, ``rater``. Other columns are not read; a notice names them. A run needs no
            file: it takes the verdicts that were imported into its pool.
        ties: What as many yes as no means: ``yes``, ``no``, or a mistake to ``refuse``.
    """

    asked_later = True

    def __init__(self, path: str = "", ties: Ties = "refuse") -> None:
        if ties not in ("refuse", *SAYS):
            raise ValueError(f"unknown way with ties {ties!r}; choose one of: refuse, yes, no")
        self.path, self.ties = Path(path) if path else None, ties
        votes = read_votes(self.path) if self.path else {}
        self.verdicts = {name: _majority(name, list(said.values()), ties) for name, said in votes.items()}

    @property
    def name(self) -> str:
        return NAME

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        unrated = [candidate.id for candidate in candidates if candidate.id not in self.verdicts]
        if unrated:
            raise ValueError(
                f"verdicts {str(self.path or NAME)!r}: {len(unrated)} of {len(candidates)} drawings are not rated, "
                f"first {unrated[0][:80]!r}; rate them, or ask a judge that sees new drawings"
            )
        right_B = torch.tensor([self.verdicts[candidate.id] for candidate in candidates], dtype=torch.bool)
        return torch.where(right_B, CERTAIN, -CERTAIN)


def read_votes(path: Path) -> dict[str, dict[str, bool]]:
    """Who said what of each candidate: rater to verdict, by candidate id; what is not rated is left out.

    Raises:
        ValueError: The file is missing, has not the columns or has one twice, is no strict CSV, has a cell of several
            lines, holds something other than yes and no, the same rater's word on a candidate twice, or no verdict.
    """
    named = f"verdicts {str(path)!r}"
    text = read_outside_text(path, named, f"a CSV file of {', '.join(COLUMNS)}", MAX_BYTES)
    votes: dict[str, dict[str, bool]] = {}
    for where, row in csv_rows(text, named, COLUMNS, (RATER, *SHOWN)):
        _refuse_long_cells(row, where)
        name, verdict = plain_cell(row["candidate_id"]), row["verdict"].strip().lower()
        if not verdict:
            continue
        if verdict not in SAYS:
            raise ValueError(f"{where}: a verdict is yes or no, got {verdict[:40]!r}")
        if not name:
            raise ValueError(f"{where}: a verdict on nothing; give the candidate_id")
        rater = row.get(RATER, "").strip()
        if rater in votes.setdefault(name, {}):
            raise ValueError(
                f"{where}: candidate {name[:80]!r} is rated twice by {rater[:40]!r}; give each rater a name in a "
                f"column {RATER!r}"
            )
        votes[name][rater] = SAYS[verdict]
    if not votes:
        raise ValueError(f"{named}: nobody has rated anything; write yes or no into the column 'verdict'")
    return votes


def _refuse_long_cells(row: Mapping[str, str], where: str) -> None:
    """A quote that is never closed swallows the rows after it, up to the next quote."""
    for column, cell in row.items():
        if "\n" in cell.strip():
            raise ValueError(
                f"{where}: the cell {column[:40]!r} spans several lines, as after a quote that is not closed; "
                "write it on one line"
            )


def safe_cell(text: str) -> str:
    """Text for a sheet that people open in a spreadsheet: ``'`` before what would be taken for a formula.

    >>> safe_cell("=1+1"), safe_cell("a red circle"), plain_cell(safe_cell("'@x"))
    ("'=1+1", 'a red circle', "'@x")
    """
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def plain_cell(text: str) -> str:
    """The text that `safe_cell` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith((*FORMULA, "'")) else text


def _majority(name: str, said: Sequence[bool], ties: Ties) -> bool:
    margin = 2 * sum(said) - len(said)
    if margin == 0 and ties == "refuse":
        raise ValueError(
            f"candidate {name[:80]!r} has as many yes as no; ask one more rater, or count ties as yes or no"
        )
    return margin > 0 if margin else SAYS[ties]
