"""VILA-U: images are residual codes, several a position, which one Llama generates and reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unigap.models.base import (
    TYPICAL_PROMPT_TOKENS,
    PromptBatch,
    Samples,
    SamplingRecipe,
    evaluating,
)
from unigap.models.engine.chat_template import with_null_prompts
from unigap.models.files.lora import llama_targets, merged
from unigap.models.files.saved_folder import Loading
from unigap.models.files.weights import digest
from unigap.models.folder_model import FolderModel
from unigap.models.vila_u.chat_template import VilaUChatTemplate
from unigap.models.vila_u.checkpoint import VilaUParts, vila_u_from_folder, write_folder
from unigap.models.vila_u.likelihood import image_logps
from unigap.models.vila_u.sampling import VilaUSampler
from unigap.models.vila_u.understanding import VilaUUnderstanding
from unigap.records import DrawingFormat

# Shape legend: B prompts or images, N candidates a prompt, R images, M positions of an image, D codes of a position,
# I = M * D codes of an image, V codes, C width of a code vector, Q questions an image, T answer tokens.

LOADING = Loading(
    library="unigap",
    checkpoint="""from unigap.models.vila_u import VilaU

model = VilaU(FOLDER)  # VILA-U's own code loads the folder too""",
    adapter="""from unigap.models.vila_u import VilaU

model = VilaU({base!r})
model.net.llm.load_adapter(FOLDER)""",
)
"""How to load a saved folder; transformers has no VILA-U."""
DECODER_MAPS = ((4, 1), (0, 3))
"""Full-size feature maps in the image decoder, of the finest level's width and of the next one's: in the last residual
block, where the input of the level is still there, and in the first."""


