"""T2I-CompBench++: a folder with ``{category}_{train,val}.txt``, 700 and 300 prompts each (arXiv 2307.06350)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unigap.prompt_sets.rows import as_truth, distinct, lines_of, read_text, refuse_url
from unigap.prompt_sets.tiers import claims_of_objects, tier
from unigap.records import Prompt

CATEGORIES = ("color", "shape", "texture", "spatial", "3d_spatial", "numeracy", "non_spatial", "complex")
SPLITS = ("train", "val")
RELATIONS = (
    "on the left of", "on the right of", "on the top of", "on the bottom of", "on side of", "next to", "near",
    "in front of", "behind", "hidden by",
)  # fmt: skip
NUMBERS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10,
}  # fmt: skip
SINGULARS = {"men": "man", "women": "woman", "mice": "mouse", "people": "person", "knives": "knife"}
SPATIAL = re.compile(rf"(?:a|an|the) (.+?) ({'|'.join(RELATIONS)}) (?:a|an|the) (.+)")
WORDS = "|".join(NUMBERS)
ITEM = rf"(?:{WORDS}) [a-z-]+"
# an article means "one" in a list of objects that begins the prompt or follows a number; elsewhere it is no count
LIST = re.compile(rf"(?:^|\b(?!an? )){ITEM}(?:(?:, and |, | and ){ITEM})*")
PHRASE = re.compile(r"(?:a|an)(?: (?!(?:a|an|the|with) )[a-z-]+){2,4}")


def read_t2i_compbench(folder: str) -> list[Prompt]:
    """Read the prompts of all files in the folder, category by category, ``train`` before ``val``.

    Ids count the prompts of a file, e.g. ``color-val-000``. The files hold text only. If the text follows a template,
    the structured truth is parsed from it: ``{"include": [{"class", "count"}], "relation": ...}`` for the spatial
    categories, ``{"include": [...]}`` for numeracy, and ``{"phrases": [...]}``, noun phrases with one attribute each,
    for color, shape and texture. Other sentences have no truth and difficulty ``"any"``.

    Raises:
        ValueError: The folder holds none of the files, or one is damaged.
    """
    refuse_url(folder)
    root = Path(folder)
    files = [(c, s, root / f"{c}_{s}.txt") for c in CATEGORIES for s in SPLITS]
    present = [(category, split, file) for category, split, file in files if os.path.lexists(file)]
    if not present:
        raise ValueError(f"prompts {folder!r}: no folder with files such as color_train.txt and color_val.txt")
    return distinct(
        (row for category, split, file in present for row in _prompts(category, split, file)), f"prompts {folder!r}"
    )


def _prompts(category: str, split: str, file: Path) -> Iterator[tuple[str, Prompt]]:
    for number, (where, line) in enumerate(lines_of(read_text(file, (".txt",)), f"prompts {str(file)!r}")):
        truth = truth_of(category, line)
        claims = claims_of_objects(truth.get("include", [])) + 2 * len(truth.get("phrases", [])) + ("relation" in truth)
        name = f"{category}-{split}-{number:03d}"
        yield where, Prompt(name, line.strip(), category, tier(claims), split, as_truth(truth))


def truth_of(category: str, text: str) -> dict[str, Any]:
    """Parse the structured truth of a prompt that follows a template of its category; else return ``{}``.

    >>> truth_of("numeracy", "two boys and a dog")
    {'include': [{'class': 'boy', 'count': 2}, {'class': 'dog', 'count': 1}]}
    """
    text = text.lower().strip().rstrip(".").strip()
    if category in ("spatial", "3d_spatial"):
        return _relation(text)
    if category == "numeracy":
        return _counts(text)
    return _phrases(text) if category in ("color", "shape", "texture") else {}


def _relation(text: str) -> dict[str, Any]:
    found = SPATIAL.fullmatch(text)
    if found is None:
        return {}
    include = [{"class": name, "count": 1} for name in (found[1], found[3])]
    return {"include": include, "relation": found[2]}


def _counts(text: str) -> dict[str, Any]:
    include = []
    for listed in LIST.finditer(text):
        for item in re.findall(ITEM, listed[0]):
            number, noun = item.split(" ")
            count = NUMBERS[number]
            include.append({"class": singular(noun) if count > 1 else noun, "count": count})
    return {"include": include} if include else {}


def _phrases(text: str) -> dict[str, Any]:
    parts = text.split(" and ")
    return {"phrases": parts} if len(parts) > 1 and all(PHRASE.fullmatch(part) for part in parts) else {}


def singular(noun: str) -> str:
    """Return the singular of a plural in these prompts, as detectors name their classes.

    >>> singular("peaches"), singular("butterflies"), singular("mice"), singular("sheep")
    ('peach', 'butterfly', 'mouse', 'sheep')
    """
    if noun in SINGULARS:
        return SINGULARS[noun]
    for ending, instead in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("oes", "o"), ("s", "")):
        if noun.endswith(ending) and not noun.endswith("ss"):
            return noun.removesuffix(ending) + instead
    return noun
