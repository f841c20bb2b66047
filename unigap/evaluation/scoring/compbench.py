"""T2I-CompBench++'s rules (arXiv 2307.06350): attributes, spatial relations, numeracy, and 3-in-1 for complex prompts.

The published judges are BLIP-VQA for attributes, UniDet (and a depth model) for relations and numbers, and CLIPScore
for non-spatial relations. Their answers are the input of these rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unigap.evaluation.scoring.answers import Box, Detection, ImageAnswers, Score, is_number
from unigap.evaluation.scoring.boxes import area, intersection, iou
from unigap.prompt_sets.t2i_compbench import RELATIONS

OVERLAP, OVERLAP_3D, NEAR = 0.1, 0.5, 150.0
"""IoU up to which a 2D relation scores in full; IoU from which a depth relation does; pixels that count as near."""
SAME_BOX = 0.9
"""Two detections of a class are one object if more than this share of the smaller box lies inside the other."""
DETECTED_AS = {
    "girl": "person", "boy": "person", "man": "person", "woman": "person", "ship": "boat", "telivision": "tv",
    "goldfish": "fish", "painting": "picture",
}  # fmt: skip
"""Detector classes for nouns that it does not know; misspellings are those of the published prompts."""
PLANAR = {"on the left of": (0, 1), "on the right of": (0, -1), "on the top of": (1, 1), "on the bottom of": (1, -1)}
"""Axis (0 is x) and sign of the offset from the first object to the second."""


def attribute_score(p_yes: Sequence[float]) -> float:
    """Return the probability that all noun phrases of a prompt are right: the product of the answers to "{phrase}?".

    Args:
        p_yes: BLIP-VQA's probability of "yes" for each phrase, in [0, 1].
    """
    return math.prod(p_yes)


def relation_score(relation: str, a: Detection, b: Detection) -> float:
    """Return how well the relation of A to B holds, in [0, 1].

    - Left, right, top, bottom: 1 if the centres differ most along the right axis, in the right direction; multiplied by
      ``OVERLAP / IoU`` if the IoU is above ``OVERLAP``.
    - Near, next to, on side of: 1 within ``NEAR`` pixels along either axis, else ``NEAR`` over the larger distance.
    - In front of, behind, hidden by: 0 unless the mean depths differ in the right direction, else
      ``IoU / OVERLAP_3D``, at most 1.
    """
    offset = [(b.box[i] + b.box[i + 2] - a.box[i] - a.box[i + 2]) / 2 for i in (0, 1)]
    overlap = iou(a.box, b.box)
    if relation in PLANAR:
        axis, sign = PLANAR[relation]
        right = offset[axis] * sign > 0 and abs(offset[axis]) > abs(offset[1 - axis])
        return float(right) if overlap < OVERLAP else right * OVERLAP / overlap
    if relation in ("in front of", "behind", "hidden by"):
        nearer = a.depth - b.depth if relation == "in front of" else b.depth - a.depth
        return min(1.0, overlap / OVERLAP_3D) if nearer > 0 else 0.0
    far = max(map(abs, offset))
    return 1.0 if min(map(abs, offset)) < NEAR else NEAR / far


def spatial_score(truth: Mapping[str, Any], detections: Sequence[Detection]) -> float:
    """Return the score of a prompt about two objects in a relation, in [0, 1].

    A quarter of each object's confidence, plus half of `relation_score` if both are detected. As published, a score
    below 0.5 becomes 0, except for depth relations.

    Args:
        truth: ``{"include": [A, B], "relation": ...}`` of the prompt.
        detections: The detections; the first of each class counts.
    """
    first, second = (_first(item["class"], detections) for item in truth["include"])
    score = 0.25 * sum(thing.score for thing in (first, second) if thing)
    if first and second:
        score += relation_score(truth["relation"], first, second) / 2
    flat = truth["relation"] not in ("in front of", "behind", "hidden by")
    return 0.0 if flat and score < 0.5 else score


def _first(noun: str, detections: Sequence[Detection]) -> Detection | None:
    name = DETECTED_AS.get(noun, noun)
    return next((thing for thing in detections if thing.name == name), None)


def numeracy_score(truth: Mapping[str, Any], detections: Sequence[Detection]) -> float:
    """Return the score of a prompt about counts of objects, in [0, 1].

    Each class has an equal share: half of it for being detected, half for the right count. Detections of one class that
    overlap by more than ``SAME_BOX`` count once.

    Args:
        truth: ``{"include": [{"class", "count"}]}`` of the prompt.
        detections: The detections.
    """
    seen: list[Detection] = []
    for thing in detections:
        if not any(thing.name == other.name and _same_box(thing.box, other.box) for other in seen):
            seen.append(thing)
    points = 0.0
    for item in truth["include"]:
        name = DETECTED_AS.get(item["class"], item["class"])
        number = sum(thing.name == name for thing in seen)
        points += 0.5 * (number > 0) + 0.5 * (number == item["count"])
    return points / len(truth["include"])


def _same_box(a: Box, b: Box) -> bool:
    return intersection(a, b) > SAME_BOX * min(area(a), area(b))


def three_in_one(parts: Sequence[float]) -> float:
    """Return the score of a complex prompt: the mean of the parts that apply to it.

    Args:
        parts: The attribute score, then the spatial score, the CLIPScore of the action, or both.
    """
    return sum(parts) / len(parts)


def score_compbench(images: Sequence[ImageAnswers]) -> list[Score]:
    """Score each image by the rule of its prompt's category, which becomes the tag.

    Raises:
        ValueError: A prompt has an unknown category, or its truth or an answer lacks what the rule needs.
    """
    return [Score(image.cluster, image.prompt.category, _rule(image)(image)) for image in images]


def _rule(image: ImageAnswers) -> Callable[[ImageAnswers], float]:
    category = image.prompt.category
    if category not in _RULES:
        raise ValueError(f"prompt {image.prompt.id!r}: {category!r} is no category of T2I-CompBench++")
    if category in ("spatial", "3d_spatial", "numeracy") and not image.truth:
        raise ValueError(f"prompt {image.prompt.id!r} follows no template, so its objects are unknown; leave it out")
    return _RULES[category]


def _score_attributes(image: ImageAnswers) -> float:
    p_yes = image.row.get("phrases")
    if not isinstance(p_yes, list) or not p_yes or not all(is_number(p) and 0 <= p <= 1 for p in p_yes):
        raise ValueError(f"{image.where}: needs 'phrases', a list with the probability of yes for each noun phrase")
    asked = image.truth.get("phrases", p_yes)
    if len(asked) != len(p_yes):
        raise ValueError(f"{image.where}: 'phrases' holds {len(p_yes)} answers; the prompt has {len(asked)} phrases")
    return attribute_score(p_yes)


def _score_relation(image: ImageAnswers) -> float:
    detections, relation = image.detections(), image.truth.get("relation")
    if relation not in RELATIONS or len(image.truth.get("include", ())) != 2:
        raise ValueError(
            f"prompt {image.prompt.id!r}: its truth needs two objects in 'include' and a 'relation', one of: "
            f"{', '.join(RELATIONS)}"
        )
    if image.prompt.category == "3d_spatial" and any(math.isnan(thing.depth) for thing in detections):
        raise ValueError(f"{image.where}: each object needs a 'depth', the mean of a depth map over its box")
    return spatial_score(image.truth, detections)


def _score_complex(image: ImageAnswers) -> float:
    parts = [image.number("attribute")]
    parts += [image.number(name) for name in ("spatial", "action") if name in image.row]
    if len(parts) == 1:
        raise ValueError(f"{image.where}: needs 'spatial', 'action' or both beside 'attribute'")
    return three_in_one(parts)


_RULES: dict[str, Callable[[ImageAnswers], float]] = {
    **dict.fromkeys(("color", "shape", "texture"), _score_attributes),
    **dict.fromkeys(("spatial", "3d_spatial"), _score_relation),
    "numeracy": lambda image: numeracy_score(image.truth, image.detections()),
    "non_spatial": lambda image: image.number("similarity"),
    "complex": _score_complex,
}
