"""Network of Show-o: a language model over text tokens and image codes, and the image tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PhiConfig, PhiForCausalLM

from unigap.models.base import SamplingRecipe
from unigap.models.engine.attention import additive, positions, run_trunk
from unigap.models.showo.magvit import Magvit, MagvitConfig
from unigap.models.showo.masks import generation_mask

FUSED_GELU = "gelu_pytorch_tanh"
"""Same function as Phi's ``gelu_new`` in one kernel; the eight kernels of that took two thirds of a training step."""

# Shape legend: R rows, L text tokens, I tokens of an image with start and end, M image tokens, D hidden width, V codes.


@dataclass(frozen=True)
class ShowOShape:
    """Configuration of a Show-o network.

    Attributes:
        llm: transformers' config of the language model. Its vocabulary holds text tokens, special tokens, image codes
            and the mask token, in this order.
        magvit: Configuration of the image tokenizer.
        grid: Tokens per side of an image.
        question: Template of a question, with the field ``{question}``.
        cfg: Recommended guidance scale, >= 1; 1 is no guidance.
    """

    llm: PhiConfig
    magvit: MagvitConfig
    grid: int
    question: str
    cfg: float = 1.0

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ValueError(f"grid must be >= 1, got {self.grid}")
        if "{question}" not in self.question:
            raise ValueError(f"the question template {self.question!r} has no field {{question}}")
        SamplingRecipe(cfg=self.cfg)  # raises for an invalid scale
        if self.first_code < 1:
            raise ValueError(f"a vocabulary of {self.llm.vocab_size} is too small for {self.n_codes} image codes")

    @property
    def n_codes(self) -> int:
        """V, the size of the image codebook."""
        return 2**self.magvit.bits

    @property
    def image_tokens(self) -> int:
        """M, the number of tokens of an image."""
        return self.grid**2

    @property
    def side(self) -> int:
        """Pixels per side of an image."""
        return self.grid * self.magvit.patch

    @property
    def mask(self) -> int:
        """Id of the mask token, the last id."""
        return self.llm.vocab_size - 1

    @property
    def first_code(self) -> int:
        """Id of image code 0; the codes precede the mask token."""
        return self.mask - self.n_codes


class ShowONetwork(nn.Module):
    """Language model and image tokenizer of Show-o.

    Args:
        shape: Configuration of the network.
        attn_implementation: ``sdpa`` or ``eager``.
    """

    def __init__(self, shape: ShowOShape, attn_implementation: str = "sdpa") -> None:
        super().__init__()
        self.shape = shape
        self.llm: Any = PhiForCausalLM._from_config(shape.llm, attn_implementation=attn_implementation)
        self.magvit = Magvit(shape.magvit)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.llm.device

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids, adding a last dimension D."""
        return self.llm.model.embed_tokens(ids)

    def code_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (..., V) of the image codes only, from hidden states (..., D)."""
        head, first = self.llm.lm_head, self.shape.first_code
        last = first + self.shape.n_codes
        return F.linear(hidden, head.weight[first:last], head.bias[first:last])

    def image_ids(self, codes_RM: torch.Tensor, masked_RM: torch.Tensor, marks: tuple[int, int]) -> torch.Tensor:
        """Return the token ids (R, I) of partly masked images between the two ``marks``, start and end."""
        start_R1, end_R1 = (torch.full_like(codes_RM[:, :1], mark) for mark in marks)
        image_RM = (codes_RM + self.shape.first_code).masked_fill(masked_RM, self.shape.mask)
        return torch.cat([start_R1, image_RM, end_R1], 1)

    def image_states(self, ids_RL: torch.Tensor, text_RL: torch.Tensor, image_RI: torch.Tensor) -> torch.Tensor:
        """Return the hidden states (R, M, D) of images after their prompts; each predicts the token at its position.

        Args:
            ids_RL: One prompt per image.
            text_RL: True for prompt tokens, False for padding.
            image_RI: Images from ``image_ids``.
        """
        size = image_RI.shape[1]
        embeds_RSD = self.embed(torch.cat([ids_RL, image_RI], 1))
        bias_R1SS = additive(generation_mask(text_RL, size), embeds_RSD.dtype)
        position_RS = positions(torch.cat([text_RL, torch.ones_like(image_RI, dtype=torch.bool)], 1))
        out = run_trunk(self.llm.model, embeds_RSD, bias_R1SS, position_RS)
        return out.last_hidden_state[:, 1 - size : -1]
