"""The language of the embedded world: the meaning of a prompt, its text, and the parser."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLORS = ("red", "green", "blue", "yellow", "purple", "black")
SIZES = ("small", "large")
COUNTS = ("a", "two", "three", "four", "five", "six")
RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CATEGORIES = ("color", "shape", "size", "count", "spatial")
DIFFICULTIES = ("easy", "medium", "hard")

_PLURALS = {shape: "crosses" if shape == "cross" else shape + "s" for shape in SHAPES}
_SINGULARS = {plural: shape for shape, plural in _PLURALS.items()}
WORDS = tuple(
    dict.fromkeys([*COUNTS, *SIZES, *COLORS, *SHAPES, *_SINGULARS, "and", "left", "right", "of", "above", "below", ","])
)
MAX_OBJECTS = len(COUNTS)


@dataclass(frozen=True, order=True)
class Thing:
    """A kind of object. An attribute of ``""`` is left open and matches any value."""

    shape: str
    color: str = ""
    size: str = ""

    def fits(self, other: Thing) -> bool:
        """Whether ``other``, a fully specified object, is of this kind."""
        return self.shape == other.shape and self.color in ("", other.color) and self.size in ("", other.size)


@dataclass(frozen=True)
class Description:
    """The exact content of an image: these objects and no others.

    Attributes:
        groups: Pairs of (count, thing), in the order of the text.
        relation: Position of the first of two single objects relative to the second; else ``""``.
    """

    groups: tuple[tuple[int, Thing], ...]
    relation: str = ""

    @property
    def things(self) -> tuple[Thing, ...]:
        """One entry per object, repeated by count."""
        return tuple(thing for count, thing in self.groups for _ in range(count))

    @property
    def text(self) -> str:
        """The text of the prompt."""
        phrases = [_phrase(count, thing) for count, thing in self.groups]
        if self.relation:
            return f"{phrases[0]} {self.relation} {phrases[1]}"
        return " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))

    @property
    def key(self) -> str:
        """Canonical text, equal for all wordings of one meaning; ``split_of`` hashes it."""
        if self.relation in ("right of", "below"):
            mirrored = Description(self.groups[::-1], RELATIONS[self.relation])
            return mirrored.text
        if self.relation:
            return self.text
        counts = Counter(self.things)
        return Description(tuple((counts[thing], thing) for thing in sorted(counts))).text


def _phrase(count: int, thing: Thing) -> str:
    noun = thing.shape if count == 1 else _PLURALS[thing.shape]
    return " ".join(filter(None, [COUNTS[count - 1], thing.size, thing.color, noun]))


_GROUP = re.compile(
    rf"({'|'.join(COUNTS)})(?: ({'|'.join(SIZES)}))?(?: ({'|'.join(COLORS)}))? ({'|'.join([*_SINGULARS, *SHAPES])})"
)


def parse(text: str) -> Description:
    """Parse a prompt; the inverse of ``Description.text``.

    Raises:
        ValueError: The text is not a sentence of the embedded world; the message names the first unknown word.
    """
    words = re.sub(r"\s+", " ", text.strip().lower().rstrip(" ."))
    for word in re.findall(r"[^\s,]+|,", words):
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows: {' '.join(WORDS)}"
            raise ValueError(f"prompt {_shown(text)}: the embedded world has no word {_shown(word)}; {hint}")
    relation = next((name for name in RELATIONS if f" {name} " in words), "")
    parts = words.split(f" {relation} ") if relation else re.split(r", (?:and )?| and ", words)
    groups = tuple(_read_group(part, text) for part in parts)
    if relation and (len(groups) != 2 or any(count != 1 for count, _ in groups)):
        raise ValueError(
            f"prompt {_shown(text)}: {relation!r} relates exactly two single objects; write 'a .. {relation} a ..'"
        )
    if sum(count for count, _ in groups) > MAX_OBJECTS:
        raise ValueError(f"prompt {_shown(text)}: names more than {MAX_OBJECTS} objects; name fewer")
    return Description(groups, relation)


def _read_group(phrase: str, text: str) -> tuple[int, Thing]:
    match = _GROUP.fullmatch(phrase)
    if match is None:
        raise ValueError(
            f"prompt {_shown(text)}: cannot read {_shown(phrase)}; write it like 'a small red circle' or 'two squares'"
        )
    count, size, color, noun = match.groups()
    number = COUNTS.index(count) + 1
    if (noun in _SINGULARS) != (number > 1):
        raise ValueError(f"prompt {_shown(text)}: {phrase!r} mixes singular and plural; write it like 'two squares'")
    return number, Thing(_SINGULARS.get(noun, noun), color or "", size or "")


def _shown(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
