"""Emu3 on transformers' classes: one causal Llama over a shared vocabulary of text tokens and image codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from unigap.models.base import TYPICAL_PROMPT_TOKENS, PromptBatch, Samples, SamplingRecipe, evaluating
from unigap.models.emu3.chat_template import Emu3ChatTemplate
from unigap.models.emu3.checkpoint import emu3_from_folder
from unigap.models.emu3.image_tokenizer import Emu3ImageTokenizer
from unigap.models.emu3.image_tokens import ImageTokens
from unigap.models.emu3.likelihood import image_logps
from unigap.models.emu3.sampling import Emu3Sampler
from unigap.models.emu3.understanding import Emu3Understanding
from unigap.models.engine.chat_template import with_null_prompts
from unigap.models.files.lora import llama_targets
from unigap.models.files.weights import digest
from unigap.models.folder_model import IN_MEMORY, TransformersModel, transformers_loading

# Shape legend: B prompts or images, N candidates a prompt, R images, M image codes of one, L prompt tokens,
# Q questions an image, T answer tokens, V image codes, C H W image channels and sides.

DECODER_MAPS = 6
"""Full-size feature maps in the image decoder at its peak, where the codes scale and shift a map."""


class Emu3(TransformersModel):
    """Emu3 model (Wang et al. 2024) in transformers' layout, from the generation or the chat checkpoint.

    Written from transformers' code and not yet tested on the published weights.

    Args:
        checkpoint: Folder or hub id, e.g. ``BAAI/Emu3-Gen-hf``.
        dtype: Precision of the weights, ``float32`` or ``bfloat16``; the image tokenizer always stays in float32.
        attn_implementation: ``sdpa`` or ``eager``; flash attention takes no mask, which packed questions need.
        device: Device of the weights, e.g. ``cpu`` or ``cuda``; a trainer moves them to its own.
        lora_rank: Rank of the LoRA adapter; 0 trains the trunk in full.
        lora_alpha: Scale of the adapter; the update is multiplied by alpha / rank.
        lora_dropout: Dropout inside the adapter, in [0, 1).
        gradient_checkpointing: Recompute the trunk's activations in the backward pass instead of storing them.
        image_area: Number of pixels of an image, generated (square) or judged; at most the ``max_pixels`` of the
            checkpoint's image processor. Not stored in a saved folder.
    """

    loading = transformers_loading("Emu3ForConditionalGeneration")
    exact_likelihood: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("grid",)

    def __init__(
        self,
        checkpoint: str,
        dtype: str = "float32",
        attn_implementation: str = "sdpa",
        device: str = "cpu",
        lora_rank: int = 0,
        lora_alpha: int = 32,
        lora_dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        image_area: int = 518_400,
    ) -> None:
        super().__init__()
        self._adopt(*emu3_from_folder(checkpoint, dtype, attn_implementation, device), checkpoint, image_area)
        self._prepare(self.core.text_model, gradient_checkpointing, lora_rank, lora_alpha, lora_dropout)

    @classmethod
    def from_parts(cls, net: Any, processor: Any, image_area: int = 518_400) -> Emu3:
        """Wrap an ``Emu3ForConditionalGeneration`` and its ``Emu3Processor``."""
        emu3 = cls.__new__(cls)
        nn.Module.__init__(emu3)
        emu3._adopt(net, processor, net.name_or_path or IN_MEMORY, image_area)
        return emu3

    def _adopt(self, net: Any, processor: Any, base: str, image_area: int) -> None:
        self.net, self.processor, self.base = net, processor, base
        self.core.vqmodel.float()
        for layer in self.core.text_model.layers:
            # on by default in the config; it would make likelihoods random
            layer.dropout.p = layer.self_attn.attention_dropout = 0.0
        area = min(image_area, processor.image_processor.max_pixels)
        rows, columns = processor.calculate_generate_size("1:1", area, processor.downsample_ratio)
        context = net.config.text_config.max_position_embeddings
        if not 0 < rows * (columns + 1) < context:
            raise ValueError(f"image_area {image_area}: {rows} x {columns} codes; the context holds {context} tokens")
        # a frozen parameter, so that weights_digest depends on the image size
        self.grid = nn.Parameter(torch.tensor([rows, columns], dtype=torch.float, device=net.device), False)
        self.layout = ImageTokens(self.core.vocabulary_mapping, self.n_codes, rows, columns).to(net.device)
        self._template = Emu3ChatTemplate(processor, rows, columns, context)
        self.image_tokenizer = Emu3ImageTokenizer(self.core.vqmodel, processor.image_processor, rows, columns)
        self._sampler = Emu3Sampler(net, self.layout)
        self._understanding = Emu3Understanding(net, self.layout, self.image_tokenizer, self._template)

    @property
    def core(self) -> Any:
        """The network without its head (a property, so that no weight has two names)."""
        return self.net.model

    @property
    def n_codes(self) -> int:
        return self.net.config.vq_config.codebook_size

    @property
    def image_tokens(self) -> int:
        return len(self.layout.position_M)

    @property
    def codebook(self) -> torch.Tensor:
        return self.core.vqmodel.quantize.embedding.weight

    @property
    def trunk(self) -> nn.Module:
        # text tokens and codes share embeddings and head: training them on images would change how text is read
        return nn.ModuleDict({"layers": self.core.text_model.layers, "norm": self.core.text_model.norm})

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return self.core.text_model.layers

    @property
    def lora_target(self) -> str:
        return llama_targets("model.text_model")

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        """Tokenize prompts, left-padded, up to the first code of the image.

        The null prompt is the template without text, padded to the same length.

        Raises:
            ValueError: A prompt is empty, has unknown words, or is too long for the context.
        """
        rows = [self._template.prompt_ids(text) for text in texts]
        return with_null_prompts(rows, self._template.null_prompt, self._template.pad, self.net.device)

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        # in train mode, checkpointed layers silently drop their keys and values
        with evaluating(self):
            return self._sampler.sample(prompt, seeds_BN, recipe)

    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        text, vq = self.net.config.text_config, self.net.config.vq_config
        head_dim = text.hidden_size // text.num_attention_heads
        per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * self.net.lm_head.weight.itemsize
        sampling = per_token * (self.layout.length + TYPICAL_PROMPT_TOKENS) * (1 if recipe.cfg == 1 else 2)
        # the last upsampling has the channels of the coarser level
        widest = vq.base_channels * max(vq.channel_multiplier[:2])
        height, width = self.image_tokenizer.side
        # the code embeddings are upsampled to the full size
        maps = DECODER_MAPS * widest + vq.embed_dim
        return max(sampling, maps * height * width * torch.float32.itemsize)

    def image_logps(
        self,
        prompt: PromptBatch,
        drawings_R: torch.Tensor,
        noise_R: torch.Tensor | None = None,
        recipe: SamplingRecipe | None = None,
    ) -> torch.Tensor:
        """Return the log-probability of each image code, normalised over image codes, float32 (R, M), in nats.

        End-of-line tokens are forced and have no term, so that the probabilities of all images sum to 1.

        Args:
            prompt: B prompts.
            drawings_R: Image codes, int64 (R, M), of one or several images per prompt; the images
                of one prompt are consecutive.
            noise_R: ``None``, because the likelihood is exact.
            recipe: Distribution that the images were sampled from; ``None`` is the plain one.

        Raises:
            ValueError: Noise is given, the recipe is greedy, or the number of images is not a multiple of the number
                of prompts.
        """
        if noise_R is not None:
            raise ValueError("Emu3 has an exact likelihood and takes no noise; pass noise_R=None")
        return image_logps(self.net, self.layout, prompt, drawings_R, recipe)

    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        return self.image_tokenizer.decode(drawings_B)

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.image_tokenizer.encode(pixels_BCHW)

    def drawing_digest(self) -> str:
        return digest({"codebook": self.codebook})
