"""What was detected in, or answered about, each image: a JSONL file with one object an image, in the order drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from unigap.console.mistakes import hint
from unigap.prompt_sets.loading import normalised
from unigap.prompt_sets.rows import Row, json_rows, read_text, text_field, with_known_keys
from unigap.records import Prompt

KEYS = ("id", "objects", "phrases", "similarity", "attribute", "spatial", "action", "answers")
OBJECT_KEYS = ("class", "box", "score", "color", "depth")
"""The keys that a rule reads; others are counted in a notice."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels; y grows downwards."""


@dataclass(frozen=True)
class Detection:
    """One object a detector found.

    Attributes:
        name: Its class, e.g. ``"traffic light"``.
        box: Where it is.
        score: The detector's confidence, in [0, 1].
        color: The colour a classifier gave the crop; ``""`` where none was asked.
        depth: Mean of a depth map over the box, larger for nearer; nan where there is none.
    """

    name: str
    box: Box
    score: float
    color: str = ""
    depth: float = math.nan


@dataclass(frozen=True)
class ImageAnswers:
    """What is known of one image.

    Attributes:
        prompt: What it was drawn for.
        row: The object that was read.
        where: Where that stands, for messages.
    """

    prompt: Prompt
    row: Mapping[str, Any]
    where: str

    @property
    def cluster(self) -> str:
        """What is resampled together: all images of one text, whatever the ids of its lines."""
        return normalised(self.prompt.text)

    @property
    def truth(self) -> dict[str, Any]:
        """The structured truth of the prompt; ``{}`` where it has none."""
        truth: dict[str, Any] = json.loads(self.prompt.truth or "{}")
        return truth

    def number(self, name: str, of: Mapping[str, Any] | None = None) -> float:
        """A finite number of the row, or of an object in it.

        Raises:
            ValueError: When it is missing or no number.
        """
        value = (self.row if of is None else of).get(name)
        if not is_number(value):
            raise ValueError(f"{self.where}: {name!r} must be a number; see docs/prompts.md for what is asked")
        return float(value)

    def detections(self) -> list[Detection]:
        """The objects found in the image, from ``{"objects": [{"class", "box", "score", "color"?, "depth"?}]}``.

        Raises:
            ValueError: When one of them is not of that form.
        """
        objects = self.row.get("objects")
        if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
            raise ValueError(f"{self.where}: needs 'objects', a list of objects with 'class', 'box' and 'score'")
        return [self._detection(item) for item in objects]

    def _detection(self, item: dict[str, Any]) -> Detection:
        box = item.get("box")
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            raise ValueError(f"{self.where}: 'box' must be four numbers: left, top, right, bottom")
        left, top, right, bottom = map(float, box)
        if right <= left or bottom <= top:
            raise ValueError(f"{self.where}: 'box' {box} holds nothing; give left, top, right, bottom")
        return Detection(
            text_field(item, "class", self.where),
            (left, top, right, bottom),
            self.number("score", item),
            text_field(item, "color", self.where) if "color" in item else "",
            self.number("depth", item) if "depth" in item else math.nan,
        )


@dataclass(frozen=True)
class Score:
    """What one image, or one question about it, is worth.

    Attributes:
        prompt: Normalised text of the prompt; images of one prompt are resampled together.
        tag: The group it is reported in.
        value: In [0, 1], or a similarity.
    """

    prompt: str
    tag: str
    value: float


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def read_answers(path: str, prompts: Sequence[Prompt]) -> list[ImageAnswers]:
    """All rows of a JSONL file, each with the prompt its ``id`` names; several rows of one id are several images.

    Raises:
        ValueError: When the file cannot be read, holds no row, or a row names no prompt of the set.
    """
    known, named = {prompt.id: prompt for prompt in prompts}, f"answers {path!r}"
    answers = []
    for where, row in with_known_keys(json_rows(read_text(path, (".jsonl",), noun="answers"), named), named, KEYS):
        name = text_field(row, "id", where)
        if name not in known:
            raise ValueError(f"{where}: no prompt has the id {name[:60]!r}{hint(name, known)}")
        answers.append(ImageAnswers(known[name], row, where))
    if not answers:
        raise ValueError(f"{named}: the file holds no row; write one an image")
    for _ in with_known_keys(_objects(answers), f"{named}, objects", OBJECT_KEYS):
        pass
    return answers


def _objects(answers: Sequence[ImageAnswers]) -> Iterator[Row]:
    for image in answers:
        objects = image.row.get("objects")
        yield from (
            (image.where, item) for item in (objects if isinstance(objects, list) else ()) if isinstance(item, dict)
        )
