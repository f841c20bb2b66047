"""DPO: prefer accepted images to rejected ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from unigap.loop.plan import RoundPlan
from unigap.loop.sampling import stack_drawings
from unigap.loop.selection import PairRule, preference_pairs, threshold_logit
from unigap.models.base import UnifiedModel
from unigap.objectives.base import (
    Objective,
    RowBatch,
    StepResult,
    has_velocity,
    likelihood_figures,
    reference_logps,
    step_noise,
)
from unigap.objectives.losses import PreferenceLoss, dpo_loss, sft_loss
from unigap.records import Candidate, Pair

# Shape legend: B pairs, M image tokens, R = 2 B images.

BetaScale = Literal["likelihood", "diffusion"]
"""What beta multiplies."""


@dataclass(frozen=True)
class PairBatch(RowBatch):
    """Pairs as tensors; ``drawings_B`` are the chosen images.

    Attributes:
        rejected_B: Drawings of the rejected images.
        reference_B2: Log-likelihood of chosen and rejected under the reference model, in nats, float64; ``None`` if the
            model has no exact likelihood: the step then computes both at its own noise.
    """

    rejected_B: torch.Tensor
    reference_B2: torch.Tensor | None


class DPO(Objective):
    """Direct preference optimisation with a likelihood term on the chosen images (Algorithm 1, DPO).

    Args:
        threshold: Smallest probability of yes that accepts an image, in (0, 1).
        beta: Strength of the pull towards the reference model, > 0.
        nll_weight: Weight of the negative log-likelihood per token of the chosen images, >= 0.
        per_prompt: Most pairs of a prompt.
        pairs: Which rejected image is paired with the accepted image of highest log-odds: ``extreme`` takes the one of
            lowest log-odds (the paper), ``closest`` the one of highest.
        loss: ``sigmoid`` (DPO), ``robust`` or ``ipo``, all as in TRL; ``ipo`` always takes log-likelihoods per token.
        label_smoothing: Assumed share of wrong preferences, in [0, 0.5); turns ``sigmoid`` into conservative DPO.
        per_token: Divide log-likelihoods by the number of image tokens, so that beta is comparable between families.
        scale: What ``beta`` multiplies. ``likelihood``: log-ratios, as in DPO. ``diffusion``, for flow models only:
            half the difference of mean squared errors, as in Diffusion-DPO (Wallace et al. 2023) and Flow-DPO (Liu et
            al. 2025), whose papers and code take beta from 100 to 5000. It equals ``likelihood`` with ``per_token``
            and half that beta.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        beta: float = 0.1,
        nll_weight: float = 1.0,
        per_prompt: int = 1,
        pairs: PairRule = "extreme",
        loss: PreferenceLoss = "sigmoid",
        label_smoothing: float = 0.0,
        per_token: bool = False,
        scale: BetaScale = "likelihood",
    ) -> None:
        threshold_logit(threshold)
        if scale not in get_args(BetaScale):
            raise ValueError(f"scale must be one of {', '.join(get_args(BetaScale))}, got {scale!r}")
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be > 0 and finite, got {beta}; common values are 0.1 to 0.2")
        if not 0 <= nll_weight < math.inf:
            raise ValueError(f"nll_weight must be >= 0 and finite, got {nll_weight}; 0 leaves the term out")
        if per_prompt < 1:
            raise ValueError(f"per_prompt must be >= 1, got {per_prompt}")
        if not 0 <= label_smoothing < 0.5 or (label_smoothing and loss == "ipo"):
            raise ValueError(f"label_smoothing must be in [0, 0.5), and 0 with ipo, got {label_smoothing} with {loss}")
        self.threshold, self.beta, self.nll_weight, self.per_prompt = threshold, beta, nll_weight, per_prompt
        self.pairs, self.loss, self.label_smoothing = pairs, loss, label_smoothing
        self.per_token, self.scale = per_token or scale == "diffusion", scale

    def prepare(self, model: UnifiedModel, plan: RoundPlan) -> None:
        if self.scale == "diffusion" and not has_velocity(model):
            raise ValueError(
                f"scale 'diffusion' is for flow models, and {type(model).__name__} is none; take scale 'likelihood'"
            )

    @property
    def needs_reference(self) -> bool:
        return True

    def rows(self, candidates: Iterable[Candidate], logits: Mapping[str, float]) -> Sequence[Pair]:
        return preference_pairs(candidates, logits, self.threshold, self.per_prompt, self.pairs)

    def members(self, row: Pair) -> tuple[Candidate, ...]:
        return (row.chosen, row.rejected)

    def collate(self, rows: Sequence[Pair], references: Mapping[str, float]) -> PairBatch:
        return PairBatch(
            tuple(f"{row.chosen.id}>{row.rejected.id}" for row in rows),
            tuple(row.prompt.text for row in rows),
            stack_drawings([row.chosen for row in rows]),
            stack_drawings([row.rejected for row in rows]),
            _references(rows, references) if references else None,
        )

    def step(self, model: UnifiedModel, batch: PairBatch) -> StepResult:
        both_R = torch.stack([batch.drawings_B, batch.rejected_B], 1).flatten(0, 1)
        # chosen and rejected share their prompt and their noise
        prompt, noise_B = model.encode_prompt(batch.texts), step_noise(model, len(batch.texts))
        noise_R = None if noise_B is None else noise_B.repeat_interleave(2)
        reference_B2 = batch.reference_B2
        if reference_B2 is None:
            reference_B2 = reference_logps(model, prompt, both_R, noise_R).sum(-1).view(-1, 2)
        logp_RM = model.image_logps(prompt, both_R, noise_R)
        chosen_BM, rejected_BM = logp_RM[0::2], logp_RM[1::2]
        reference_B2 = reference_B2.to(chosen_BM.dtype)
        logps = [chosen_BM.sum(-1), rejected_BM.sum(-1), reference_B2[:, 0], reference_B2[:, 1]]
        if self.per_token or self.loss == "ipo":  # IPO regresses the log-ratio of an average token, as in TRL
            logps = [logp_B / chosen_BM.shape[1] for logp_B in logps]
        chosen_B, rejected_B, chosen_reference_B, rejected_reference_B = logps
        terms = dpo_loss(
            chosen_B,
            rejected_B,
            chosen_reference_B,
            rejected_reference_B,
            self.beta / 2 if self.scale == "diffusion" else self.beta,
            self.loss,
            self.label_smoothing,
        )
        likelihoods = {
            "dpo/margin": terms.margin_B.mean(),
            "dpo/margin_per_token": terms.margin_B.mean() / chosen_BM.shape[1],
            "dpo/chosen": terms.chosen_B.mean(),
            "dpo/rejected": terms.rejected_B.mean(),
        }
        logs = {"dpo/loss": terms.loss.detach(), "dpo/accuracy": terms.accuracy}
        logs |= likelihood_figures(model, likelihoods)
        return StepResult(terms.loss + self.nll_weight * sft_loss(chosen_BM), logs)


def _references(rows: Sequence[Pair], references: Mapping[str, float]) -> torch.Tensor:
    pairs = [[references[row.chosen.id], references[row.rejected.id]] for row in rows]
    return torch.tensor(pairs, dtype=torch.float64)
