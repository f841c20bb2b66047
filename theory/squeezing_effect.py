"""The squeezing effect of preference training: change of log-probability by role of a token.

Shape suffixes: n samples; T positions; V tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Squeezing:
    """Change of log-probability by role, averaged over the counted positions of each sample; shape (n,), in nats.

    Attributes:
        chosen: Change of the chosen tokens.
        rejected: Change of the rejected tokens.
        likeliest: Change of the token that was most likely before the step and is neither chosen nor rejected.
        entropy: Change of the entropy of the whole distribution.
    """

    chosen: Tensor
    rejected: Tensor
    likeliest: Tensor
    entropy: Tensor

    @property
    def squeezed(self) -> Tensor:
        """Samples where chosen and rejected tokens fell and the most likely other token rose, shape (n,), bool."""
        return (self.chosen < 0) & (self.rejected < 0) & (self.likeliest > 0)


def squeezing(
    before_nTV: Tensor, after_nTV: Tensor, chosen_nT: Tensor, rejected_nT: Tensor, mask_nT: Tensor | None = None
) -> Squeezing:
    """Measure how a step changes the chosen, the rejected and the most likely other token.

    Args:
        before_nTV: Logits before the step, in one context (say, teacher-forced on the chosen answer), shape (n, T, V)
            with V >= 3.
        after_nTV: Logits after the step, in the same context.
        chosen_nT: Chosen token at each position.
        rejected_nT: Rejected token at each position.
        mask_nT: True where a position counts; None for all.

    Returns:
        Changes by role.

    Raises:
        ValueError: If shapes do not fit, V < 3, or a sample has no position that counts.
    """
    _check_shapes(before_nTV, after_nTV, chosen_nT, rejected_nT, mask_nT)
    before, after = before_nTV.double().log_softmax(-1), after_nTV.double().log_softmax(-1)
    others = before.scatter(-1, torch.stack([chosen_nT, rejected_nT], -1), -torch.inf)
    likeliest_nT = others.argmax(-1)
    weight_nT = torch.ones_like(chosen_nT, dtype=torch.float64) if mask_nT is None else mask_nT.double()

    def mean(change_nT: Tensor) -> Tensor:
        return (change_nT * weight_nT).sum(1) / weight_nT.sum(1)

    def change_of(token_nT: Tensor) -> Tensor:
        return mean((after - before).gather(-1, token_nT.unsqueeze(-1)).squeeze(-1))

    entropy = mean(torch.special.entr(after.exp()).sum(-1) - torch.special.entr(before.exp()).sum(-1))
    return Squeezing(change_of(chosen_nT), change_of(rejected_nT), change_of(likeliest_nT), entropy)


def _check_shapes(before: Tensor, after: Tensor, chosen: Tensor, rejected: Tensor, mask: Tensor | None) -> None:
    if before.ndim != 3 or before.shape != after.shape or before.shape[2] < 3:
        raise ValueError(
            f"logits have shapes {tuple(before.shape)} and {tuple(after.shape)}; pass (n, T, V) twice, with V >= 3"
        )
    for name, tensor in (("chosen", chosen), ("rejected", rejected), ("mask", mask)):
        if tensor is not None and tensor.shape != before.shape[:2]:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it needs {tuple(before.shape[:2])}")
    if mask is not None and not bool(mask.any(1).all()):
        raise ValueError(f"sample {int((~mask.any(1)).nonzero()[0, 0])} has no position that counts; drop it")
