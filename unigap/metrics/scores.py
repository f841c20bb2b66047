"""Scores of a judge and of the judged images: shares of samples, AUROC and Brier score, each with its interval.

Shapes: S samples, each judged once. In every function ``logit_S`` is the model's own log-odds of "yes", finite;
``truth_S`` is the external verdict, bool; ``prompt_S`` is the integer id of the prompt. The bootstrap draws
``resamples`` resamples of whole prompts from ``seed``. ``threshold`` is the smallest probability of yes that counts as
yes, in (0, 1). All functions raise ValueError for a threshold out of range, unequal shapes or values that are not
finite, and return nan with n = 0 when no sample counts.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from unigap.loop.selection import threshold_logit
from unigap.metrics.intervals import CONFIDENCE, Estimate, bootstrap_auroc, bootstrap_ratio, check_columns


def says_yes(logit_S: Tensor, threshold: float = 0.5) -> Tensor:
    """Return whether the judge says yes, bool, shape (S,)."""
    check_columns({"logit_S": logit_S})
    # float64, as in selection: a float32 threshold would cut elsewhere
    return logit_S.double() >= threshold_logit(threshold)


def share(hit_S: Tensor, counted_S: Tensor, prompt_S: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return the share of hits among the samples that count.

    If all samples or none are hits, every resample gives the same share and the bootstrap would claim certainty. Then
    the open end of the interval is the exact binomial one for as many trials as there are prompts.

    Args:
        hit_S: Whether the sample is a hit, bool, shape (S,).
        counted_S: Whether the sample counts, bool, shape (S,).
        prompt_S: Prompt ids, shape (S,).
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The share in [0, 1]; n is the number of samples that count.

    >>> print(share(torch.ones(20).bool(), torch.ones(20).bool(), torch.arange(20)))
    1.000 [0.83, 1.00] n=20
    """
    check_columns({"hit_S": hit_S, "counted_S": counted_S, "prompt_S": prompt_S})
    if hit_S.dtype != torch.bool or counted_S.dtype != torch.bool:
        raise ValueError(f"verdicts must be bool, got {hit_S.dtype} and {counted_S.dtype}; call .bool() on them")
    estimate = bootstrap_ratio(hit_S & counted_S, counted_S, prompt_S, resamples, seed)
    if estimate.value not in (0.0, 1.0):
        return estimate
    margin = 1 - ((1 - CONFIDENCE) / 2) ** (1 / torch.unique(prompt_S[counted_S]).numel())
    return replace(estimate, low=max(0.0, estimate.value - margin), high=min(1.0, estimate.value + margin))


def yes_rate(
    logit_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return the share of images that the judge accepts; n counts all samples.

    >>> yes_rate(torch.tensor([2.0, -1.0, 0.5, 3.0]), torch.arange(4)).value
    0.75
    """
    return share(says_yes(logit_S, threshold), torch.ones_like(logit_S).bool(), prompt_S, resamples, seed)


def non_unification_score(
    logit_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return the share of a model's own images that its judge rejects (arXiv 2507.16663); n counts all samples.

    >>> non_unification_score(torch.tensor([2.0, -1.0, 0.5, 3.0]), torch.arange(4)).value
    0.25
    """
    return share(~says_yes(logit_S, threshold), torch.ones_like(logit_S).bool(), prompt_S, resamples, seed)


def generation_accuracy(truth_S: Tensor, prompt_S: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return the share of images that the external judge accepts; n counts all samples.

    >>> generation_accuracy(torch.tensor([True, False, True, False]), torch.arange(4)).value
    0.5
    """
    return share(truth_S, torch.ones_like(truth_S).bool(), prompt_S, resamples, seed)


def weak_generation_share(
    logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return P(external verdict: wrong | own judge: no): the part of the gap that is weak generation.

    The rest is weak understanding. Defined in arXiv 2507.16663; n counts the images that the own judge rejects.

    >>> weak_generation_share(torch.tensor([2.0, -1.0, -2.0]), torch.tensor([True, False, True]), torch.arange(3)).value
    0.5
    """
    return share(~truth_S, ~says_yes(logit_S, threshold), prompt_S, resamples, seed)


def judge_precision(
    logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return P(external verdict: right | judge: yes), the quality of accepted images; n counts the accepted images.

    >>> judge_precision(torch.tensor([2.0, 1.0, -2.0]), torch.tensor([True, False, True]), torch.arange(3)).value
    0.5
    """
    return share(truth_S, says_yes(logit_S, threshold), prompt_S, resamples, seed)


def judge_accuracy(
    logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return the share of images on which the judge agrees with the external verdict; n counts all samples.

    >>> judge_accuracy(torch.tensor([2.0, -1.0]), torch.tensor([True, False]), torch.arange(2)).value
    1.0
    """
    check_columns({"logit_S": logit_S, "truth_S": truth_S})
    return share(says_yes(logit_S, threshold) == truth_S, torch.ones_like(truth_S).bool(), prompt_S, resamples, seed)


def true_positive_rate(
    logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return P(judge: yes | external verdict: right); n counts the right images.

    >>> true_positive_rate(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([True, True, False]), torch.arange(3)).value
    0.5
    """
    return share(says_yes(logit_S, threshold), truth_S, prompt_S, resamples, seed)


def true_negative_rate(
    logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return P(judge: no | external verdict: wrong); n counts the wrong images.

    >>> true_negative_rate(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([True, False, False]), torch.arange(3)).value
    0.5
    """
    return share(~says_yes(logit_S, threshold), ~truth_S, prompt_S, resamples, seed)


def auroc(
    logit_S: Tensor,
    truth_S: Tensor,
    prompt_S: Tensor,
    resamples: int = 1000,
    seed: int = 0,
    stratum_S: Tensor | None = None,
) -> Estimate:
    """Return the probability that a right image gets a higher logit than a wrong one; n counts all samples.

    With ``stratum_S``, integer ids of shape (S,), only images of one stratum (category) are compared.

    >>> auroc(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([True, False, False]), torch.arange(3)).value
    0.5
    """
    return bootstrap_auroc(logit_S, truth_S, prompt_S, resamples, seed, stratum_S)


def brier_score(logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return the mean squared error of the probability of yes, in [0, 1]; n counts all samples.

    >>> brier_score(torch.tensor([0.0, 0.0]), torch.tensor([True, False]), torch.arange(2)).value
    0.25
    """
    check_columns({"logit_S": logit_S, "truth_S": truth_S, "prompt_S": prompt_S})
    return bootstrap_ratio(squared_error(logit_S, truth_S), torch.ones_like(logit_S), prompt_S, resamples, seed)


def squared_error(logit_S: Tensor, truth_S: Tensor) -> Tensor:
    """Return the squared error of the probability of yes, float64, shape (S,), in [0, 1]."""
    return (logit_S.double().sigmoid() - truth_S.double()).square()
