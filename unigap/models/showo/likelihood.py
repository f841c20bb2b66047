"""Log-likelihood of images under Show-o: estimated with masks, and exact along one order of unmasking."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unigap.models.base import PromptBatch
from unigap.models.engine.autoregressive import code_logps
from unigap.models.showo.chat_template import ShowOChatTemplate
from unigap.models.showo.masks import prompt_masks, seeded_masks
from unigap.models.showo.network import ShowONetwork

# Shape legend: B prompts, R images (those of one prompt are consecutive), K masks an image, M image tokens.


@dataclass(frozen=True)
class UnmaskingPath:
    """Order in which the tokens of images were unmasked.

    Attributes:
        codes_RM: The images, int64.
        step_RM: The step that fixed each token, int64, >= 0.
    """

    codes_RM: torch.Tensor
    step_RM: torch.Tensor


class ShowOLikelihood:
    """Likelihood of images under a network.

    Args:
        net: The network.
        template: Token ids of prompts.
        masks: K, if no mask is given.
    """

    def __init__(self, net: ShowONetwork, template: ShowOChatTemplate, masks: int) -> None:
        self.net, self.template, self.masks = net, template, masks

    def estimate(self, prompt: PromptBatch, codes_RM: torch.Tensor, seed_R: torch.Tensor | None) -> torch.Tensor:
        """Return a term per token, float32 (R, M), whose sum estimates a lower bound of the log-likelihood.

        Raises:
            ValueError: The seeds are not one int64 an image.
        """
        images, tokens = prompt.images_each(codes_RM), codes_RM.shape[1]
        if seed_R is None:
            masked_BKM = prompt_masks(prompt.ids_BL, prompt.mask_BL.bool(), self.masks, tokens)
            return self.mask_logps(prompt, codes_RM, masked_BKM.repeat_interleave(images, 0))
        if seed_R.shape != codes_RM.shape[:1] or seed_R.dtype != torch.int64:
            raise ValueError(
                f"noise_R must be int64 of shape ({len(codes_RM)},), one seed an image, "
                f"got {seed_R.dtype} of shape {tuple(seed_R.shape)}"
            )
        return self.mask_logps(prompt, codes_RM, seeded_masks(seed_R.to(codes_RM.device), 1, tokens))

    def mask_logps(self, prompt: PromptBatch, codes_RM: torch.Tensor, masked_RKM: torch.Tensor) -> torch.Tensor:
        """Return ``estimate`` with given masks, averaged over the K masks of an image, float32 (R, M)."""
        masks = masked_RKM.shape[1]
        logp_RKM = self.masked_logps(prompt, codes_RM.repeat_interleave(masks, 0), masked_RKM.flatten(0, 1))
        weight_RK1 = codes_RM.shape[1] / masked_RKM.sum(-1, keepdim=True).clamp(min=1)
        return (logp_RKM.view_as(masked_RKM) * weight_RK1).masked_fill(~masked_RKM, 0).mean(1)

    def path_logps(self, prompt: PromptBatch, path: UnmaskingPath) -> torch.Tensor:
        """Return the log-probability of each token at the step that fixed it, float32 (R, M)."""
        logp_RM = torch.zeros(path.codes_RM.shape, device=path.codes_RM.device)
        for step in range(int(path.step_RM.max()) + 1):
            logp_at_step_RM = self.masked_logps(prompt, path.codes_RM, path.step_RM >= step)
            logp_RM = torch.where(path.step_RM == step, logp_at_step_RM, logp_RM)
        return logp_RM

    def masked_logps(self, prompt: PromptBatch, codes_RM: torch.Tensor, masked_RM: torch.Tensor) -> torch.Tensor:
        """Return the log-probability of each code given the prompt and the unmasked codes, float32 (R, M)."""
        rows = prompt.repeat(prompt.images_each(codes_RM))
        image_RI = self.net.image_ids(codes_RM, masked_RM, (self.template.image_start, self.template.image_end))
        hidden_RMD = self.net.image_states(rows.ids_BL, rows.mask_BL.bool(), image_RI)
        return code_logps(self.net.code_logits, hidden_RMD, codes_RM, self.net.shape.n_codes)
