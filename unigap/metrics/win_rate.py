"""Win rate of a judge after training, with the controls that separate better ranking from a moved threshold.

Shapes: S images, each judged by the model before and after training.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from unigap.metrics.intervals import (
    Estimate,
    bootstrap_ratio,
    check_columns,
    paired_auroc_difference,
    paired_difference,
)
from unigap.metrics.scores import says_yes, share


@dataclass(frozen=True)
class WinRateResult:
    """Change of a judge, measured on a fixed set of images.

    Attributes:
        win_rate: Among the images on which the two judges disagree, the share on which the later one agrees with the
            external verdict (arXiv 2507.16663); n counts the disagreements. A drift of the threshold alone changes it.
        matched_win_rate: The same after resetting the later judge's threshold so that it says yes as often as the
            earlier one: only a better ranking increases it.
        delta_auroc: Change of the AUROC.
        delta_tpr: Change of P(yes | right).
        delta_tnr: Change of P(no | wrong).
        logit_change_true_positives: Mean change of the logit where the earlier judge rightly said yes, in nats.
        logit_change_false_positives: Mean change of the logit where the earlier judge wrongly said yes, in nats.
    """

    win_rate: Estimate
    matched_win_rate: Estimate
    delta_auroc: Estimate
    delta_tpr: Estimate
    delta_tnr: Estimate
    logit_change_true_positives: Estimate
    logit_change_false_positives: Estimate

    def to_dict(self) -> dict[str, dict[str, float | int | None]]:
        """Return every estimate as a dict, by name."""
        return {field.name: getattr(self, field.name).to_dict() for field in fields(self)}


def matched_yes(logit_S: Tensor, count: int) -> Tensor:
    """Say yes to the ``count`` highest logits, or as close to that number as ties allow.

    Args:
        logit_S: Log-odds of yes, shape (S,).
        count: Number of yes, in [0, S].

    Returns:
        Verdicts, bool, shape (S,).

    >>> matched_yes(torch.tensor([0.3, -2.0, 0.1, -1.0]), 3).tolist()
    [True, False, True, True]
    """
    cut_U = torch.cat([torch.unique(logit_S), logit_S.new_tensor([torch.inf])])
    yes_U = len(logit_S) - torch.searchsorted(logit_S.sort().values, cut_U)
    return logit_S >= cut_U[(yes_U - count).abs().argmin()]


def win_rate(
    logit_before_S: Tensor,
    logit_after_S: Tensor,
    truth_S: Tensor,
    prompt_S: Tensor,
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> WinRateResult:
    """Compare a judge before and after training on the same images.

    Args:
        logit_before_S: Log-odds of yes by the judge before training, finite, shape (S,).
        logit_after_S: Log-odds of yes by the judge after training, finite, shape (S,).
        truth_S: External verdict, bool, shape (S,).
        prompt_S: Integer prompt ids, which the bootstrap resamples, shape (S,).
        threshold: Smallest probability of yes that counts as yes, in (0, 1).
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The win rate and its controls. A part nothing speaks for, such as the win rate of two judges that never
        disagree, is nan with n = 0. The matched threshold is found once and held in the resamples.

    Raises:
        ValueError: If the threshold is out of range, shapes differ or values are not finite.

    >>> before_S, truth_S = torch.tensor([3.0, 1.0, 0.5, -1.0]), torch.tensor([True, True, False, False])
    >>> result = win_rate(before_S, before_S - 0.75, truth_S, torch.arange(4))  # the same judge, only stricter
    >>> print(result.win_rate, "|", result.matched_win_rate, "|", result.delta_auroc.value)
    1.000 [0.03, 1.00] n=1 | nan [nan, nan] n=0 | 0.0
    """
    columns = {"logit_before_S": logit_before_S, "logit_after_S": logit_after_S}
    check_columns({**columns, "truth_S": truth_S, "prompt_S": prompt_S})
    yes_before_S, yes_after_S = says_yes(logit_before_S, threshold), says_yes(logit_after_S, threshold)
    yes_matched_S = matched_yes(logit_after_S, int(yes_before_S.sum()))
    change_S = logit_after_S.double() - logit_before_S.double()

    def wins(yes_S: Tensor) -> Estimate:
        return share(yes_S == truth_S, yes_S != yes_before_S, prompt_S, resamples, seed)

    def change(hit_before_S: Tensor, hit_after_S: Tensor, counted_S: Tensor) -> Estimate:
        before, after = (hit_before_S & counted_S, counted_S, prompt_S), (hit_after_S & counted_S, counted_S, prompt_S)
        return paired_difference(before, after, resamples, seed)

    def mean_change(counted_S: Tensor) -> Estimate:
        return bootstrap_ratio(change_S * counted_S, counted_S, prompt_S, resamples, seed)

    auroc_arms = (logit_before_S, truth_S, prompt_S), (logit_after_S, truth_S, prompt_S)
    return WinRateResult(
        win_rate=wins(yes_after_S),
        matched_win_rate=wins(yes_matched_S),
        delta_auroc=paired_auroc_difference(*auroc_arms, resamples, seed),
        delta_tpr=change(yes_before_S, yes_after_S, truth_S),
        delta_tnr=change(~yes_before_S, ~yes_after_S, ~truth_S),
        logit_change_true_positives=mean_change(yes_before_S & truth_S),
        logit_change_false_positives=mean_change(yes_before_S & ~truth_S),
    )
