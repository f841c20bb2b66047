"""An untrained Show-o: a small Phi, a small image tokenizer, and a word-level tokenizer with Show-o's marks."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PhiConfig, PreTrainedTokenizerFast

from unigap.models.showo import ShowO
from unigap.models.showo.chat_template import QUESTION, with_marks
from unigap.models.showo.magvit import Magvit, MagvitConfig
from unigap.models.showo.network import FUSED_GELU, ShowONetwork, ShowOShape
from unigap.worlds.shapes.grammar import WORDS
from unigap.worlds.shapes.scenes import GRID
from unigap.worlds.shapes.tokenizer_training.base import ImageTokenizer
from unigap.worlds.shapes.tokenizer_training.named_codes import NamedCodes
from unigap.worlds.shapes.untrained.base import UntrainedModel
from unigap.worlds.shapes.untrained.initial_scale import spread_linears, spread_words
from unigap.worlds.shapes.untrained.words import BOS, EOS, PAD, SPEECH, UNK, word_tokenizer

_SPEAKERS = ("user", "assistant")
CFG = 1.5
"""Guidance scale with the best images of the pretrained model, of those tried on validation prompts."""


class UntrainedShowO(UntrainedModel):
    """A Show-o of about 1.7 M parameters.

    Args:
        hidden_size: Width of the shared LLM.
        layers: Number of layers of the shared LLM.
        n_codes: Size of the image vocabulary, a power of 2.
    """

    def model(self) -> ShowO:
        bits = self.n_codes.bit_length() - 1
        if self.n_codes != 2**bits:
            raise ValueError(f"n_codes must be a power of 2, got {self.n_codes}; take 256")
        words = with_marks(make_words())
        return ShowO.from_parts(make_network(words, small_magvit(bits), self.hidden_size, self.layers), words)

    def tokenizer(self, model: Any) -> NamedCodes:
        return NamedCodes(MagvitTokenizer(model.net.magvit))


class MagvitTokenizer(ImageTokenizer):
    """MAGVIT-v2, a tokenizer with a fixed codebook.

    Args:
        magvit: The tokenizer.
    """

    def __init__(self, magvit: Magvit) -> None:
        super().__init__()
        self.magvit = magvit

    @property
    def codes(self) -> torch.Tensor:
        return self.magvit.code_latents

    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.magvit.latents(pixels_BCHW)

    def rebuilt(self, code_BDHW: torch.Tensor) -> torch.Tensor:
        return self.magvit.decoder(code_BDHW)


def make_words() -> PreTrainedTokenizerFast:
    """Return a tokenizer of the embedded world's words, without Show-o's marks."""
    words = (PAD, BOS, EOS, UNK, *dict.fromkeys([*_SPEAKERS, *SPEECH, *WORDS]))
    return PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(words),
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def small_magvit(bits: int) -> MagvitConfig:
    """Return the config of an image tokenizer with 8 x 8 pixels per token."""
    widths, blocks = (1, 1, 2, 2), (1, 1, 1, 1)
    return MagvitConfig(
        bits=bits,
        channels=32,
        groups=8,
        encoder_widths=widths,
        encoder_blocks=blocks,
        decoder_widths=widths,
        decoder_blocks=blocks,
    )


def make_network(
    words: PreTrainedTokenizerFast, magvit: MagvitConfig, hidden_size: int = 128, layers: int = 4, grid: int = GRID
) -> ShowONetwork:
    """Return a freshly initialised Show-o (torch's global generator); ``words`` must include Show-o's marks."""
    llm = PhiConfig(
        vocab_size=len(words) + 2**magvit.bits + 1,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        hidden_act=FUSED_GELU,
        max_position_embeddings=256,
        qk_layernorm=True,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    network = ShowONetwork(ShowOShape(llm, magvit, grid, QUESTION, CFG))
    spread_linears(network.llm)
    spread_words(network.llm.model.embed_tokens, words.pad_token_id)
    return network
