"""JanusFlow: a Llama that answers questions about images and samples images by a flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unigap.models.base import (
    TYPICAL_PROMPT_TOKENS,
    FlowTerms,
    PromptBatch,
    Samples,
    SamplingRecipe,
    evaluating,
)
from unigap.models.engine.chat_template import left_padded
from unigap.models.engine.flow_likelihood import FlowLikelihood
from unigap.models.files.lora import llama_targets, merged
from unigap.models.files.saved_folder import Loading
from unigap.models.files.weights import digest
from unigap.models.folder_model import FolderModel
from unigap.models.janus.chat_template import JanusChatTemplate
from unigap.models.janus_flow.checkpoint import JanusFlowParts, janus_flow_from_folder, write_folder
from unigap.models.janus_flow.flow import FlowSettings, ImageFlow
from unigap.models.janus_flow.sampling import JanusFlowSampler
from unigap.models.janus_flow.understanding import JanusFlowUnderstanding
from unigap.records import DrawingFormat

# Shape legend: B prompts or images, N candidates a prompt, R images, M latent tokens of an image, C numbers of a latent
# token, L prompt tokens, Q questions an image, T answer tokens, H W image sides.

LOADING = Loading(
    library="unigap",
    checkpoint="""from unigap.models.janus_flow import JanusFlow

model = JanusFlow(FOLDER)  # JanusFlow's own code loads the folder too""",
    adapter="""from unigap.models.janus_flow import JanusFlow

model = JanusFlow({base!r})
model.net.language_model.load_adapter(FOLDER)""",
)
"""How to load a saved folder; transformers has no JanusFlow."""
USUAL_CFG = 2.0
"""Guidance of the authors' README."""
ENCODING = ("encoder.", "quant_conv.")
"""Beginnings of the names of the weights that only encode pixels."""
DECODER_MAPS = (5, 3)
"""Full-size feature maps in the image decoder at its peak, of the finest level's width or of the next one's."""


