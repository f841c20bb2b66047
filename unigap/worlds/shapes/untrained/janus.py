"""An untrained Janus of transformers, with a word-level tokenizer, a processor and a chat template."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import processors
from torch import nn
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from unigap.models.janus import Janus
from unigap.worlds.shapes.grammar import WORDS
from unigap.worlds.shapes.scenes import CELL, GRID
from unigap.worlds.shapes.tokenizer_training.base import ImageTokenizer
from unigap.worlds.shapes.tokenizer_training.learned_codes import LearnedCodes
from unigap.worlds.shapes.untrained.base import UntrainedModel
from unigap.worlds.shapes.untrained.initial_scale import spread_linears, spread_words
from unigap.worlds.shapes.untrained.words import BOS, EOS, PAD, SPEECH, UNK, word_tokenizer

IMAGE, IMAGE_START, IMAGE_END = "<image_placeholder>", "<begin_of_image>", "<end_of_image>"
USER, ASSISTANT = "<|User|>", "<|Assistant|>"
_SPECIAL = (PAD, BOS, EOS, UNK, IMAGE, IMAGE_START, IMAGE_END, USER, ASSISTANT)
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|User|>: {% else %}<|Assistant|>: {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image_placeholder>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'user' %}\n\n{% else %}</s>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)


class UntrainedJanus(UntrainedModel):
    """A Janus of about 2.4 M parameters, with a vision encoder of two layers.

    Args:
        hidden_size: Width of the shared LLM.
        layers: Number of layers of the shared LLM.
        n_codes: Size of the image vocabulary.
    """

    def model(self) -> Janus:
        processor = make_processor()
        net = make_model(processor, self.hidden_size, self.layers, n_codes=self.n_codes)
        return Janus.from_parts(net, processor)

    def tokenizer(self, model: Any) -> LearnedCodes:
        return LearnedCodes(JanusTokenizer(model.core.vqmodel))


class JanusTokenizer(ImageTokenizer):
    """The parts of transformers' ``JanusVQVAE``; its own ``forward`` passes no gradient to the encoder.

    Args:
        vqmodel: The tokenizer.
    """

    def __init__(self, vqmodel: Any) -> None:
        super().__init__()
        self.vqmodel: Any = vqmodel

    @property
    def codes(self) -> torch.Tensor:
        return self.vqmodel.quantize.embedding.weight

    def latents(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.vqmodel.quant_conv(self.vqmodel.encoder(pixels_BCHW))

    def rebuilt(self, code_BDHW: torch.Tensor) -> torch.Tensor:
        return self.vqmodel.decoder(self.vqmodel.post_quant_conv(code_BDHW))


def make_processor(grid: int = GRID) -> JanusProcessor:
    """Return tokenizer, image processor and chat template for images of ``grid`` x ``grid`` codes."""
    words = [*_SPECIAL, *dict.fromkeys([*SPEECH, *WORDS])]
    core = word_tokenizer(words)
    core.post_processor = processors.TemplateProcessing(f"{BOS} $A", special_tokens=[(BOS, words.index(BOS))])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens={"image_token": IMAGE, "boi_token": IMAGE_START, "eoi_token": IMAGE_END},
        padding_side="left",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_special_tokens({"extra_special_tokens": [USER, ASSISTANT]}, replace_extra_special_tokens=False)
    images = JanusImageProcessorPil(
        size={"height": grid * CELL, "width": grid * CELL}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return JanusProcessor(images, tokenizer, chat_template=_CHAT_TEMPLATE, num_image_tokens=grid * grid)


def make_model(
    processor: JanusProcessor, hidden_size: int = 128, layers: int = 4, vision_layers: int = 2, n_codes: int = 256
) -> JanusForConditionalGeneration:
    """Return a freshly initialised Janus; the weights come from torch's global generator."""
    tokenizer, image_tokens = processor.tokenizer, processor.num_image_tokens
    side = processor.image_processor.size["height"]
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=240 + image_tokens,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    vision = JanusVisionConfig(
        hidden_size=hidden_size,
        num_hidden_layers=vision_layers,
        num_attention_heads=4,
        image_size=side,
        patch_size=CELL,
        mlp_ratio=2.0,
        projection_dim=hidden_size,
        num_image_tokens=image_tokens,
    )
    codes = JanusVQVAEConfig(
        embed_dim=8,
        num_embeddings=n_codes,
        latent_channels=64,
        base_channels=32,
        channel_multiplier=[1, 1, 2, 2],
        num_res_blocks=1,
        num_patches=side // CELL,
        projection_dim=hidden_size,
        image_token_embed_dim=hidden_size,
    )
    config = JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=codes,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        tie_word_embeddings=False,
    )
    config.dtype = "float32"
    model = JanusForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        generation_kwargs={"boi_token_id": tokenizer.convert_tokens_to_ids(IMAGE_START)},
    )
    _initialise(model)
    return model


def _initialise(model: JanusForConditionalGeneration) -> None:
    core = model.model
    spread_linears(core.vision_model, core.aligner, core.generation_aligner, core.generation_head, core.language_model)
    for module in core.vqmodel.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    spread_linears(model.lm_head)
    spread_words(core.language_model.embed_tokens, core.language_model.config.pad_token_id)
    nn.init.normal_(core.generation_embeddings.weight, std=1.0)
