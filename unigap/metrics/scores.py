"""Pure scores of a judge and of what it judged: shares of samples, and the AUROC, each with its interval.

Shapes: S samples, each judged once. In every function ``logit_S`` is the model's own log-odds of "yes", finite;
``truth_S`` is the external verdict, bool; ``prompt_S`` is the integer id of the prompt, by which the bootstrap
resamples. ``threshold`` is a probability in (0, 1): the judge says yes where its p_yes reaches it. ``resamples`` and
``seed`` steer the bootstrap. All raise ValueError for a threshold out of range, unequal shapes or values not finite,
and give nan with n = 0 when no sample counts.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from unigap.loop.selection import threshold_logit
from unigap.metrics.intervals import CONFIDENCE, Estimate, bootstrap_auroc, bootstrap_ratio, check_columns


def says_yes(logit_S: Tensor, threshold: float = 0.5) -> Tensor:
    """Whether the judge says yes, bool, shape (S,)."""
    check_columns({"logit_S": logit_S})
    # float64, as selection compares: a float32 threshold would cut elsewhere
    return logit_S.double() >= threshold_logit(threshold)


def share(hit_S: Tensor, counted_S: Tensor, prompt_S: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Share of hits among the samples that count.

    Where all count as hits, or none, every resample gives the same share and the bootstrap would claim certainty.
    There the open end of the interval is the exact binomial one for as many trials as there are prompts.

    Args:
        hit_S: Whether the sample is a hit, bool, shape (S,).
        counted_S: Whether the sample counts at all, bool, shape (S,).
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
    """Share of images the judge says yes to; n counts all samples.

    >>> yes_rate(torch.tensor([2.0, -1.0, 0.5, 3.0]), torch.arange(4)).value
    0.75
    """
    return share(says_yes(logit_S, threshold), torch.ones_like(logit_S).bool(), prompt_S, resamples, seed)


def non_unification_score(
    logit_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Share of a model's own images that its own understanding says no to (arXiv 2507.16663); n counts all samples.

    >>> non_unification_score(torch.tensor([2.0, -1.0, 0.5, 3.0]), torch.arange(4)).value
    0.25
    """
    return share(~says_yes(logit_S, threshold), torch.ones_like(logit_S).bool(), prompt_S, resamples, seed)


def generation_accuracy(truth_S: Tensor, prompt_S: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Share of images the external verdict finds right; n counts all samples.

    >>> generation_accuracy(torch.tensor([True, False, True, False]), torch.arange(4)).value
    0.5
    """
    return share(truth_S, torch.ones_like(truth_S).bool(), prompt_S, resamples, seed)


def weak_generation_share(
    logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """P(external verdict: wrong | own judge: no): how far the gap is weak generation rather than weak understanding.

    The definition is that of arXiv 2507.16663; n is the number of images the judge said no to.

    >>> weak_generation_share(torch.tensor([2.0, -1.0, -2.0]), torch.tensor([True, False, True]), torch.arange(3)).value
    0.5
    """
    return share(~truth_S, ~says_yes(logit_S, threshold), prompt_S, resamples, seed)


def judge_precision(
    logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """P(external verdict: right | judge: yes), what a pool of accepted images is worth; n counts the judge's yes.

    >>> judge_precision(torch.tensor([2.0, 1.0, -2.0]), torch.tensor([True, False, True]), torch.arange(3)).value
    0.5
    """
    return share(truth_S, says_yes(logit_S, threshold), prompt_S, resamples, seed)


def judge_accuracy(
    logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Share of images on which the judge agrees with the external verdict; n counts all samples.

    >>> judge_accuracy(torch.tensor([2.0, -1.0]), torch.tensor([True, False]), torch.arange(2)).value
    1.0
    """
    check_columns({"logit_S": logit_S, "truth_S": truth_S})
    return share(says_yes(logit_S, threshold) == truth_S, torch.ones_like(truth_S).bool(), prompt_S, resamples, seed)


def true_positive_rate(
    logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """P(judge: yes | external verdict: right); n is the number of images that are right.

    >>> true_positive_rate(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([True, True, False]), torch.arange(3)).value
    0.5
    """
    return share(says_yes(logit_S, threshold), truth_S, prompt_S, resamples, seed)


def true_negative_rate(
    logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, threshold: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """P(judge: no | external verdict: wrong); n is the number of images that are wrong.

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
    """Probability that the judge ranks a right image above a wrong one, whatever its threshold; n counts all samples.

    With ``stratum_S``, integer ids of shape (S,), it ranks only images of one stratum (category) against each other.

    >>> auroc(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([True, False, False]), torch.arange(3)).value
    0.5
    """
    return bootstrap_auroc(logit_S, truth_S, prompt_S, resamples, seed, stratum_S)


def brier_score(logit_S: Tensor, truth_S: Tensor, prompt_S: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Mean squared distance of p_yes from the truth, in [0, 1]: 0 is certain and right; n counts all samples.

    >>> brier_score(torch.tensor([0.0, 0.0]), torch.tensor([True, False]), torch.arange(2)).value
    0.25
    """
    check_columns({"logit_S": logit_S, "truth_S": truth_S, "prompt_S": prompt_S})
    return bootstrap_ratio(squared_error(logit_S, truth_S), torch.ones_like(logit_S), prompt_S, resamples, seed)


def squared_error(logit_S: Tensor, truth_S: Tensor) -> Tensor:
    """Squared distance of p_yes from the truth, float64, shape (S,), in [0, 1]."""
    return (logit_S.double().sigmoid() - truth_S.double()).square()
