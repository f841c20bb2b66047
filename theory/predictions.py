"""The lemmas applied to a model: changes of generation, of understanding through Bayes, and of the understanding head.

Shape suffixes: P probes; A alternative prompts of a probe, with the true prompt first; U training samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from theory import lemmas
from theory.conditions import require_conditions
from theory.contract import LogpFn, Source, checked_logps, sample_count, take
from theory.kernel import cross_gram
from theory.methods import Method
from theory.selection import Select


@dataclass(frozen=True)
class Probes:
    """Images whose log-likelihoods are measured through generation and through understanding.

    Attributes:
        generation: log pi(x | y) of an image given a prompt.
        alternatives: Batch for ``generation`` of P * A rows: A prompts for each image, with its own prompt first.
        n_alternatives: A, at least 2.
        understanding: log pi(y0 | x0) of the understanding head, and its batch of P rows.
    """

    generation: LogpFn
    alternatives: Any
    n_alternatives: int
    understanding: Source

    def __post_init__(self) -> None:
        rows, count = sample_count(self.alternatives), sample_count(self.understanding[1])
        if self.n_alternatives < 2 or rows != count * self.n_alternatives:
            raise ValueError(
                f"{rows} alternatives do not make {self.n_alternatives} prompts for each of {count} probes; "
                "pass P * A rows, at least 2 prompts a probe, its own first"
            )


@dataclass(frozen=True)
class Readings:
    """Log-likelihoods of the probes, or their changes, shape (P,) each, in nats.

    Attributes:
        generation: log pi(x0 | y0).
        bayes: log pi(y0 | x0) through Bayes over the alternatives.
        head: log pi(y0 | x0) of the understanding head.
    """

    generation: Tensor
    bayes: Tensor
    head: Tensor

    def since(self, before: Readings) -> Readings:
        """Return the change from ``before`` to these log-likelihoods."""
        return Readings(self.generation - before.generation, self.bayes - before.bayes, self.head - before.head)


def read(model: nn.Module, probes: Probes) -> Readings:
    """Measure the log-likelihoods of the probes, in float64.

    Args:
        model: The model, in eval mode.
        probes: Images to measure.

    Returns:
        The log-likelihoods.
    """
    require_conditions(model)
    logps_PA = _alternative_logps(model, probes)
    fn, batch = probes.understanding
    with torch.no_grad():
        head = checked_logps(fn(model, batch), sample_count(batch), 1)
    return Readings(logps_PA[:, 0], lemmas.bayes_logp(logps_PA), head.double())


def predict_sft(
    model: nn.Module,
    probes: Probes,
    train: Source,
    eta: float,
    select: Select = None,
    method: Method = "auto",
    dtype: torch.dtype | None = None,
) -> Readings:
    """Predict one SGD step on the mean negative log-likelihood: Lemmas 1 and 2, and the change of the head.

    Args:
        model: The model before the step, in eval mode.
        probes: P probes.
        train: Log-likelihood and batch of the U training samples.
        eta: Learning rate.
        select: The parameters that the step changes.
        method: How gradients are computed; see :data:`theory.methods.Method`.
        dtype: Dtype of the kernel.

    Returns:
        Predicted changes.
    """
    # SFT is a policy gradient in which every sample has advantage 1
    advantages_U = torch.ones(sample_count(train[1]), dtype=torch.float64)
    return predict_policy(model, probes, train, advantages_U, eta, select, method, dtype)


def predict_policy(
    model: nn.Module,
    probes: Probes,
    train: Source,
    advantages_U: Tensor,
    eta: float,
    select: Select = None,
    method: Method = "auto",
    dtype: torch.dtype | None = None,
) -> Readings:
    """Predict one SGD step of policy gradient: the changes of generation, of its Bayes posterior, and of the head.

    Args:
        model: The model before the step, in eval mode.
        probes: P probes.
        train: Log-likelihood and batch of the U sampled images.
        advantages_U: Their advantages, shape (U,).
        eta: Learning rate.
        select: The parameters that the step changes.
        method: How gradients are computed; see :data:`theory.methods.Method`.
        dtype: Dtype of the kernel.

    Returns:
        Predicted changes.
    """
    kernel = _probe_kernel(model, probes, train, select, method, dtype)
    posterior_PA = lemmas.posterior(_alternative_logps(model, probes))
    return Readings(
        lemmas.policy_generation(kernel.generation_PU, advantages_U, eta),
        lemmas.policy_understanding(kernel.alternatives_PAU, posterior_PA, advantages_U, eta),
        lemmas.policy_generation(kernel.head_PU, advantages_U, eta),
    )


def predict_dpo(
    model: nn.Module,
    probes: Probes,
    chosen: Source,
    rejected: Source,
    margins: Tensor,
    beta: float,
    eta: float,
    select: Select = None,
    method: Method = "auto",
    dtype: torch.dtype | None = None,
) -> Readings:
    """Predict one SGD step on the DPO loss: Lemmas 3 and 4, and the change of the head.

    Args:
        model: The policy before the step, in eval mode.
        probes: P probes.
        chosen: Log-likelihood and batch of the U chosen samples.
        rejected: Log-likelihood and batch of the U rejected samples.
        margins: alpha from :func:`theory.lemmas.dpo_margins`, before the step, shape (U,).
        beta: DPO's beta.
        eta: Learning rate.
        select: The parameters that the step changes.
        method: How gradients are computed; see :data:`theory.methods.Method`.
        dtype: Dtype of the kernel.

    Returns:
        Predicted changes.
    """
    up = _probe_kernel(model, probes, chosen, select, method, dtype)
    down = _probe_kernel(model, probes, rejected, select, method, dtype)
    posterior_PA = lemmas.posterior(_alternative_logps(model, probes))
    margins = margins.detach().to(up.head_PU)
    return Readings(
        lemmas.dpo_generation(up.generation_PU, down.generation_PU, margins, beta, eta),
        lemmas.dpo_understanding(up.alternatives_PAU, down.alternatives_PAU, margins, posterior_PA, beta, eta),
        lemmas.dpo_generation(up.head_PU, down.head_PU, margins, beta, eta),
    )


@dataclass(frozen=True)
class _ProbeKernel:
    """Inner products of the probes' gradients with those of the training samples.

    Attributes:
        alternatives_PAU: Of log pi(x0 | y_i), for the A prompts of each probe.
        head_PU: Of log pi(y0 | x0) of the understanding head.
    """

    alternatives_PAU: Tensor
    head_PU: Tensor

    @property
    def generation_PU(self) -> Tensor:
        """Of log pi(x0 | y0), the probe's own prompt."""
        return self.alternatives_PAU[:, 0]


def _probe_kernel(
    model: nn.Module, probes: Probes, train: Source, select: Select, method: Method, dtype: torch.dtype | None
) -> _ProbeKernel:
    kernel = cross_gram(model, (probes.generation, probes.alternatives), train, select, method, dtype)
    return _ProbeKernel(
        kernel.view(-1, probes.n_alternatives, kernel.shape[1]),
        cross_gram(model, probes.understanding, train, select, method, dtype),
    )


def _alternative_logps(model: nn.Module, probes: Probes, block: int = 64) -> Tensor:
    rows = sample_count(probes.alternatives)
    logps = []
    with torch.no_grad():
        for start in range(0, rows, block):
            part = take(probes.alternatives, slice(start, min(rows, start + block)))
            logps.append(checked_logps(probes.generation(model, part), sample_count(part), 0).double())
    return torch.cat(logps).view(-1, probes.n_alternatives)
