"""BAGEL: one transformer with an expert for understanding and one for generation, which samples images by a flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from unigap.models.bagel.chat_template import BagelChatTemplate
from unigap.models.bagel.checkpoint import BagelParts, bagel_from_folder, write_folder
from unigap.models.bagel.experts import EXPERTS, GENERATION, UNDERSTANDING, TrainedExperts
from unigap.models.bagel.flow import FlowSettings, ImageFlow
from unigap.models.bagel.sampling import BagelSampler
from unigap.models.bagel.understanding import BagelUnderstanding
from unigap.models.base import FlowTerms, PromptBatch, Samples, SamplingRecipe, evaluating
from unigap.models.engine.chat_template import with_null_prompts
from unigap.models.engine.flow_likelihood import FlowLikelihood
from unigap.models.files.lora import merged
from unigap.models.files.saved_folder import Loading
from unigap.models.files.weights import digest
from unigap.models.folder_model import FolderModel
from unigap.records import DrawingFormat

# Shape legend: B prompts or images, N candidates a prompt, R images, M latent tokens of an image, C numbers of a latent
# token, L prompt tokens, Q questions an image, T answer tokens, H W image sides.

Trained = Literal["generation", "shared", "all"]
TRAINED: Mapping[Trained, tuple[str, ...]] = {
    "generation": (GENERATION,),
    "shared": (UNDERSTANDING,),
    "all": EXPERTS,
}
"""Experts that each choice trains."""
UNREACHED = (
    "{last}.self_attn.o_proj.",
    "{last}.post_attention_layernorm.",
    "{last}.mlp.",
    "net.language_model.model.norm.",
)
"""Weights after the last attention of the understanding expert: no latent attends to what they compute."""
LOADING = Loading(
    library="unigap",
    checkpoint="""from unigap.models.bagel import Bagel

model = Bagel(FOLDER)  # BAGEL's own code loads the folder too""",
    adapter="""from unigap.models.bagel import Bagel

model = Bagel({base!r})
model.net.language_model.load_adapter(FOLDER)""",
)
"""How to load a saved folder; transformers has no BAGEL."""
USUAL_CFG = 4.0
"""Text guidance of the authors' notebook and of their GenEval script."""
DECODER_MAPS = (5, 3)
"""Full-size feature maps in the image decoder at its peak, of the finest level's width or of the next one's."""
LAYER_MAPS = 8
"""Activations of the latents in one layer, in hidden widths: residuals, norms, queries, keys, values, output."""


