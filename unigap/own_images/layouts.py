"""Layouts of a row: an image with a caption, or a preferred and a rejected image of one prompt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unigap.prompt_sets.rows import text_field

TEXTS = ("text", "caption", "prompt")
"""Columns of a caption; the first that is there is read."""
IMAGES = ("file_name", "image")
"""Columns of a captioned image, a path or the image itself; the first that is there is read."""
Verdicts = list[tuple[Any, bool]]


@dataclass(frozen=True)
class Layout:
    """A layout of rows.

    Attributes:
        columns: The columns that are read; the first holds the caption.
        pairs: Whether a row is a preference pair.
        verdicts: Function that returns the images of a row as stored, each with the source's verdict; empty for a tie.
    """

    columns: tuple[str, ...]
    pairs: bool
    verdicts: Callable[[Mapping[str, Any], str], Verdicts]

    def caption(self, row: Mapping[str, Any], where: str) -> str:
        """Return the caption of a row."""
        return text_field(row, self.columns[0], where)


def layout_of(columns: Collection[str], named: str) -> Layout:
    """Return the layout that a table's columns have.

    Raises:
        ValueError: The columns are those of no known layout.
    """
    text = next((name for name in TEXTS if name in columns), None)
    image = next((name for name in IMAGES if name in columns), None)
    if text and {"jpg_0", "jpg_1", "label_0"} <= {*columns}:
        return Layout((text, "jpg_0", "jpg_1", "label_0"), True, _pick_a_pic)
    if text and {"image_path", "human_preference"} <= {*columns}:
        return Layout((text, "image_path", "human_preference"), True, _preferences)
    if text and {"chosen", "rejected"} <= {*columns}:
        return Layout((text, "chosen", "rejected"), True, _chosen_and_rejected)
    if text and image:
        return Layout((text, image), False, lambda row, where: [(row[image], True)])
    raise ValueError(
        f"{named}: columns of no known layout: {', '.join(map(str, columns))[:120] or 'none'}; "
        "give file_name and text, or chosen, rejected and text"
    )


def _chosen_and_rejected(row: Mapping[str, Any], where: str) -> Verdicts:
    return [(row["chosen"], True), (row["rejected"], False)]


def _pick_a_pic(row: Mapping[str, Any], where: str) -> Verdicts:
    label = row["label_0"]
    if label not in (0, 0.5, 1):
        raise ValueError(f"{where}: label_0 must be 0, 0.5 for a tie, or 1, got {str(label)[:40]!r}")
    return _ordered((row["jpg_0"], row["jpg_1"]), 2 * label - 1)


def _preferences(row: Mapping[str, Any], where: str) -> Verdicts:
    images, said = row["image_path"], row["human_preference"]
    if not (_is_pair(images) and _is_pair(said) and all(vote in (0, 1) for vote in said)):
        raise ValueError(f"{where}: image_path and human_preference must be lists of two, the latter of 0 and 1")
    return _ordered(images, said[0] - said[1])


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2


def _ordered(images: Sequence[Any], margin: float) -> Verdicts:
    """Return two images with their verdicts, the preferred one first; none if no one is preferred."""
    first, second = images
    if margin == 0:
        return []
    return [(first, True), (second, False)] if margin > 0 else [(second, True), (first, False)]
