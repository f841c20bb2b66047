"""The metrics of the gap as torchmetrics classes, one for each function of `unigap.metrics.scores`.

They are exact under several processes and have an interval and a plot.

Shapes: B samples of one update. Every update takes ``prompt_B``, int64 prompt ids that the bootstrap resamples, and
``sample_B``, int64 sample ids, so that a sample repeated by a padded distributed sampler counts once. Other arguments:
``logit_B``, the model's own log-odds of "yes", floating point and finite; ``truth_B``, the external verdict, bool. An
update raises ValueError for unequal shapes, wrong dtypes and values that are not finite. ``compute`` returns an
`Estimate`; it is nan with n = 0 when no sample counts.
"""

from __future__ import annotations

from abc import ABC
from typing import Any

from torch import Tensor

from unigap.loop.selection import threshold_logit
from unigap.metrics.intervals import Estimate
from unigap.metrics.sample_metric import SampleMetric
from unigap.metrics.scores import (
    auroc,
    generation_accuracy,
    judge_accuracy,
    judge_precision,
    non_unification_score,
    true_negative_rate,
    true_positive_rate,
    weak_generation_share,
    yes_rate,
)
from unigap.metrics.win_rate import WinRateResult, win_rate


class EstimateMetric(SampleMetric, ABC):
    """A metric whose result is one `Estimate`."""

    def bars(self, result: Estimate) -> dict[str, Estimate]:
        """Return the estimate, labelled with the metric's name."""
        return {type(self).__name__: result}


