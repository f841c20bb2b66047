"""GenEval's rules (arXiv 2310.11513): objects, counts, colours and positions, from detections.

The published detector is Mask2Former (Swin-S, COCO), the published colour classifier CLIP ViT-L/14 on masked crops. Any
others that use the COCO classes and GenEval's ten colours can replace them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unigap.evaluation.scoring.answers import Box, Detection, ImageAnswers, Score
from unigap.prompt_sets.geneval import objects_of

THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
"""Confidence above which a detection counts: in general, and for prompts with the tag ``counting``."""
MOST_OBJECTS = 16
"""Most detections of one class that are kept, by confidence."""
MARGIN = 0.1
"""Offset of two centres, as a share of the sum of the sizes, up to which there is no direction."""


def relations(a: Box, b: Box, margin: float = MARGIN) -> frozenset[str]:
    """Return the positions of A relative to B.

    The offset of the centres is reduced by ``margin`` times the sum of the two sizes along each axis, then divided by
    the length of the full offset. A direction holds if the result exceeds 0.5.

    Returns:
        Any of ``"left of"``, ``"right of"``, ``"above"``, ``"below"``; at most one for each axis.

    >>> sorted(relations((0, 0, 10, 10), (100, 0, 110, 10)))
    ['left of']
    """
    offset = [(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)]
    size = [a[i + 2] - a[i] + b[i + 2] - b[i] for i in (0, 1)]
    rest = [math.copysign(max(abs(o) - margin * s, 0), o) for o, s in zip(offset, size, strict=True)]
    if max(map(abs, rest)) < 1e-3:
        return frozenset()
    x, y = (r / math.hypot(*offset) for r in rest)
    named = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return frozenset(name for name, holds in named.items() if holds)


def kept(detections: Sequence[Detection], tag: str) -> dict[str, list[Detection]]:
    """Return the detections that count for a prompt with this tag, by class, sorted by confidence."""
    threshold = COUNTING_THRESHOLD if tag == "counting" else THRESHOLD
    found: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda detection: -detection.score):
        same = found.setdefault(detection.name, [])
        if detection.score > threshold and len(same) < MOST_OBJECTS:
            same.append(detection)
    return found


def is_right(truth: Mapping[str, Any], found: Mapping[str, Sequence[Detection]]) -> bool:
    """Return whether an image shows what the prompt asks for.

    Every item of ``include`` must hold: there are at least ``count`` detections of its class, and the ``count`` most
    confident have the required colour and the required position relative to each object matched by the earlier item.
    For every item of ``exclude`` there must be fewer than ``count`` detections of its class.

    Args:
        truth: ``{"include": [...], "exclude": [...]}`` of the prompt.
        found: Detections by class, see `kept`.
    """
    matched: list[Sequence[Detection]] = []
    for item in truth["include"]:
        objects = found.get(item["class"], ())[: item["count"]]
        right = len(objects) == item["count"]
        right &= "color" not in item or all(thing.color == item["color"] for thing in objects)
        if right and "position" in item:
            relation, earlier = item["position"]
            others = matched[earlier]
            right = bool(others) and all(relation in relations(a.box, b.box) for a in objects for b in others)
        matched.append(objects if right else ())
    return all(matched) and not any(len(found.get(item["class"], ())) >= item["count"] for item in truth["exclude"])


def score_geneval(images: Sequence[ImageAnswers]) -> list[Score]:
    """Return 1 or 0 for each image, tagged with the prompt's tag; the published score is `tally.mean_of_tags`.

    Raises:
        ValueError: A prompt has no GenEval truth, or a detection that needs a colour has none.
    """
    scores = []
    for image in images:
        truth, tag = image.truth, image.prompt.category
        if not {"include", "exclude"} <= truth.keys():
            raise ValueError(f"prompt {image.prompt.id!r} has no GenEval truth; give --prompts geneval:FILE")
        for name in ("include", "exclude"):
            objects_of(truth, name, f"truth of prompt {image.prompt.id[:60]!r}")
        found = kept(image.detections(), tag)
        for item in truth["include"]:
            if "color" in item and any(not thing.color for thing in found.get(item["class"], ())[: item["count"]]):
                raise ValueError(f"{image.where}: each {item['class']!r} needs a 'color'; classify its crop")
        scores.append(Score(image.cluster, tag, float(is_right(truth, found))))
    return scores
