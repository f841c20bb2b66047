"""DSG-1k and DPG-Bench: a CSV with one yes/no question a row and its dependencies (arXiv 2310.18235, 2403.05135)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unigap.prompt_sets.rows import as_truth, csv_rows, distinct, family, read_text
from unigap.prompt_sets.tiers import tier
from unigap.records import Prompt

COLUMNS = (
    "item_id", "text", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
    "question_natural_language",
)  # fmt: skip

IGNORED = ("keywords",)


def read_dsg(path: str) -> list[Prompt]:
    """Read the prompts in the order of first occurrence; their ids are the item ids.

    The category is the item's part of the set, e.g. ``whoops``. The truth is ``{"questions": [...]}``, each question
    ``{"id", "parents", "category", "detail", "tuple", "question"}``. A published dependency may mix words with numbers,
    or be 0 for none; its numbers above 0 are the parents. Each proposition is one claim, see `tiers.tier`.

    Raises:
        ValueError: A column is missing, or a row is damaged (named by its line).
    """
    rows: dict[str, tuple[str, str, list[dict[str, Any]]]] = {}
    named = f"prompts {path!r}"
    for where, row in csv_rows(read_text(path, (".csv",)), named, COLUMNS, IGNORED):
        item, text = row["item_id"].strip(), row["text"].strip()
        _, known, questions = rows.setdefault(item, (where, text, []))
        question = _question(row, where)
        if text != known:
            raise ValueError(f"{where}: item {item[:60]!r} has another text than before; give it one")
        if any(other["id"] == question["id"] for other in questions):
            raise ValueError(f"{where}: proposition {question['id']} of item {item[:60]!r} occurs twice; keep one")
        questions.append(question)
    return distinct(_prompts(rows), named)


def _prompts(rows: dict[str, tuple[str, str, list[dict[str, Any]]]]) -> Iterator[tuple[str, Prompt]]:
    for item, (where, text, questions) in rows.items():
        truth = as_truth({"questions": questions})
        yield where, Prompt(item, text, family(item), tier(len(questions)), truth=truth)


def _question(row: dict[str, str], where: str) -> dict[str, Any]:
    number = row["proposition_id"].strip()
    if not (number.isdecimal() and len(number) < 10):
        raise ValueError(f"{where}: proposition_id must be a whole number, got {number[:40]!r}")
    parts = (part.strip() for part in row["dependency"].split(","))
    return {
        "id": int(number),
        "parents": [int(part) for part in parts if part.isdecimal() and len(part) < 10 and int(part) > 0],
        "category": row["category_broad"].strip(),
        "detail": row["category_detailed"].strip(),
        "tuple": row["tuple"].strip(),
        "question": row["question_natural_language"].strip(),
    }