class VilaU(FolderModel):
    """VILA-U model (Wu et al. 2024), in the layout of ``mit-han-lab/vila-u-7b-256``.

    Equal to the authors' code on small random weights, and not yet tested on the published ones.

    Args:
        checkpoint: Folder or hub id with the folders llm, vision_tower and mm_projector.
        dtype: Precision of the network, ``float32`` or ``bfloat16``; the image tokenizer stays in float32.
        attn_implementation: ``sdpa`` or ``eager``; flash attention takes no mask, which packed questions need.
        device: Device of the weights, e.g. ``cpu`` or ``cuda``; a trainer moves them to its own.
        lora_rank: Rank of the LoRA adapter; 0 trains the trunk in full.
        lora_alpha: Scale of the adapter; the update is multiplied by alpha / rank.
        lora_dropout: Dropout inside the adapter, in [0, 1).
        gradient_checkpointing: Recompute the trunk's activations in the backward pass instead of storing them.
    """

    loading = LOADING
    exact_likelihood: ClassVar[bool] = True

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
    ) -> None:
        super().__init__()
        self._adopt(vila_u_from_folder(checkpoint, dtype, attn_implementation, device), checkpoint)
        self._prepare(self.net.llm, gradient_checkpointing, lora_rank, lora_alpha, lora_dropout)

    @classmethod
    def from_parts(cls, parts: VilaUParts) -> VilaU:
        """Wrap a network and its tokenizer."""
        vila_u = cls.__new__(cls)
        nn.Module.__init__(vila_u)
        vila_u._adopt(parts, "weights made in memory")
        return vila_u

    def _adopt(self, parts: VilaUParts, base: str) -> None:
        self.net, self.tokenizer, self.base = parts.net, parts.tokenizer, base
        self._small_files, self._unused, self._cfg = parts.small_files, parts.unused, parts.cfg
        shape, context = self.net.shape, self.net.shape.llm.max_position_embeddings
        if shape.positions >= context:
            raise ValueError(f"checkpoint {base!r}: an image has {shape.positions} positions, the context {context}")
        self.drawing_format = DrawingFormat("int32", shape.code_shape)
        self._template = VilaUChatTemplate(parts.tokenizer, shape.positions, context)
        self._sampler = VilaUSampler(self.net)
        self._understanding = VilaUUnderstanding(self.net, self._template)

    @property
    def n_codes(self) -> int:
        """V, the codes of one depth."""
        return self.net.shape.tokenizer.n_codes

    @property
    def codebook(self) -> torch.Tensor:
        """Vectors of the codes, float32 (V, C), of all depths one below the other if they differ."""
        quantizer = self.net.image_tokenizer.quantizer
        return torch.cat([quantizer.table(depth) for depth in range(len(quantizer.codebooks))])

    @property
    def usual_cfg(self) -> float:
        return self._cfg

    @property
    def trunk(self) -> nn.Module:
        # embeddings, head and depth transformer stay frozen: only layers shared by both branches train
        return nn.ModuleDict({"layers": self.net.llm.model.layers, "norm": self.net.llm.model.norm})

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return self.net.llm.model.layers

    @property
    def lora_target(self) -> str:
        return llama_targets("model")

    @property
    def adapted(self) -> Any:
        return self.net.llm

    def _write(self, folder: Path) -> None:
        net = merged(self.net, "llm")
        write_folder(VilaUParts(net, self.tokenizer, self._small_files, self._unused), folder)

    def drawing_digest(self) -> str:
        """Return a SHA-256 of the codebooks and the image decoder; an equal one decodes the same codes."""
        tokenizer = self.net.image_tokenizer
        decoder = {**dict(tokenizer.decoder.named_parameters("decoder")), "codebook": self.codebook}
        return digest({**decoder, **dict(tokenizer.post_quant_conv.named_parameters("post_quant_conv"))})

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        """Tokenize prompts, left-padded, up to the start of the image.

        The null prompt is the chat without a text, padded to the same length.

        Raises:
            ValueError: A prompt is empty, has unknown words, or is too long for the context.
        """
        rows = [self._template.prompt_ids(text) for text in texts]
        return with_null_prompts(rows, self._template.null_prompt, self._template.pad, self.net.device)

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Sample N images per prompt. Equal seeds give equal images, independent of the rest of the batch.

        Returns:
            Codes, int64 (B, N, M, D), and a log-probability for each code, (B, N, I), position by position.
        """
        # in train mode, checkpointed layers silently drop their keys and values
        with evaluating(self):
            return self._sampler.sample(prompt, seeds_BN, recipe)

    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        llm, tokenizer = self.net.shape.llm, self.net.shape.tokenizer
        heads = llm.num_key_value_heads or llm.num_attention_heads
        per_token = 2 * llm.num_hidden_layers * heads * self.net.llm.config.head_dim * self.net.dtype.itemsize
        passes = 1 if recipe.cfg == 1 else 2
        sampling = per_token * (self.net.shape.positions + TYPICAL_PROMPT_TOKENS) * passes
        fine, coarse = (*tokenizer.decoder.ch_mult[:2], 0)[:2]
        maps = max(of_fine * fine + of_coarse * coarse for of_fine, of_coarse in DECODER_MAPS)
        return max(sampling, maps * tokenizer.decoder.ch * tokenizer.side**2 * torch.float32.itemsize)

    def image_logps(
        self,
        prompt: PromptBatch,
        drawings_R: torch.Tensor,
        noise_R: torch.Tensor | None = None,
        recipe: SamplingRecipe | None = None,
    ) -> torch.Tensor:
        """Return the log-probability of each code given those before it, float32 (R, I), in nats.

        Codes are ordered position by position, and by depth within a position.

        Args:
            prompt: B prompts.
            drawings_R: Codes, int64 (R, M, D), of one or several images per prompt; the images of one prompt are
                consecutive.
            noise_R: ``None``, because the likelihood is exact.
            recipe: Distribution that the images were sampled from; ``None`` is the plain one.

        Raises:
            ValueError: Noise is given, the recipe is greedy, the images have another shape, or their number is not a
                multiple of the number of prompts.
        """
        if noise_R is not None:
            raise ValueError("VILA-U has an exact likelihood and takes no noise; pass noise_R=None")
        return image_logps(self.net, prompt, drawings_R, recipe)

    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        return self.net.image_tokenizer.decode(drawings_B)

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.net.image_tokenizer.encode(pixels_BCHW)
