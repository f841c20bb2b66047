"""The parts of a Show-o: one vocabulary of words and image codes, the language model over it, the image tokenizer."""

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
from unigap.models.showo.masks import sees_while_drawing

FUSED_GELU = "gelu_pytorch_tanh"
"""The function that Phi calls ``gelu_new``, in one kernel; its eight took two thirds of a training step."""

# Shape legend: R rows, L text tokens, I tokens of an image with its two marks, M image tokens, D hidden width, V codes.


@dataclass(frozen=True)
class ShowOShape:
    """Everything about a Show-o but its weights and its words.

    Attributes:
        llm: transformers' config of the language model; its vocabulary holds words, marks, image codes and the mask.
        magvit: The image tokenizer.
        grid: Tokens on a side of an image.
        question: What is said to ask a question, with ``{question}`` in it.
        cfg: Guidance scale the weights ask to be drawn from with, >= 1, of which 1 is no guidance.
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
            raise ValueError(f"the question template {self.question!r} has no {{question}} in it")
        SamplingRecipe(cfg=self.cfg)  # refuses a scale that could not be drawn with
        if self.first_code < 1:
            raise ValueError(f"a vocabulary of {self.llm.vocab_size} has no room for {self.n_codes} image codes")

    @property
    def n_codes(self) -> int:
        """V."""
        return 2**self.magvit.bits

    @property
    def image_tokens(self) -> int:
        """M."""
        return self.grid**2

    @property
    def side(self) -> int:
        """Pixels on a side of an image."""
        return self.grid * self.magvit.patch

    @property
    def mask(self) -> int:
        """Id of the masked token, the last of all."""
        return self.llm.vocab_size - 1

    @property
    def first_code(self) -> int:
        """Id of image code 0: codes stand between the words and the mask."""
        return self.mask - self.n_codes


class ShowONetwork(nn.Module):
    """The weights of a Show-o.

    Args:
        shape: What they look like.
        attn_implementation: How transformers computes attention, ``sdpa`` or ``eager``.
    """

    def __init__(self, shape: ShowOShape, attn_implementation: str = "sdpa") -> None:
        super().__init__()
        self.shape = shape
        self.llm: Any = PhiForCausalLM._from_config(shape.llm, attn_implementation=attn_implementation)
        self.magvit = Magvit(shape.magvit)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.llm.device

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids of words and codes to embeddings, with a new last dimension."""
        return self.llm.model.embed_tokens(ids)

    def code_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (..., D) to logits of the image codes alone (..., V): no image token is a word."""
        head, first = self.llm.lm_head, self.shape.first_code
        last = first + self.shape.n_codes
        return F.linear(hidden, head.weight[first:last], head.bias[first:last])

    def image_ids(self, codes_RM: torch.Tensor, masked_RM: torch.Tensor, marks: tuple[int, int]) -> torch.Tensor:
        """Ids of partly masked images between their two marks, (R, I)."""
        start_R1, end_R1 = (torch.full_like(codes_RM[:, :1], mark) for mark in marks)
        image_RM = (codes_RM + self.shape.first_code).masked_fill(masked_RM, self.shape.mask)
        return torch.cat([start_R1, image_RM, end_R1], 1)

    def image_states(self, ids_RL: torch.Tensor, text_RL: torch.Tensor, image_RI: torch.Tensor) -> torch.Tensor:
        """Hidden states (R, M, D) of images behind their prompts: the one at a place predicts that place.

        Args:
            ids_RL: A prompt for each image.
            text_RL: Whether a token of it is text, not padding.
            image_RI: The images, as ``image_ids`` makes them.
        """
        size = image_RI.shape[1]
        embeds_RSD = self.embed(torch.cat([ids_RL, image_RI], 1))
        bias_R1SS = additive(sees_while_drawing(text_RL, size), embeds_RSD.dtype)
        place_RS = positions(torch.cat([text_RL, torch.ones_like(image_RI, dtype=torch.bool)], 1))
        out = run_trunk(self.llm.model, embeds_RSD, bias_R1SS, place_RS)
        return out.last_hidden_state[:, 1 - size : -1]
