"""The training losses as pure functions of log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

# Shape legend: B images or pairs, M image tokens.


def sft_loss(logp_BM: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood per image token, a scalar in nats (Algorithm 1, SFT)."""
    return -logp_BM.mean()


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


def dpo_loss(
    chosen_logp_B: torch.Tensor,
    rejected_logp_B: torch.Tensor,
    chosen_reference_B: torch.Tensor,
    rejected_reference_B: torch.Tensor,
    beta: float = 0.1,
) -> PreferenceTerms:
    """Direct preference optimisation, -log sigmoid(margin), ln 2 where policy and reference agree.

    Args:
        chosen_logp_B: Policy log-likelihood of each chosen image, summed over its tokens, in nats.
        rejected_logp_B: The same for the rejected images.
        chosen_reference_B: Reference log-likelihood of the chosen images.
        rejected_reference_B: The same for the rejected images.
        beta: Strength of the pull towards the reference, > 0.
    """
    chosen_B = chosen_logp_B - chosen_reference_B
    rejected_B = rejected_logp_B - rejected_reference_B
    margin_B = beta * (chosen_B - rejected_B)
    return PreferenceTerms(-F.logsigmoid(margin_B).mean(), margin_B.detach(), chosen_B.detach(), rejected_B.detach())