class ThresholdMetric(SampleMetric, ABC):
    """A metric of a judge's yes or no.

    Args:
        threshold: Smallest probability of yes that counts as yes, in (0, 1).
        resamples: Number of bootstrap resamples for the interval, >= 1.
        seed: Seed of the bootstrap.
        kwargs: Passed on to ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``threshold`` is not strictly between 0 and 1, or ``resamples`` is below 1.
    """

    def __init__(self, threshold: float = 0.5, resamples: int = 1000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(resamples, seed, **kwargs)
        threshold_logit(threshold)
        self.options["threshold"] = threshold


class VerdictMetric(EstimateMetric, ThresholdMetric, ABC):
    """A metric of the judge's verdicts alone."""

    columns = ("logit",)

    def update(self, logit_B: Tensor, prompt_B: Tensor, sample_B: Tensor) -> None:
        """Add a batch of judged samples."""
        self.record(logit_B=logit_B, prompt_B=prompt_B, sample_B=sample_B)


class AgreementMetric(EstimateMetric, ThresholdMetric, ABC):
    """A metric of the judge's verdicts compared with the external verdicts."""

    columns = ("logit", "truth")

    def update(self, logit_B: Tensor, truth_B: Tensor, prompt_B: Tensor, sample_B: Tensor) -> None:
        """Add a batch of samples judged by both."""
        self.record(logit_B=logit_B, truth_B=truth_B, prompt_B=prompt_B, sample_B=sample_B)


class NonUnificationScore(VerdictMetric):
    """Share of a model's generated images that its own judge rejects (arXiv 2507.16663).

    >>> import torch
    >>> metric = NonUnificationScore()
    >>> metric.update(torch.tensor([2.0, -1.0, 0.5, 3.0]), prompt_B=torch.arange(4), sample_B=torch.arange(4))
    >>> print(metric.compute())
    0.250 [0.00, 0.75] n=4
    """

    higher_is_better = False
    score = staticmethod(non_unification_score)


class YesRate(VerdictMetric):
    """Share of images that the judge accepts.

    >>> import torch
    >>> metric = YesRate(threshold=0.9)
    >>> metric.update(torch.tensor([2.0, -1.0, 0.5, 3.0]), prompt_B=torch.arange(4), sample_B=torch.arange(4))
    >>> metric.compute().value
    0.25
    """

    higher_is_better = None
    score = staticmethod(yes_rate)


class GenerationAccuracy(EstimateMetric):
    """Share of images that the external judge accepts.

    >>> import torch
    >>> metric = GenerationAccuracy()
    >>> metric.update(torch.tensor([True, False]), prompt_B=torch.arange(2), sample_B=torch.arange(2))
    >>> metric.update(torch.tensor([False]), prompt_B=torch.tensor([1]), sample_B=torch.tensor([1]))  # repeated
    >>> metric.compute().value
    0.5
    """

    higher_is_better = True
    columns = ("truth",)
    score = staticmethod(generation_accuracy)

    def update(self, truth_B: Tensor, prompt_B: Tensor, sample_B: Tensor) -> None:
        """Add a batch of externally judged samples."""
        self.record(truth_B=truth_B, prompt_B=prompt_B, sample_B=sample_B)


class WeakGenerationShare(AgreementMetric):
    """P(external verdict: wrong | own judge: no) (arXiv 2507.16663); n counts the rejected images.

    >>> import torch
    >>> metric, ids_B = WeakGenerationShare(), torch.arange(3)
    >>> metric.update(torch.tensor([2.0, -1.0, -2.0]), torch.tensor([True, False, True]), ids_B, ids_B)
    >>> metric.compute().value
    0.5
    """

    higher_is_better = None
    score = staticmethod(weak_generation_share)


class JudgePrecision(AgreementMetric):
    """P(external verdict: right | judge: yes); n counts the accepted images.

    >>> import torch
    >>> metric, ids_B = JudgePrecision(), torch.arange(3)
    >>> metric.update(torch.tensor([2.0, 1.0, -2.0]), torch.tensor([True, False, True]), ids_B, ids_B)
    >>> metric.compute().value
    0.5
    """

    higher_is_better = True
    score = staticmethod(judge_precision)


class JudgeAccuracy(AgreementMetric):
    """Share of images on which the judge agrees with the external verdict.

    >>> import torch
    >>> metric, ids_B = JudgeAccuracy(), torch.arange(2)
    >>> metric.update(torch.tensor([2.0, -1.0]), torch.tensor([True, True]), ids_B, ids_B)
    >>> metric.compute().value
    0.5
    """

    higher_is_better = True
    score = staticmethod(judge_accuracy)


class TruePositiveRate(AgreementMetric):
    """P(judge: yes | external verdict: right); n counts the right images.

    >>> import torch
    >>> metric, ids_B = TruePositiveRate(), torch.arange(3)
    >>> metric.update(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([True, True, False]), ids_B, ids_B)
    >>> metric.compute().value
    0.5
    """

    higher_is_better = True
    score = staticmethod(true_positive_rate)


class TrueNegativeRate(AgreementMetric):
    """P(judge: no | external verdict: wrong); n counts the wrong images.

    >>> import torch
    >>> metric, ids_B = TrueNegativeRate(), torch.arange(3)
    >>> metric.update(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([True, False, False]), ids_B, ids_B)
    >>> metric.compute().value
    0.5
    """

    higher_is_better = True
    score = staticmethod(true_negative_rate)


class Auroc(EstimateMetric):
    """Probability that a right image gets a higher logit than a wrong one; independent of the threshold.

    >>> import torch
    >>> metric, ids_B = Auroc(), torch.arange(3)
    >>> metric.update(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([True, False, False]), ids_B, ids_B)
    >>> metric.compute().value
    0.5
    """

    higher_is_better = True
    columns = ("logit", "truth")
    score = staticmethod(auroc)

    def update(self, logit_B: Tensor, truth_B: Tensor, prompt_B: Tensor, sample_B: Tensor) -> None:
        """Add a batch of samples judged by both."""
        self.record(logit_B=logit_B, truth_B=truth_B, prompt_B=prompt_B, sample_B=sample_B)


class WinRate(ThresholdMetric):
    """Judges before and after training on the same images: the paper's win rate and the controls it needs.

    >>> import torch
    >>> metric, ids_B = WinRate(), torch.arange(4)
    >>> before_B, truth_B = torch.tensor([3.0, 1.0, 0.5, -1.0]), torch.tensor([True, True, False, False])
    >>> metric.update(before_B, before_B - 0.75, truth_B, ids_B, ids_B)  # the same judge, only stricter
    >>> result = metric.compute()
    >>> result.win_rate.value, result.matched_win_rate.n, result.delta_auroc.value
    (1.0, 0, 0.0)
    """

    higher_is_better = True
    columns = ("logit_before", "logit_after", "truth")
    score = staticmethod(win_rate)

    def update(
        self, logit_before_B: Tensor, logit_after_B: Tensor, truth_B: Tensor, prompt_B: Tensor, sample_B: Tensor
    ) -> None:
        """Add a batch of images judged before and after training."""
        batch = {"logit_before_B": logit_before_B, "logit_after_B": logit_after_B, "truth_B": truth_B}
        self.record(**batch, prompt_B=prompt_B, sample_B=sample_B)

    def bars(self, result: WinRateResult) -> dict[str, Estimate]:
        """Return the win rate and its matched form."""
        return {"win rate": result.win_rate, "matched win rate": result.matched_win_rate}
