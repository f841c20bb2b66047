"""Geometry of bounding boxes."""

from __future__ import annotations

from collections.abc import Sequence

from unigap.evaluation.scoring.answers import Box


def area(box: Box) -> float:
    """Return the area of a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def intersection(a: Box, b: Box) -> float:
    """Return the area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes, in [0, 1]."""
    common = intersection(a, b)
    return common / (area(a) + area(b) - common)


def clipped(box: Sequence[float], size: tuple[int, int]) -> Box:
    """Return the part of a box that lies inside an image of ``size`` (width, height)."""
    left, top, right, bottom = (min(max(edge, 0.0), size[i % 2]) for i, edge in enumerate(map(float, box)))
    return (left, top, right, bottom)
