"""The training losses as pure functions of log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

# Shape legend: B images or pairs, M image tokens.


def sft_loss(logp_BM: torch.Tensor) -> torch.Tensor:
    """Return the mean negative log-likelihood per image token, a scalar in nats (Algorithm 1, SFT)."""
    return -logp_BM.mean()


def kl_to_base(logp_B: torch.Tensor, base_logp_B: torch.Tensor) -> torch.Tensor:
    """Estimate KL(base || policy) of whole images to second order, a scalar in nats, on samples of the base model.

    The estimate is half the mean squared log-ratio (Schulman's k2). The mean of log base - log policy (k1) is unbiased,
    but unbounded below on samples that recur in every epoch: its gradient raises their likelihood, which memorises
    them. k2 agrees with the divergence to second order in the log-ratio, and its gradient to first order. Its minimum,
    0, is where the policy gives each sample the likelihood it had under the base.

    The samples must be unselected: on images that a judge accepted, no mean of log-ratios estimates a divergence
    between policy and base in either direction.

    Args:
        logp_B: Policy log-likelihood of each image, summed over its tokens, in nats.
        base_logp_B: The same under the base model, which sampled them at temperature 1 without guidance or filters.
    """
    return (logp_B - base_logp_B).square().mean() / 2


@dataclass(frozen=True)
class PreferenceTerms:
    """A preference loss and its terms.

    Attributes:
        loss: Mean over pairs, a scalar.
        margin_B: beta times the chosen-minus-rejected log-ratio to the reference model, in nats.
        chosen_B: Policy minus reference log-likelihood of the chosen image, in nats.
        rejected_B: The same for the rejected image.
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
    """Compute direct preference optimisation and its variants.

    - ``sigmoid``: -log sigmoid(margin) (Rafailov et al. 2023), ln 2 if policy and reference agree. With label smoothing
      e: (1 - e) * -log sigmoid(margin) + e * -log sigmoid(-margin), conservative DPO (Mitchell 2023).
    - ``robust``: an unbiased estimate of the sigmoid loss if a share e of the preferences is flipped (Chowdhury et al.
      2024).
    - ``ipo``: (log-ratio - 1 / (2 beta))^2 (Azar et al. 2023), with its minimum at a finite margin. TRL divides the
      log-likelihoods by the number of tokens first; pass them so, as the ``DPO`` objective does.

    Args:
        chosen_logp_B: Policy log-likelihood of each chosen image, summed over its tokens, in nats.
        rejected_logp_B: The same for the rejected images.
        chosen_reference_B: Reference log-likelihood of the chosen images.
        rejected_reference_B: The same for the rejected images.
        beta: Strength of the pull towards the reference model, > 0.
        kind: Name of the loss.
        label_smoothing: Assumed share e of flipped preferences, in [0, 0.5); ``ipo`` ignores it.
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