class Bagel(FolderModel):
    """BAGEL model (Deng et al. 2025), in the layout of ``ByteDance-Seed/BAGEL-7B-MoT``.

    Equal to the authors' code on small random weights, and not yet tested on the published ones.

    Args:
        checkpoint: Folder or hub id with ema.safetensors, ae.safetensors, llm_config.json, vit_config.json, config.json
            and a tokenizer.
        dtype: Precision of the network, ``float32`` or ``bfloat16``; the image autoencoder stays in float32.
        attn_implementation: ``sdpa`` or ``eager``; flash attention takes no mask, which packed questions need.
        device: Device of the weights, e.g. ``cpu`` or ``cuda``; a trainer moves them to its own.
        lora_rank: Rank of the LoRA adapter; 0 trains the experts in full.
        lora_alpha: Scale of the adapter; the update is multiplied by alpha / rank.
        lora_dropout: Dropout inside the adapter, in [0, 1).
        gradient_checkpointing: Recompute the layers' activations in the backward pass instead of storing them.
        train: Experts that train: ``generation`` (latents only; the answers to questions cannot change), ``shared``
            (the understanding expert: text of prompts and everything that is read), or ``all``.
        image_size: Pixels per side of generated images, a multiple of 16; ``None`` is that of a saved folder, and for a
            published checkpoint the most it has positions for, 1024.
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
        train: Trained = "all",
        image_size: int | None = None,
        flow: FlowSettings | None = None,
    ) -> None:
        super().__init__()
        parts = bagel_from_folder(checkpoint, dtype, attn_implementation, device)
        named = (("image_size", image_size), ("flow", flow))
        given: dict[str, Any] = {name: value for name, value in named if value is not None}
        self._adopt(dataclasses.replace(parts, **given), checkpoint, train)
        self._prepare(self.net.language_model, gradient_checkpointing, lora_rank, lora_alpha, lora_dropout)

    def _adopt(self, parts: BagelParts, base: str, train: Trained) -> None:
        if train not in TRAINED:
            raise ValueError(f"train must be one of {', '.join(TRAINED)}, got {train!r}")
        most = parts.net.shape.latent_side * parts.codec.side
        image_size = most if parts.image_size is None else parts.image_size
        if image_size % parts.codec.side or not 1 <= image_size <= most:
            raise ValueError(
                f"checkpoint {base!r}: image_size must be a multiple of {parts.codec.side} and at most {most} pixels, "
                f"got {image_size}"
            )
        tokens = image_size // parts.codec.side
        self.net, self.codec, self.tokenizer, self.base, self.train_experts = (
            parts.net, parts.codec, parts.tokenizer, base, TRAINED[train],
        )  # fmt: skip
        self._image_size, self._settings, self._small_files = image_size, parts.flow, parts.small_files
        # a frozen parameter, so that weights_digest depends on the settings
        settings = torch.tensor([image_size, *parts.flow.numbers()], dtype=torch.float32, device=self.net.device)
        self.settings = nn.Parameter(settings, requires_grad=False)
        self._template = BagelChatTemplate(parts.tokenizer, self.net.shape.llm.max_position_embeddings)
        marks = (self._template.image_start, self._template.image_end)
        self._flow = ImageFlow(self.net, marks, tokens, tokens)
        last = f"net.language_model.model.layers.{len(self.blocks) - 1}"
        self.unreached_by_images = tuple(name.format(last=last) for name in UNREACHED)
        self.drawing_format = DrawingFormat("float16", self._flow.shape)
        self._sampler = BagelSampler(self._flow, parts.flow)
        self._likelihood = FlowLikelihood(self._flow, parts.flow.likelihood_draws, parts.flow.training_shift)
        self._understanding = BagelUnderstanding(self.net, self._template)

    @property
    def usual_cfg(self) -> float:
        return USUAL_CFG

    @property
    def trunk(self) -> nn.Module:
        # embeddings and heads stay frozen: only layers train
        return TrainedExperts(self.net.language_model.model, self.train_experts)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.net.language_model.model.layers)

    @property
    def lora_target(self) -> str:
        experts = "|".join(self.train_experts)
        return rf"model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj({experts})|mlp({experts})\.(gate|up|down)_proj)"

    @property
    def adapted(self) -> Any:
        return self.net.language_model

    def _write(self, folder: Path) -> None:
        net = merged(self.net, "language_model")
        files, settings = self._small_files, (self._image_size, self._settings)
        write_folder(BagelParts(net, self.codec, self.tokenizer, files, *settings), folder)

    def drawing_digest(self) -> str:
        """Return a SHA-256 of the image decoder and the image size; an equal one decodes the same latents."""
        decoder = {f"decoder.{name}": tensor for name, tensor in self.codec.vae.decoder.named_parameters()}
        return digest({**decoder, "grid": torch.tensor([*self._flow.grid, self._flow.shape[1]])})

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        """Tokenize prompts, left-padded, up to the start of the image.

        The null prompt has no tokens at all: its mask is 0 everywhere.

        Raises:
            ValueError: A prompt is empty, has unknown words, or is too long for the context.
        """
        rows = [self._template.prompt_ids(text) for text in texts]
        return with_null_prompts(rows, [], self._template.pad, self.net.device)

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
        layer = tokens * (LAYER_MAPS * llm.hidden_size + 2 * llm.intermediate_size) * self.net.dtype.itemsize
        widths = self.codec.vae.config.block_out_channels
        # the first full-size block gets the channels of the coarser level
        channels = max(maps * width for maps, width in zip(DECODER_MAPS, widths, strict=False))
        return max(layer, channels * tokens * self.codec.side**2 * torch.float32.itemsize)

    def image_logps(
        self,
        prompt: PromptBatch,
        drawings_R: torch.Tensor,
        noise_R: torch.Tensor | None = None,
        recipe: SamplingRecipe | None = None,
    ) -> torch.Tensor:
        """Return a term per latent token, float32 (R, M): minus its squared error of the velocity, a surrogate.

        At a time t and a noise e, the network predicts e minus the image from their mixture; the term is minus the mean
        over the token's numbers of the squared error. The mean over tokens is minus the authors' training loss. It is
        no log-likelihood: only differences at equal noise mean something.

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
            raise ValueError("BAGEL only has a surrogate likelihood and none under a sampling recipe; pass recipe=None")
        return self._likelihood.surrogate(prompt, drawings_R, noise_R)

    def velocity_terms(self, prompt: PromptBatch, drawings_R: torch.Tensor, noise_R: torch.Tensor) -> FlowTerms:
        return self._likelihood.velocity_terms(prompt, drawings_R, noise_R)

    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        return self.codec.decode(drawings_B, *self._flow.grid)

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the mean latents of pixels in [-1, 1], float32 (B, M, C), without gradient."""
        return self.codec.encode(pixels_BCHW)
