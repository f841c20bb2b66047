"""Means of scores, with bootstrap intervals that resample whole prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from unigap.evaluation.scoring.answers import Score
from unigap.metrics.intervals import Estimate, bootstrap_ratio
from unigap.metrics.scores import share


def by_tag(scores: Sequence[Score]) -> dict[str, Estimate]:
    """Return the mean of each tag, in the order of first occurrence."""
    tags = dict.fromkeys(score.tag for score in scores)
    return {tag: mean([score for score in scores if score.tag == tag]) for tag in tags}


def mean(scores: Sequence[Score]) -> Estimate:
    """Return the mean over images."""
    return _weighted(scores, [1.0] * len(scores))


def mean_of_tags(scores: Sequence[Score], shares: Mapping[str, float] | None = None) -> Estimate:
    """Return the mean of the tags' means.

    Args:
        scores: The scores.
        shares: Weight of each tag; None weighs all alike. Weights of the tags that occur are scaled to sum to 1.
    """
    sizes = Counter(score.tag for score in scores)
    return _weighted(scores, [(shares[score.tag] if shares else 1) / sizes[score.tag] for score in scores])


def _weighted(scores: Sequence[Score], weights: Sequence[float]) -> Estimate:
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(score.prompt for score in scores))}
    prompt_S = torch.tensor([number[score.prompt] for score in scores])
    value_S = torch.tensor([score.value for score in scores], dtype=torch.float64)
    if bool((value_S == 1).all()) or bool((value_S == 0).all()):  # a bootstrap would give an interval of width 0
        return share(value_S.bool(), torch.ones_like(value_S).bool(), prompt_S)
    weight_S = torch.tensor(weights, dtype=torch.float64)
    return bootstrap_ratio(value_S * weight_S, weight_S, prompt_S)
