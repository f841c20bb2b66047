"""Janus and Janus-Pro on transformers' classes: a vision encoder, an image tokenizer, and one shared Llama."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from unigap.models.base import TYPICAL_PROMPT_TOKENS, PromptBatch, Samples, SamplingRecipe, evaluating
from unigap.models.engine.chat_template import left_padded
from unigap.models.engine.precision import float32_arithmetic
from unigap.models.files.lora import llama_targets
from unigap.models.files.weights import digest
from unigap.models.folder_model import IN_MEMORY, TransformersModel, transformers_loading
from unigap.models.janus.chat_template import JanusChatTemplate
from unigap.models.janus.checkpoint import janus_from_folder
from unigap.models.janus.likelihood import image_logps
from unigap.models.janus.sampling import JanusSampler
from unigap.models.janus.understanding import JanusUnderstanding

# Shape legend: B prompts or images, N candidates a prompt, M image tokens, L prompt tokens, Q questions an image,
# T answer tokens, S tokens of prompt and image, D hidden width, V image codes.

DECODER_MAPS = 3
"""Full-size feature maps in the image decoder at its peak: the residual, the activation, and its gate."""


class Janus(TransformersModel):
    """Janus model: Janus-Pro, or the shipped small model.

    Args:
        checkpoint: Folder or hub id in transformers' layout, e.g. ``deepseek-community/Janus-Pro-7B``; ``shapes`` is
            the small model that ships with unigap.
        dtype: Precision of the weights, ``float32`` or ``bfloat16``; the image tokenizer always stays in float32.
        attn_implementation: ``sdpa`` or ``eager``; flash attention takes no mask, which packed questions need.
        device: Device of the weights, e.g. ``cpu`` or ``cuda``; a trainer moves them to its own.
        lora_rank: Rank of the LoRA adapter; 0 trains the trunk in full.
        lora_alpha: Scale of the adapter; the update is multiplied by alpha / rank.
        lora_dropout: Dropout inside the adapter, in [0, 1).
        compile: Sample with a compiled step on a CPU (the first batch takes a minute or two, later ones are several
            times faster), or with a CUDA graph on a GPU. The samples stay the same up to rounding.
        gradient_checkpointing: Recompute the trunk's activations in the backward pass instead of storing them.
        train_also: Module that trains in addition to the trunk: ``generation_aligner`` (from image tokens to the
            trunk; the paper's ablation), ``generation_head`` (from the trunk to image tokens), or ``aligner`` (from the
            vision encoder to the trunk).
    """

    loading = transformers_loading("JanusForConditionalGeneration")
    exact_likelihood: ClassVar[bool] = True

    def __init__(
        self,
        checkpoint: str = "shapes",
        dtype: str = "float32",
        attn_implementation: str = "sdpa",
        device: str = "cpu",
        lora_rank: int = 0,
        lora_alpha: int = 32,
        lora_dropout: float = 0.0,
        compile: bool = False,
        gradient_checkpointing: bool = False,
        train_also: Literal["", "generation_aligner", "generation_head", "aligner"] = "",
    ) -> None:
        super().__init__()
        self._adopt(*janus_from_folder(checkpoint, dtype, attn_implementation, device), checkpoint, compile)
        self._prepare(self.core.language_model, gradient_checkpointing, lora_rank, lora_alpha, lora_dropout)
        if train_also:
            self.core.get_submodule(train_also).requires_grad_(True)

    @classmethod
    def from_parts(cls, net: Any, processor: Any, compile: bool = False) -> Janus:
        """Wrap a ``JanusForConditionalGeneration`` and its ``JanusProcessor``."""
        janus = cls.__new__(cls)
        nn.Module.__init__(janus)
        janus._adopt(net, processor, net.name_or_path or IN_MEMORY, compile)
        return janus

    def _adopt(self, net: Any, processor: Any, base: str, compile: bool) -> None:
        self.net, self.processor, self.base = net, processor, base
        self.core.vqmodel.float()
        self._template = JanusChatTemplate(processor, net.config.text_config.max_position_embeddings)
        self._sampler = JanusSampler(net, self.image_tokens, compile)
        self._understanding = JanusUnderstanding(net, self._template)

    @property
    def core(self) -> Any:
        """The network without its text head (a property, so that no weight has two names)."""
        return self.net.model

    @property
    def n_codes(self) -> int:
        return self.net.config.vq_config.num_embeddings

    @property
    def image_tokens(self) -> int:
        return self.processor.num_image_tokens

    @property
    def codebook(self) -> torch.Tensor:
        return F.normalize(self.core.vqmodel.quantize.embedding.weight, dim=-1)

    @property
    def trunk(self) -> nn.Module:
        # the embedding table is not part of it: only layers shared by both branches train
        return nn.ModuleDict({"layers": self.core.language_model.layers, "norm": self.core.language_model.norm})

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return self.core.language_model.layers

    @property
    def lora_target(self) -> str:
        return llama_targets("model.language_model")

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        rows = [self._template.prompt_ids(text) for text in texts]
        pad = self.processor.tokenizer.pad_token_id
        ids_BL, mask_BL = left_padded(rows, max(map(len, rows)), pad, self._device)
        keep_BL = torch.isin(ids_BL, torch.tensor(self._template.kept_in_null_prompt, device=self._device))
        return PromptBatch(ids_BL, mask_BL, ids_BL.masked_fill(~keep_BL, pad), mask_BL)

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        # in train mode, checkpointed layers silently drop their keys and values
        with evaluating(self):
            return self._sampler.sample(prompt, seeds_BN, recipe)

    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        text, vq, side = self.net.config.text_config, self.net.config.vq_config, self.processor.image_processor.size
        per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * self.net.dtype.itemsize
        sampling = per_token * (self.image_tokens + TYPICAL_PROMPT_TOKENS) * (1 if recipe.cfg == 1 else 2)
        # the last upsampling has the channels of the coarser level
        widest = vq.base_channels * max(vq.channel_multiplier[:2])
        decoding = DECODER_MAPS * widest * side["height"] * side["width"] * torch.float32.itemsize
        return max(sampling, decoding)

    def image_logps(
        self,
        prompt: PromptBatch,
        drawings_R: torch.Tensor,
        noise_R: torch.Tensor | None = None,
        recipe: SamplingRecipe | None = None,
    ) -> torch.Tensor:
        if noise_R is not None:
            raise ValueError("Janus has an exact likelihood and takes no noise; pass noise_R=None")
        return image_logps(self.net, prompt, drawings_R, recipe)

    @torch.no_grad()
    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        with float32_arithmetic(drawings_B.device.type):
            return self.core.vqmodel.decode(drawings_B).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        vq = self.core.vqmodel
        with float32_arithmetic(pixels_BCHW.device.type):
            # transformers' encode omits the normalisation that its decode assumes
            latent_BDHW = F.normalize(vq.quant_conv(vq.encoder(pixels_BCHW.float())), dim=1)
            return (latent_BDHW.flatten(2).transpose(1, 2) @ self.codebook.T).argmax(-1)

    def drawing_digest(self) -> str:
        return digest({"codebook": self.codebook})

    @property
    def _device(self) -> torch.device:
        return self.core.language_model.embed_tokens.weight.device
