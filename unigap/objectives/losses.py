"""The training losses as pure functions of log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

# Shape legend: B images or pairs, M image tokens.


def sft_loss(logp_BM: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood per image token, a scalar in nats (Algorithm 1, SFT)."""
    return -logp_BM.mean()


def kl_to_base(logp_B: torch.Tensor, base_logp_B: torch.Tensor) -> torch.Tensor:
    """KL(base || policy) of whole images to second order, a scalar in nats, on images the base drew.

    Half the mean squared log-ratio (Schulman's k2). The mean of log base - log policy (k1) has no bias at all, but on
    drawings that come again in every epoch it has no lower bound either: its gradient is that of their likelihood, and
    learns them by heart. The square has the divergence's value and gradient up to third and second order in the
    log-ratio, and is least, 0, exactly where the policy gives each drawing the likelihood it had.

    The drawings must not have been selected: over those a judge accepted, neither this nor another mean of log-ratios
    estimates a divergence of policy and base, in either direction.

    Args:
        logp_B: Policy log-likelihood of each image, summed over its tokens, in nats.
        base_logp_B: The same under the base, which sampled them at temperature 1 without guidance or filters.
    """
    return (logp_B - base_logp_B).square().mean() / 2


@dataclass(frozen=True)
class PreferenceTerms:
    """What a preference loss is made of.

    Attributes:
        loss: Mean over pairs, a scalar.
        margin_B: beta times the chosen-minus-rejected log-ratio to the reference, in nats.
        chosen_B: Policy minus reference log-likelihood of the chosen image.
        rejected_B: The same of the rejected image.
    """

    loss: torch.Tensor
    margin_B: torch.Tensor
    chosen_B: torch.Tensor
    rejected_B: torch.Tensor

    @property
    def accuracy(self) -> torch.Tensor:
        """Share of pairs with a positive margin, in [0, 1]."""
        return (self.margin_B > 0).float().mean()


PreferenceLoss = Literal["sigmoid", "robust", "ipo"]
"""Names of the preference losses, as in TRL."""


def dpo_loss(
    chosen_logp_B: torch.Tensor,
    rejected_logp_B: torch.Tensor,
    chosen_reference_B: torch.Tensor,
    rejected_reference_B: torch.Tensor,
    beta: float = 0.1,
    kind: PreferenceLoss = "sigmoid",
    label_smoothing: float = 0.0,
) -> PreferenceTerms:
    """Direct preference optimisation and its kin.

    ``sigmoid`` is -log sigmoid(margin) (Rafailov et al. 2023), ln 2 where policy and reference agree; with label
    smoothing e it is (1 - e) * -log sigmoid(margin) + e * -log sigmoid(-margin), conservative DPO (Mitchell 2023).
    ``robust`` is unbiased where a share e of the preferences is flipped (Chowdhury et al. 2024). ``ipo`` is
    (log-ratio - 1 / (2 beta))^2 (Azar et al. 2023), which stops pulling once the margin is reached. TRL's ``ipo`` is
    this function of log-likelihoods divided by the number of tokens; pass those, as the ``DPO`` objective does.

    Args:
        chosen_logp_B: Policy log-likelihood of each chosen image, summed over its tokens, in nats.
        rejected_logp_B: The same for the rejected images.
        chosen_reference_B: Reference log-likelihood of the chosen images.
        rejected_reference_B: The same for the rejected images.
        beta: Strength of the pull towards the reference, > 0.
        kind: Which loss.
        label_smoothing: Share e of preferences taken to be flipped, in [0, 0.5); ``ipo`` has none.
    """
    chosen_B = chosen_logp_B - chosen_reference_B
    rejected_B = rejected_logp_B - rejected_reference_B
    margin_B = beta * (chosen_B - rejected_B)
    right_B, flipped_B = -F.logsigmoid(margin_B), -F.logsigmoid(-margin_B)
    e = label_smoothing
    if kind == "ipo":
        loss_B = (margin_B / beta - 1 / (2 * beta)) ** 2
    elif kind == "robust":
        loss_B = ((1 - e) * right_B - e * flipped_B) / (1 - 2 * e)
    else:
        loss_B = (1 - e) * right_B + e * flipped_B
    return PreferenceTerms(loss_B.mean(), margin_B.detach(), chosen_B.detach(), rejected_B.detach())
