"""GenEval: ``evaluation_metadata.jsonl``, 553 prompts with the objects that must be there (arXiv 2310.11513)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unigap.prompt_sets.rows import (
    as_truth,
    distinct,
    json_rows,
    read_text,
    refuse_unknown_keys,
    text_field,
    with_known_keys,
)
from unigap.prompt_sets.tiers import claims_of_objects, tier
from unigap.records import Prompt

RELATIONS = ("left of", "right of", "above", "below")
KEYS = ("tag", "include", "exclude", "prompt")
ITEM_KEYS = ("class", "count", "color", "position")
"""Keys of an item that the rules score; other keys are refused, since they would go unscored."""


def read_geneval(path: str) -> list[Prompt]:
    """Read the prompts in order; their ids are the names of GenEval's image folders, from ``00000``.

    The category is the tag. The truth is ``{"include": [...], "exclude": [...]}`` as published: objects that must be
    there (class, count, color, position relative to an earlier item), and counts of a class that must not be reached.

    Raises:
        ValueError: A row is not a GenEval row, or has a key that GenEval's rules do not score; names the line.
    """
    named = f"prompts {path!r}"
    return distinct(_prompts(read_text(path, (".jsonl",)), named), named)


def _prompts(text: str, named: str) -> Iterator[tuple[str, Prompt]]:
    for number, (where, row) in enumerate(with_known_keys(json_rows(text, named), named, KEYS)):
        include = objects_of(row, "include", where)
        if not include:
            raise ValueError(f"{where}: 'include' is empty or missing; this is no row of evaluation_metadata.jsonl")
        truth = {"include": include, "exclude": objects_of(row, "exclude", where)}
        difficulty = tier(claims_of_objects(include))
        prompt, tag = text_field(row, "prompt", where), text_field(row, "tag", where)
        yield where, Prompt(f"{number:05d}", prompt, tag, difficulty, truth=as_truth(truth))


def objects_of(row: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    """Return the items of ``include`` or ``exclude``, each ``{"class", "count", "color"?, "position"?}``.

    Raises:
        ValueError: One of them has another form or another key.
    """
    items = row.get(name, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{where}: {name!r} must be a list of objects; this is no row of evaluation_metadata.jsonl")
    for number, item in enumerate(items):
        refuse_unknown_keys(item, ITEM_KEYS, f"{where}, {name!r}")
        text_field(item, "class", where)
        if type(item.get("count")) is not int or item["count"] < 1:
            raise ValueError(f"{where}: 'count' in {name!r} must be a whole number >= 1; write {{\"count\": 1}}")
        if "color" in item:
            text_field(item, "color", where)
        if "position" in item:
            _check_position(item["position"], number, where)
    return items


def _check_position(position: Any, number: int, where: str) -> None:
    match position:
        case [str(relation), int(earlier)] if relation in RELATIONS and 0 <= earlier < number:
            return
    raise ValueError(f"{where}: 'position' must be [relation, number of an earlier object], e.g. [\"above\", 0]")