class JanusFlow(FolderModel):
    """JanusFlow model (Ma et al. 2024), in the layout of ``deepseek-ai/JanusFlow-1.3B``.

    Equal to the authors' code on small random weights, and not yet tested on the published ones.

    Args:
        checkpoint: Folder or hub id with model.safetensors, config.json, preprocessor_config.json,
            processor_config.json and a tokenizer.
        dtype: Precision of the network, ``float32`` or ``bfloat16``; the image autoencoder stays in float32.
        attn_implementation: ``sdpa`` or ``eager``; flash attention takes no mask, which packed questions need.
        device: Device of the weights, e.g. ``cpu`` or ``cuda``; a trainer moves them to its own.
        lora_rank: Rank of the LoRA adapter; 0 trains the trunk in full.
        lora_alpha: Scale of the adapter; the update is multiplied by alpha / rank.
        lora_dropout: Dropout inside the adapter, in [0, 1).
        gradient_checkpointing: Recompute the trunk's activations in the backward pass instead of storing them.
        vae: Folder or hub id of the image autoencoder in diffusers' layout; ``None`` is the folder ``vae`` in the
            checkpoint, which a saved folder has, or else ``stabilityai/sdxl-vae``, with which the model was trained.
        flow: How images are sampled, and how given images are measured; ``None`` takes the settings of a saved folder,
            and for a published checkpoint the defaults.
    """

    loading = LOADING
    exact_likelihood: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("settings",)

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
        vae: str | None = None,
        flow: FlowSettings | None = None,
    ) -> None:
        super().__init__()
        parts = janus_flow_from_folder(checkpoint, dtype, attn_implementation, device, vae)
        self._adopt(parts if flow is None else dataclasses.replace(parts, flow=flow), checkpoint)
        self._prepare(self.net.language_model, gradient_checkpointing, lora_rank, lora_alpha, lora_dropout)

    def _adopt(self, parts: JanusFlowParts, base: str) -> None:
        self.net, self.codec, self.base, self._parts = parts.net, parts.codec, base, parts
        side = parts.net.shape.image_size // parts.codec.side
        self._flow = ImageFlow(parts.net, parts.processor.tokenizer.pad_token_id, side, side)
        # a frozen parameter, so that weights_digest depends on the settings
        settings = torch.tensor([parts.flow.steps, parts.flow.likelihood_draws], dtype=torch.float32)
        self.settings = nn.Parameter(settings.to(parts.net.device), requires_grad=False)
        context = int(parts.net.shape.llm.max_position_embeddings)
        self._template = JanusChatTemplate(parts.processor, context)
        self.drawing_format = DrawingFormat("float16", self._flow.shape)
        self._sampler = JanusFlowSampler(self._flow, parts.flow)
        self._likelihood = FlowLikelihood(self._flow, parts.flow.likelihood_draws, shift=1.0)
        self._understanding = JanusFlowUnderstanding(parts.net, self._template)

    @property
    def usual_cfg(self) -> float:
        return USUAL_CFG

    @property
    def trunk(self) -> nn.Module:
        # embeddings, heads, encoders and the decoder stay frozen: only layers shared by both branches train
        llm = self.net.language_model.model
        return nn.ModuleDict({"layers": llm.layers, "norm": llm.norm})

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return self.net.language_model.model.layers

    @property
    def lora_target(self) -> str:
        return llama_targets("model")

    @property
    def adapted(self) -> Any:
        return self.net.language_model

    def _write(self, folder: Path) -> None:
        write_folder(dataclasses.replace(self._parts, net=merged(self.net, "language_model")), folder)

    def drawing_digest(self) -> str:
        """Return a SHA-256 of the image decoder and the image size; an equal one decodes the same latents."""
        named = {name: p for name, p in self.codec.vae.named_parameters() if not name.startswith(ENCODING)}
        numbers = torch.tensor([*self._flow.grid, self._flow.shape[1], self.codec.scale], dtype=torch.float64)
        return digest({**named, "grid": numbers})

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        """Tokenize prompts, left-padded, up to the last token before the time and the image.

        The null prompt is as long as the prompt, with pad tokens for all tokens but the first. No token attends to pad
        tokens, which take positions nevertheless, as in the authors' code.

        Raises:
            ValueError: A prompt is empty, has unknown words, or is too long for the context.
        """
        # the last token only begins an image, and the time takes its position
        rows = [self._template.prompt_ids(text)[:-1] for text in texts]
        pad = self._flow.pad
        ids_BL, mask_BL = left_padded(rows, max(map(len, rows)), pad, self.net.device)
        is_first_BL = mask_BL.cumsum(1) == 1
        return PromptBatch(ids_BL, mask_BL, ids_BL.masked_fill(~is_first_BL, pad), mask_BL)

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Sample N images per prompt. Equal seeds give equal images, independent of the rest of the batch up to 1e-4.

        Returns:
            Latents, float32 (B, N, M, C), without log-probabilities, which a flow has none of.

        Raises:
            ValueError: The recipe scales or filters probabilities.
        """
        with evaluating(self):
            return Samples(self._sampler.sample(prompt, seeds_BN, recipe), None)

    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        llm, (tokens, _width) = self.net.shape.llm, self._flow.shape
        halves, itemsize = 1 if recipe.cfg == 1 else 2, self.net.dtype.itemsize
        # keys and values are at most as wide as the model
        prompt = llm.num_hidden_layers * 2 * llm.hidden_size * TYPICAL_PROMPT_TOKENS
        layer = tokens * (4 * llm.hidden_size + 3 * llm.intermediate_size)
        widths = self.codec.vae.config.block_out_channels
        # the first full-size block gets the channels of the coarser level
        channels = max(maps * width for maps, width in zip(DECODER_MAPS, widths, strict=False))
        pixels = tokens * self.codec.side**2
        return max(halves * (prompt + layer) * itemsize, channels * pixels * torch.float32.itemsize)

    def image_logps(
        self,
        prompt: PromptBatch,
        drawings_R: torch.Tensor,
        noise_R: torch.Tensor | None = None,
        recipe: SamplingRecipe | None = None,
    ) -> torch.Tensor:
        """Return a term per latent token, float32 (R, M): minus its squared error of the velocity, a surrogate.

        At a time t and a noise e, the network predicts e minus the image from their mixture; the term is minus the mean
        over the token's numbers of the squared error. It is no log-likelihood: only differences at equal noise mean
        something.

        Args:
            prompt: B prompts.
            drawings_R: One or several images per prompt as latents, (R, M, C); the images of one prompt are
                consecutive.
            noise_R: One seed an image, int64; equal seeds give equal times and noises. ``None`` averages over
                ``likelihood_draws`` seeds that follow from the prompt.
            recipe: ``None``, because there is no likelihood under a recipe.

        Raises:
            ValueError: A recipe is given, the images or seeds have another shape or type, or the number of images is
                not a multiple of the number of prompts.
        """
        if recipe is not None:
            raise ValueError(
                "JanusFlow only has a surrogate likelihood and none under a sampling recipe; pass recipe=None"
            )
        return self._likelihood.surrogate(prompt, drawings_R, noise_R)

    def velocity_terms(self, prompt: PromptBatch, drawings_R: torch.Tensor, noise_R: torch.Tensor) -> FlowTerms:
        return self._likelihood.velocity_terms(prompt, drawings_R, noise_R)

    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        return self.codec.decode(drawings_B, *self._flow.grid)

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the mean latents of pixels in [-1, 1], float32 (B, M, C), without gradient."""
        return self.codec.encode(pixels_BCHW)
