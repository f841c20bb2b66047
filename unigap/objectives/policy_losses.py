"""Losses of online learning as pure functions of log-probabilities, velocities and rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

# Shape legend: B images, M tokens of an image, C numbers of a token, N candidates of a group.

STD_FLOOR = 1e-4
"""Added to the standard deviation of a group, as TRL and the published code do."""
LEAST = 0.1
"""Smallest argument of a logarithm in ``nft_code_loss``; below, its tangent continues it."""

Baseline = Literal["group", "leave_one_out"]
RatioOf = Literal["token", "sequence", "image"]


@dataclass(frozen=True)
class PolicyTerms:
    """A policy-gradient loss and its figures.

    Attributes:
        loss: Mean over images, a scalar.
        ratio: Mean ratio of the policy to the one that acted.
        clipped: Share of ratios whose gradient the clip removes, in [0, 1].
    """

    loss: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def advantages(reward_N: torch.Tensor, baseline: Baseline = "group", scale_by_std: bool = True) -> torch.Tensor:
    """Return the advantages of the candidates of one group, shape (N,).

    Args:
        reward_N: Rewards, N >= 2.
        baseline: ``group`` subtracts the mean of the group (Shao et al. 2024), ``leave_one_out`` the mean of the others
            (RLOO, Ahmadian et al. 2024).
        scale_by_std: Divide by the standard deviation of the group; False is Dr. GRPO (Liu et al. 2025).
    """
    centred_N = reward_N - reward_N.mean()
    if baseline == "leave_one_out":
        centred_N = centred_N * len(reward_N) / (len(reward_N) - 1)
    return centred_N / (reward_N.std() + STD_FLOOR) if scale_by_std else centred_N


def policy_loss(
    logp_BM: torch.Tensor,
    behaviour_BM: torch.Tensor,
    advantage_B: torch.Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ratio_of: RatioOf = "token",
) -> PolicyTerms:
    """Return the clipped policy-gradient loss.

    All images have M tokens, so the mean over tokens and the fixed length of Dr. GRPO are the same.

    Args:
        logp_BM: Log-probability of each token under the policy, in nats; -inf where the policy never samples it.
        behaviour_BM: The same under the policy that acted.
        advantage_B: Advantages.
        clip_low: Ratios below 1 - clip_low give no gradient where the advantage is negative, > 0.
        clip_high: Ratios above 1 + clip_high give no gradient where it is positive, > 0.
        ratio_of: ``token``: one ratio a token (GRPO). ``sequence``: their geometric mean in each image (GSPO, Zheng et
            al. 2025). ``image``: their product, the ratio of the whole images (RLOO).
    """
    log_ratio = logp_BM - behaviour_BM
    if ratio_of != "token":
        log_ratio = log_ratio.mean(-1, keepdim=True) if ratio_of == "sequence" else log_ratio.sum(-1, keepdim=True)
    ratio, advantage_B1 = log_ratio.exp(), advantage_B[:, None]
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio * advantage_B1, clipped * advantage_B1).mean()
    with torch.no_grad():
        beyond = torch.where(advantage_B1 > 0, ratio > 1 + clip_high, ratio < 1 - clip_low)
        return PolicyTerms(loss, ratio.mean(), beyond.float().mean())


def k3(logp_BM: torch.Tensor, reference_BM: torch.Tensor) -> torch.Tensor:
    """Estimate KL(policy || reference) per token, a scalar >= 0 in nats, on samples of the policy (Schulman's k3).

    Args:
        logp_BM: Log-probability of each token under the policy, in nats; tokens that either filters out are left out.
        reference_BM: The same under the reference model.
    """
    seen_BM = logp_BM.isfinite() & reference_BM.isfinite()
    difference = (reference_BM - logp_BM)[seen_BM]
    return (difference.exp() - difference - 1).sum() / seen_BM.sum().clamp(min=1)


def nft_flow_loss(
    velocity_RMC: torch.Tensor,
    old_RMC: torch.Tensor,
    image_RMC: torch.Tensor,
    mixed_RMC: torch.Tensor,
    time_R: torch.Tensor,
    reward_R: torch.Tensor,
    beta: float = 1.0,
) -> torch.Tensor:
    """Return the loss of DiffusionNFT (arXiv 2509.16117), a scalar.

    The velocity defines one that good images should have, v+ = (1 - beta) v_old + beta v, and its reflection for bad
    images, v- = (1 + beta) v_old - beta v. Each predicts the image from x_t. The squared error counts with the reward
    or with 1 - reward, divided by the mean absolute error of the image.

    Args:
        velocity_RMC: Velocity of the policy at x_t, noise minus image.
        old_RMC: Velocity of the model that sampled the images, at the same x_t.
        image_RMC: The images.
        mixed_RMC: x_t = (1 - t) image + t noise.
        time_R: t, in (0, 1].
        reward_R: Probability that an image is good, in [0, 1].
        beta: Size of the step from the old model, > 0.
    """
    time_R11 = time_R[:, None, None]

    def error(implicit_RMC: torch.Tensor) -> torch.Tensor:
        difference = mixed_RMC - time_R11 * implicit_RMC - image_RMC
        weight_R = difference.detach().abs().mean((1, 2)).clamp(min=1e-5)
        return difference.square().mean((1, 2)) / weight_R

    step_RMC = beta * (velocity_RMC - old_RMC)
    return (reward_R * error(old_RMC + step_RMC) + (1 - reward_R) * error(old_RMC - step_RMC)).mean()


def nft_code_loss(
    logp_BM: torch.Tensor, old_BM: torch.Tensor, reward_B: torch.Tensor, beta: float = 1.0
) -> torch.Tensor:
    """Return the counterpart of DiffusionNFT for image codes, a scalar that is 0 at the old model.

    A velocity is linear in the distribution of images, and so is a probability: the old model is the mixture of the
    model of good images and that of bad ones, token by token. With p+ = (1 - beta) p_old + beta p and
    p- = (1 + beta) p_old - beta p in place of the velocities and the cross-entropy in place of the squared error, and
    rho = p / p_old of the sampled code, the loss is

        - r log(1 + beta (rho - 1)) - (1 - r) log(1 - beta (rho - 1)).

    Let q(c) be the mean reward of the images that go on with code c, with mean 1/2 under the old model. Then the
    minimum is at rho(c) = 1 + (2 q(c) - 1) / beta: the step of DiffusionNFT. At rho = 1 the gradient is that of
    REINFORCE with advantage beta (2 r - 1). Where p- would be negative, the tangent of the logarithm continues it.

    Args:
        logp_BM: Log-probability of each token under the policy, in nats.
        old_BM: The same under the model that sampled the images.
        reward_B: Probability that an image is good, in [0, 1].
        beta: Size of the step from the old model, > 0; a larger beta is a smaller step.
    """
    step_BM = beta * (torch.exp(logp_BM - old_BM) - 1)
    good_BM, bad_BM = _log(1 + step_BM), _log(1 - step_BM)
    reward_B1 = reward_B[:, None]
    return -(reward_B1 * good_BM + (1 - reward_B1) * bad_BM).mean()


def _log(x: torch.Tensor) -> torch.Tensor:
    """Return log x for x >= ``LEAST``, and its tangent there for smaller x."""
    above = x.clamp(min=LEAST)
    return above.log() + (x - above) / LEAST
