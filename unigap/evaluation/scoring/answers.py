"""Read detections or answers made elsewhere: a JSONL file with one object for each image, in the order sampled."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from unigap.console.mistakes import hint
from unigap.prompt_sets.rows import Row, json_rows, read_text, text_field, with_known_keys
from unigap.prompt_sets.same_text import normalised
from unigap.records import Prompt

KEYS = ("id", "objects", "phrases", "similarity", "attribute", "spatial", "action", "answers", "ratings")
OBJECT_KEYS = ("class", "box", "score", "color", "depth")
"""Keys of an object that the rules read; a notice counts other keys."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels; y grows downwards."""


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        name: Its class, e.g. ``"traffic light"``.
        box: Its bounding box.
        score: The detector's confidence, in [0, 1].
        color: Colour that a classifier gave the crop; ``""`` if not given.
        depth: Mean of a depth map over the box, larger for nearer; nan if not given.
    """

    name: str
    box: Box
    score: float
    color: str = ""
    depth: float = math.nan


@dataclass(frozen=True)
class ImageAnswers:
    """Detections or answers for one image.

    Attributes:
        prompt: The image's prompt.
        row: The JSON object.
        where: File and line, for messages.
    """

    prompt: Prompt
    row: Mapping[str, Any]
    where: str

    @property
    def cluster(self) -> str:
        """Bootstrap cluster: the normalised prompt text, shared by lines with different ids and the same text."""
        return normalised(self.prompt.text)

    @property
    def truth(self) -> dict[str, Any]:
        """Structured truth of the prompt; ``{}`` if it has none."""
        truth: dict[str, Any] = json.loads(self.prompt.truth or "{}")
        return truth

    def number(self, name: str, of: Mapping[str, Any] | None = None) -> float:
        """Return the finite number under ``name`` in the row, or in the object ``of``.

        Raises:
            ValueError: It is missing or not a finite number.
        """
        value = (self.row if of is None else of).get(name)
        if not is_number(value):
            raise ValueError(f"{self.where}: {name!r} must be a number; see docs/prompts.md for the format")
        return float(value)

    def detections(self) -> list[Detection]:
        """Return the detections in ``{"objects": [{"class", "box", "score", "color"?, "depth"?}]}``.

        Raises:
            ValueError: One of them has another form.
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
            raise ValueError(f"{self.where}: 'box' {box} is empty; give left, top, right, bottom")
        return Detection(
            text_field(item, "class", self.where),
            (left, top, right, bottom),
            self.number("score", item),
            text_field(item, "color", self.where) if "color" in item else "",
            self.number("depth", item) if "depth" in item else math.nan,
        )


@dataclass(frozen=True)
class Score:
    """Score of one image, or of one question about it.

    Attributes:
        prompt: Normalised text of the prompt, the bootstrap cluster.
        tag: The group in which it is reported.
        value: In [0, 1], or a similarity.
    """

    prompt: str
    tag: str
    value: float


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a JSON value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def read_answers(path: str, prompts: Sequence[Prompt]) -> list[ImageAnswers]:
    """Read a JSONL file and match each row to its prompt by ``id``; rows with one id are images of one prompt.

    Raises:
        ValueError: The file cannot be read or holds no row, or a row names no prompt of the set.
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
