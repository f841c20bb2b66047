"""WISE's WiScore (arXiv 2503.07265): consistency, realism and aesthetic quality, rated 0 to 2 by a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unigap.evaluation.scoring.answers import ImageAnswers, Score, is_number

WEIGHTS = {"consistency": 0.7, "realism": 0.2, "aesthetic": 0.1}
"""Weight of each rating."""
BEST = 2
"""The highest rating."""
SHARES = {"culture": 0.4, "time": 0.167, "space": 0.133, "biology": 0.1, "physics": 0.1, "chemistry": 0.1}
"""Weight of each category in the published overall score."""


def wiscore(ratings: Mapping[str, float]) -> float:
    """Return the weighted mean of the ratings, in [0, 1].

    >>> round(wiscore({"consistency": 2, "realism": 1, "aesthetic": 0}), 3)
    0.8
    """
    return sum(weight * ratings[name] for name, weight in WEIGHTS.items()) / BEST


def score_wise(images: Sequence[ImageAnswers]) -> list[Score]:
    """Score each image, tagged with the prompt's category.

    Raises:
        ValueError: A rating is missing or out of range, or a prompt is not WISE's.
    """
    scores = []
    for image in images:
        if image.prompt.category not in SHARES:
            raise ValueError(f"prompt {image.prompt.id!r} is not of WISE; give --prompts wise:FOLDER")
        scores.append(Score(image.cluster, image.prompt.category, wiscore(_ratings(image))))
    return scores


def _ratings(image: ImageAnswers) -> dict[str, float]:
    given = image.row.get("ratings")
    if not isinstance(given, dict):
        raise ValueError(f"{image.where}: needs 'ratings', an object with {', '.join(WEIGHTS)}")
    for name in WEIGHTS:
        if not is_number(given.get(name)) or not 0 <= given[name] <= BEST:
            raise ValueError(f"{image.where}: rating {name!r} must be between 0 and {BEST}, got {given.get(name)!r}")
    return {name: float(given[name]) for name in WEIGHTS}
