"""Detected objects as ``unigap score`` reads them."""

from __future__ import annotations

from typing import Any

from unigap.evaluation.scoring.answers import Detection


def object_row(detection: Detection, color: str = "", depth: float | None = None) -> dict[str, Any]:
    """Return a detection as plain JSON, with its colour and depth where they were measured."""
    row: dict[str, Any] = {
        "class": detection.name,
        "box": list(detection.box),
        "score": detection.score,
    }
    if color:
        row["color"] = color
    return row if depth is None else {**row, "depth": depth}
