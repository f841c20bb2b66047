"""Questions that a prompt brings along in its structured truth, as those of DSG-1k and DPG-Bench do."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from unigap.judges.questions import REMEMBERED, Question, QuestionSource, with_sound_parents
from unigap.records import Prompt


class PromptQuestions(QuestionSource):
    """The questions a prompt brings along: those of ``dsg:FILE.csv`` and ``dpg:FILE.csv``, or of one's own prompts.

    A prompt's truth holds them as ``{"questions": [{"id": 1, "question": "Is there a cube?", "parents": []}]}``; ids
    are whole numbers or text. A parent that is no question of the prompt, or depends on its own child, is left out
    without a word: no verdict hangs on it, see ``all_hold``.
    """

    @property
    def name(self) -> str:
        return "prompt"

    def questions(self, prompt: Prompt) -> tuple[Question, ...]:
        carried = _carried(prompt.truth)
        if not carried:
            raise ValueError(
                f"prompt {prompt.id[:80]!r} brings along no questions, each with an 'id' of its own, 'question' and "
                "'parents'; take prompts from dsg:FILE.csv, or ask those of a QuestionFile"
            )
        return carried


@lru_cache(REMEMBERED)
def _carried(truth: str) -> tuple[Question, ...]:
    """The questions in a prompt's truth; none where it holds none, or not in that form."""
    told: Any = json.loads(truth or "{}")
    rows = told.get("questions") if isinstance(told, dict) else None
    if not (isinstance(rows, list) and all(map(_is_question, rows))):
        return ()
    found = [Question(str(row["id"]), row["question"].strip(), tuple(map(str, row["parents"]))) for row in rows]
    return with_sound_parents(found) if len({question.id for question in found}) == len(found) else ()


def _is_question(row: Any) -> bool:
    if not (isinstance(row, dict) and isinstance(row.get("parents"), list)):
        return False
    ids = all(isinstance(name, int | str) for name in (row.get("id"), *row["parents"]))
    return ids and isinstance(row.get("question"), str) and bool(row["question"].strip())
