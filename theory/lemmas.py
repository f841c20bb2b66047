"""The paper's lemmas on one training step, as sums of kernel entries.

The paper writes each change as a sum over token positions of residual^T K residual. Contracted, each such sum is the
inner product of two gradients of sequence log-likelihoods. These functions take those inner products.

Shape suffixes: P probes; A alternative prompts of a probe, with the true prompt y0 first; U training samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sft_generation(kernel_PU: Tensor, eta: float, weights_U: Tensor | None = None) -> Tensor:
    """Lemma 1: change of log pi(x0 | y0) under one SGD step on the negative log-likelihood of the training samples.

    Delta G(x0 | Y0) = eta sum_u w_u <grad log pi(x0 | Y0), grad log pi(x_u | Y_u)> + O(eta^2).

    If the probes are log-likelihoods log pi(y0 | X0) of the understanding head, the sum is the change of that head.

    Args:
        kernel_PU: Inner products of probe gradients with training gradients, shape (P, U).
        eta: Learning rate.
        weights_U: Weight of each sample in the loss, shape (U,); None for the mean.

    Returns:
        Predicted changes, shape (P,), in nats.
    """
    return eta * kernel_PU @ _loss_weights(kernel_PU, weights_U)


def sft_understanding(kernel_PAU: Tensor, posterior_PA: Tensor, eta: float, weights_U: Tensor | None = None) -> Tensor:
    """Lemma 2: change of log pi(y0 | x0) through Bayes, log pi(y0 | x0) = log pi(x0 | y0) - log pi(x0) + C.

    Delta U = eta sum_u w_u sum_{i != 0} w(y_i | x0) [K(x0 | y0, u) - K(x0 | y_i, u)] + O(eta^2), the kernels between
    gradients of log pi(x0 | y_i) and of training sample u.

    Args:
        kernel_PAU: Inner products of gradients of log pi(x0 | y_i) with training gradients, shape (P, A, U).
        posterior_PA: w(y_i | x0) from :func:`posterior`, shape (P, A).
        eta: Learning rate.
        weights_U: Weight of each sample in the loss, shape (U,); None for the mean.

    Returns:
        Predicted changes, shape (P,), in nats.
    """
    return eta * _through_bayes(kernel_PAU, posterior_PA) @ _loss_weights(kernel_PAU, weights_U)


def dpo_generation(
    chosen_PU: Tensor,
    rejected_PU: Tensor,
    margins_U: Tensor,
    beta: float,
    eta: float,
    weights_U: Tensor | None = None,
) -> Tensor:
    """Lemma 3: change of log pi(x0 | y0) under one SGD step on the DPO loss.

    Delta G = eta beta sum_u w_u sigma(-alpha_u) [K(x0, chosen_u) - K(x0, rejected_u)] + O(eta^2).

    Args:
        chosen_PU: Inner products of probe gradients with gradients of the chosen samples, shape (P, U).
        rejected_PU: The same with gradients of the rejected samples, shape (P, U).
        margins_U: alpha from :func:`dpo_margins`, before the step, shape (U,).
        beta: DPO's beta.
        eta: Learning rate.
        weights_U: Weight of each pair in the loss, shape (U,); None for the mean.

    Returns:
        Predicted changes, shape (P,), in nats.
    """
    pull_U = beta * torch.sigmoid(-margins_U) * _loss_weights(chosen_PU, weights_U)
    return eta * (chosen_PU - rejected_PU) @ pull_U


def dpo_understanding(
    chosen_PAU: Tensor,
    rejected_PAU: Tensor,
    margins_U: Tensor,
    posterior_PA: Tensor,
    beta: float,
    eta: float,
    weights_U: Tensor | None = None,
) -> Tensor:
    """Lemma 4: change of log pi(y0 | x0) through Bayes, as in Lemma 2, under one SGD step on the DPO loss.

    Args:
        chosen_PAU: Inner products of gradients of log pi(x0 | y_i) with gradients of the chosen samples, shape
            (P, A, U).
        rejected_PAU: The same with gradients of the rejected samples, shape (P, A, U).
        margins_U: alpha from :func:`dpo_margins`, before the step, shape (U,).
        posterior_PA: w(y_i | x0) from :func:`posterior`, shape (P, A).
        beta: DPO's beta.
        eta: Learning rate.
        weights_U: Weight of each pair in the loss, shape (U,); None for the mean.

    Returns:
        Predicted changes, shape (P,), in nats.
    """
    chosen_PU, rejected_PU = _through_bayes(chosen_PAU, posterior_PA), _through_bayes(rejected_PAU, posterior_PA)
    return dpo_generation(chosen_PU, rejected_PU, margins_U, beta, eta, weights_U)


def policy_generation(kernel_PU: Tensor, advantages_U: Tensor, eta: float) -> Tensor:
    """Predict the change of log pi(x0 | y0) under one SGD step of policy gradient: Lemma 1 with advantages as weights.

    Delta G = eta / U sum_u A_u <grad log pi(x0 | Y0), grad log pi(x_u | Y_u)> + O(eta^2), for the loss
    -1 / U sum_u A_u log pi(x_u | Y_u). This is the gradient of REINFORCE, and that of GRPO and its variants where the
    policy is the one that acted; elsewhere pass A_u times the ratio of the policies. A loss per token divides the
    change by the number of tokens.

    If the probes are log-likelihoods or log-odds of the understanding head, the sum is the change of that head, the
    judge.

    Args:
        kernel_PU: Inner products of probe gradients with training gradients, shape (P, U).
        advantages_U: Advantage of each sample, of any sign, shape (U,).
        eta: Learning rate.

    Returns:
        Predicted changes, shape (P,), in nats.
    """
    return sft_generation(kernel_PU, eta, advantages_U / len(advantages_U))


def policy_understanding(kernel_PAU: Tensor, posterior_PA: Tensor, advantages_U: Tensor, eta: float) -> Tensor:
    """Predict the change of log pi(y0 | x0) through Bayes, as in Lemma 2, under one SGD step of policy gradient.

    Args:
        kernel_PAU: Inner products of gradients of log pi(x0 | y_i) with training gradients, shape (P, A, U).
        posterior_PA: w(y_i | x0) from :func:`posterior`, shape (P, A).
        advantages_U: Advantage of each sample, shape (U,).
        eta: Learning rate.

    Returns:
        Predicted changes, shape (P,), in nats.
    """
    return sft_understanding(kernel_PAU, posterior_PA, eta, advantages_U / len(advantages_U))


def posterior(logps_PA: Tensor) -> Tensor:
    """Return the posterior over the alternative prompts, w(y_i | x0) = pi(x0 | y_i) / sum_j pi(x0 | y_j).

    Args:
        logps_PA: log pi(x0 | y_i), shape (P, A), with the true prompt first.

    Returns:
        Probabilities, shape (P, A); each row sums to 1.

    Raises:
        ValueError: If there are fewer than two alternatives: the posterior would be 1 and could not change.
    """
    _need_alternatives(logps_PA)
    return logps_PA.softmax(-1)


def bayes_logp(logps_PA: Tensor) -> Tensor:
    """Return log pi(y0 | x0) through Bayes with a uniform prior over the alternatives, up to the constant of Lemma 2.

    Args:
        logps_PA: log pi(x0 | y_i), shape (P, A), with the true prompt first.

    Returns:
        Log-probabilities of the true prompt, shape (P,), in nats.
    """
    _need_alternatives(logps_PA)
    return logps_PA.log_softmax(-1)[:, 0]


def dpo_margins(
    chosen_U: Tensor, rejected_U: Tensor, ref_chosen_U: Tensor, ref_rejected_U: Tensor, beta: float
) -> Tensor:
    """Return the DPO margin alpha = beta [(log pi - log pi_ref)(chosen) - (log pi - log pi_ref)(rejected)].

    Args:
        chosen_U: Log-likelihoods of the chosen samples under the policy, shape (U,).
        rejected_U: The same of the rejected samples.
        ref_chosen_U: Log-likelihoods of the chosen samples under the reference model.
        ref_rejected_U: The same of the rejected samples.
        beta: DPO's beta.

    Returns:
        Margins, shape (U,).
    """
    return beta * ((chosen_U - ref_chosen_U) - (rejected_U - ref_rejected_U))


def dpo_loss(margins_U: Tensor) -> Tensor:
    """Return the loss of the step in Lemmas 3 and 4: the mean of -log sigma(alpha).

    Args:
        margins_U: alpha from :func:`dpo_margins`, shape (U,).

    Returns:
        The loss, a scalar; log 2 if policy and reference model are equal.
    """
    return -F.logsigmoid(margins_U).mean()


def _through_bayes(kernel_PAU: Tensor, posterior_PA: Tensor) -> Tensor:
    if kernel_PAU.ndim != 3 or kernel_PAU.shape[:2] != posterior_PA.shape:
        raise ValueError(
            f"a kernel of shape {tuple(kernel_PAU.shape)} does not fit a posterior of shape "
            f"{tuple(posterior_PA.shape)}; they need (P, A, U) and (P, A)"
        )
    _need_alternatives(posterior_PA)
    others = posterior_PA[:, 1:].to(kernel_PAU)
    return torch.einsum("pa,pau->pu", others, kernel_PAU[:, :1] - kernel_PAU[:, 1:])


def _loss_weights(kernel: Tensor, weights_U: Tensor | None) -> Tensor:
    count = kernel.shape[-1]
    if weights_U is None:
        return kernel.new_full((count,), 1 / count)
    if weights_U.shape != (count,):
        raise ValueError(f"weights have shape {tuple(weights_U.shape)} for {count} training samples; pass ({count},)")
    return weights_U.to(kernel)


def _need_alternatives(table_PA: Tensor) -> None:
    if table_PA.ndim != 2 or table_PA.shape[1] < 2:
        raise ValueError(
            f"alternatives have shape {tuple(table_PA.shape)}; pass (P, A) with the true prompt first and at least "
            "one other prompt"
        )
