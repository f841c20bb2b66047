"""Questions from a prompt's structured truth, as in DSG-1k and DPG-Bench."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from unigap.judges.questions import CACHED_PROMPTS, Question, QuestionSource, with_sound_parents
from unigap.records import Prompt


class PromptQuestions(QuestionSource):
    """Questions in a prompt's truth: prompts of ``dsg:FILE.csv`` and ``dpg:FILE.csv`` have them, others may.

    The truth holds ``{"questions": [{"id": 1, "question": "Is there a cube?", "parents": []}]}``; ids are whole numbers
    or text. A parent that is no question of the prompt, or that depends on its own child, is dropped without a notice:
    it cannot change a verdict, see ``all_hold``.
    """

    @property
    def name(self) -> str:
        return "prompt"

    def questions(self, prompt: Prompt) -> tuple[Question, ...]:
        found = _questions_in(prompt.truth)
        if not found:
            raise ValueError(
                f"prompt {prompt.id[:80]!r} has no questions in its truth, each with a unique 'id', 'question' and "
                "'parents'; take prompts from dsg:FILE.csv, or questions from a QuestionFile"
            )
        return found


@lru_cache(CACHED_PROMPTS)
def _questions_in(truth: str) -> tuple[Question, ...]:
    """Parse the questions of a prompt's truth; return none if there are none or they have another form."""
    parsed: Any = json.loads(truth or "{}")
    rows = parsed.get("questions") if isinstance(parsed, dict) else None
    if not (isinstance(rows, list) and all(map(_is_question, rows))):
        return ()
    found = [Question(str(row["id"]), row["question"].strip(), tuple(map(str, row["parents"]))) for row in rows]
    return with_sound_parents(found) if len({question.id for question in found}) == len(found) else ()


def _is_question(row: Any) -> bool:
    if not (isinstance(row, dict) and isinstance(row.get("parents"), list)):
        return False
    ids = all(isinstance(name, int | str) for name in (row.get("id"), *row["parents"]))
    return ids and isinstance(row.get("question"), str) and bool(row["question"].strip())
