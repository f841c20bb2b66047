"""What people said of drawings, from the file in which they wrote it down."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from unigap.judges.base import CERTAIN, Judge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate

Ties = Literal["refuse", "yes", "no"]
NAME = "human"
COLUMNS = ("candidate_id", "verdict")
SAYS = {"yes": True, "no": False}


class HumanJudge(Judge):
    """People's verdicts on drawings, by majority.

    People judge what they were shown. Where they select, every round waits for them: a run draws it and stops, its
    drawings are exported, rated and imported, and ``--resume auto`` goes on. Drawings nobody rated are no rows.

    Args:
        path: A CSV file with the columns ``candidate_id``, ``verdict`` (yes or no; empty where not rated yet) and,
            where there are several raters, ``rater``. Other columns do not matter. A run needs none: it takes the
            verdicts that were imported into its pool.
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
        ValueError: The file is missing, has not the columns, holds something other than yes and no, the same rater's
            word on a candidate twice, or no verdict at all.
    """
    where = f"verdicts {str(path)!r}"
    if not path.is_file():
        raise ValueError(f"{where}: no such file; give a CSV file of {', '.join(COLUMNS)}")
    votes: dict[str, dict[str, bool]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise ValueError(f"{where}: has no column {missing[0]!r}; separate by commas, with names in line 1")
            for row in rows:
                name, verdict = row["candidate_id"], (row["verdict"] or "").strip().lower()
                if not verdict:
                    continue
                if verdict not in SAYS:
                    raise ValueError(f"{where}, line {rows.line_num}: a verdict is yes or no, got {verdict[:40]!r}")
                rater = (row.get("rater") or "").strip()
                if rater in votes.setdefault(name, {}):
                    raise ValueError(
                        f"{where}, line {rows.line_num}: candidate {name[:80]!r} is rated twice by {rater[:40]!r}; "
                        "tell raters apart in a column 'rater'"
                    )
                votes[name][rater] = SAYS[verdict]
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{where}: not a CSV file ({str(error)[:80]}); export it anew") from error
    if not votes:
        raise ValueError(f"{where}: nobody has rated anything; write yes or no into the column 'verdict'")
    return votes


def _majority(name: str, said: Sequence[bool], ties: Ties) -> bool:
    margin = 2 * sum(said) - len(said)
    if margin == 0 and ties == "refuse":
        raise ValueError(
            f"candidate {name[:80]!r} has as many yes as no; ask one more rater, or count ties as yes or no"
        )
    return margin > 0 if margin else SAYS[ties]
