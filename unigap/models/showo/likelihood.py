"""How likely a Show-o finds given images: an estimate from masks, and exactly along a way of unmasking."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unigap.models.base import PromptBatch
from unigap.models.engine.autoregressive import code_logps
from unigap.models.showo.chat_template import ShowOChatTemplate
from unigap.models.showo.masks import prompt_masks
from unigap.models.showo.network import ShowONetwork

# Shape legend: B prompts, R images, those of one prompt side by side, K masks an image, M image tokens.


@dataclass(frozen=True)
class UnmaskingPath:
    """The way in which images were unmasked.

    Attributes:
        codes_RM: The images, int64.
        step_RM: The step at which each token was fixed, int64, >= 0.
    """

    codes_RM: torch.Tensor
    step_RM: torch.Tensor


class ShowOLikelihood:
    """What a network says of given images.

    Args:
        net: The network.
        template: How it is told what to draw.
        masks: K of an estimate without given masks.
    """

    def __init__(self, net: ShowONetwork, template: ShowOChatTemplate, masks: int) -> None:
        self.net, self.template, self.masks = net, template, masks

    def estimate(self, prompt: PromptBatch, codes_RM: torch.Tensor, masked_RM: torch.Tensor | None) -> torch.Tensor:
        """A term for each token, float32 (R, M), whose sum estimates a lower bound of the log-likelihood."""
        images = prompt.images_each(codes_RM)
        if masked_RM is None:
            masked_BKM = prompt_masks(prompt.ids_BL, prompt.mask_BL.bool(), self.masks, codes_RM.shape[1])
            masked_RKM = masked_BKM.repeat_interleave(images, 0)
        elif masked_RM.shape != codes_RM.shape or masked_RM.dtype != torch.bool:
            raise ValueError(
                f"noise_RM must be bool of shape {tuple(codes_RM.shape)}, True where a token is masked, "
                f"got {masked_RM.dtype} of shape {tuple(masked_RM.shape)}"
            )
        else:
            masked_RKM = masked_RM[:, None]
        draws = masked_RKM.shape[1]
        logp_RKM = self.masked(prompt, codes_RM.repeat_interleave(draws, 0), masked_RKM.flatten(0, 1))
        weight_RK1 = codes_RM.shape[1] / masked_RKM.sum(-1, keepdim=True).clamp(min=1)
        return (logp_RKM.view_as(masked_RKM) * weight_RK1).masked_fill(~masked_RKM, 0).mean(1)

    def along(self, prompt: PromptBatch, path: UnmaskingPath) -> torch.Tensor:
        """Log-probability of each token of a path when it was fixed, float32 (R, M)."""
        logp_RM = torch.zeros(path.codes_RM.shape, device=path.codes_RM.device)
        for step in range(int(path.step_RM.max()) + 1):
            then_RM = self.masked(prompt, path.codes_RM, path.step_RM >= step)
            logp_RM = torch.where(path.step_RM == step, then_RM, logp_RM)
        return logp_RM

    def masked(self, prompt: PromptBatch, codes_RM: torch.Tensor, masked_RM: torch.Tensor) -> torch.Tensor:
        """Log-probability of each code given the prompt and the codes that are not masked, float32 (R, M)."""
        rows = prompt.repeat(prompt.images_each(codes_RM))
        image_RI = self.net.image_ids(codes_RM, masked_RM, (self.template.image_start, self.template.image_end))
        hidden_RMD = self.net.image_states(rows.ids_BL, rows.mask_BL.bool(), image_RI)
        return code_logps(self.net.code_logits, hidden_RMD, codes_RM, self.net.shape.n_codes)
