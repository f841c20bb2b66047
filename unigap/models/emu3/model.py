"""Emu3 on transformers' own classes: one Llama over words and image codes alike, drawn and read from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unigap.models.base import USUAL_PROMPT, Answers, PromptBatch, Samples, SamplingRecipe, UnifiedModel, evaluating
from unigap.models.emu3.chat_template import Emu3ChatTemplate
from unigap.models.emu3.checkpoint import emu3_from_folder
from unigap.models.emu3.image_tokenizer import Emu3ImageTokenizer
from unigap.models.emu3.image_tokens import ImageTokens
from unigap.models.emu3.likelihood import image_logps
from unigap.models.emu3.sampling import Emu3Sampler
from unigap.models.emu3.understanding import Emu3Reader
from unigap.models.engine.chat_template import with_null_prompts
from unigap.models.files.lora import merged, put_lora
from unigap.models.files.saved_folder import Loading, save_folder

# Shape legend: B prompts or images, N candidates a prompt, R images, M image codes of one, L prompt tokens,
# Q questions an image, T answer tokens, V image codes, C H W image channels and sides.

LOADING = Loading(
    library="transformers",
    checkpoint="""from transformers import AutoProcessor, Emu3ForConditionalGeneration

model = Emu3ForConditionalGeneration.from_pretrained(FOLDER)
processor = AutoProcessor.from_pretrained(FOLDER)""",
    adapter="""from peft import PeftModel
from transformers import AutoProcessor, Emu3ForConditionalGeneration

model = PeftModel.from_pretrained(Emu3ForConditionalGeneration.from_pretrained({base!r}), FOLDER)
processor = AutoProcessor.from_pretrained({base!r})""",
)
"""How a saved folder is loaded without unigap."""
DECODER_MAPS = 6
"""Full-size feature maps the image decoder holds at its peak, where a map is scaled and shifted by the codes."""


class Emu3(UnifiedModel):
    """An Emu3 checkpoint (Wang et al. 2024) in transformers' layout, the one for drawing or the one for chat.

    The published weights were not at hand when this was written: what is known of them is transformers' code.

    Args:
        checkpoint: Folder or hub id, e.g. ``BAAI/Emu3-Gen-hf``.
        dtype: Precision of the weights, ``float32`` or ``bfloat16``; the image tokenizer always stays in float32.
        attn_implementation: ``sdpa`` or ``eager``; flash attention takes no mask that keeps packed questions apart.
        device: Where the weights are loaded to, e.g. ``cpu`` or ``cuda``; a trainer moves them to its own.
        lora_rank: 0 trains the trunk in full; above 0 trains a LoRA adapter of this rank.
        lora_alpha: Scale of the adapter; the update is multiplied by alpha / rank.
        lora_dropout: Dropout inside the adapter, in [0, 1).
        gradient_checkpointing: Compute the trunk's activations once more in the backward pass instead of keeping them.
        image_area: Pixels of a drawing, which is square, and of a picture that is looked at; no more than the
            ``max_pixels`` of the checkpoint's image processor. A saved folder does not remember it.
    """

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
        if gradient_checkpointing:
            self.core.text_model.activation_checkpointing_enable({"use_reentrant": False})
        if lora_rank:
            self.add_lora(lora_rank, lora_alpha, lora_dropout)
        self.train_only_trunk()

    @classmethod
    def from_parts(cls, net: Any, processor: Any, image_area: int = 518_400) -> Emu3:
        """Wraps an ``Emu3ForConditionalGeneration`` and its ``Emu3Processor`` that are in memory already."""
        emu3 = cls.__new__(cls)
        nn.Module.__init__(emu3)
        emu3._adopt(net, processor, net.name_or_path or "weights made in memory", image_area)
        return emu3

    def _adopt(self, net: Any, processor: Any, base: str, image_area: int) -> None:
        self.net, self.processor, self.base = net, processor, base
        self.core.vqmodel.float()
        for layer in self.core.text_model.layers:
            # on by default in its config; with it, one image would have many likelihoods
            layer.dropout.p = layer.self_attn.attention_dropout = 0.0
        area = min(image_area, processor.image_processor.max_pixels)
        rows, columns = processor.calculate_generate_size("1:1", area, processor.downsample_ratio)
        context = net.config.text_config.max_position_embeddings
        if not 0 < rows * (columns + 1) < context:
            raise ValueError(f"image_area {image_area}: {rows} x {columns} codes; the context holds {context} tokens")
        # a parameter that never trains, so that weights_digest tells apart what draws in another size
        self.grid = nn.Parameter(torch.tensor([rows, columns], dtype=torch.float, device=net.device), False)
        self.words = ImageTokens(self.core.vocabulary_mapping, self.n_codes, rows, columns).to(net.device)
        self._template = Emu3ChatTemplate(processor, rows, columns, context)
        self.pictures = Emu3ImageTokenizer(self.core.vqmodel, processor.image_processor, rows, columns)
        self._sampler = Emu3Sampler(net, self.words)
        self._reader = Emu3Reader(net, self.words, self.pictures, self._template)

    @property
    def core(self) -> Any:
        """The network below its head (a property: registering it would name every weight twice)."""
        return self.net.model

    @property
    def n_codes(self) -> int:
        return self.net.config.vq_config.codebook_size

    @property
    def image_tokens(self) -> int:
        return len(self.words.place_M)

    @property
    def codebook(self) -> torch.Tensor:
        return self.core.vqmodel.quantize.embedding.weight

    @property
    def usual_cfg(self) -> float:
        return self.net.generation_config.guidance_scale or 1.0

    @property
    def trunk(self) -> nn.Module:
        # words and codes share a table and a head: with them in the trunk, learning to draw would move what is read
        return nn.ModuleDict({"layers": self.core.text_model.layers, "norm": self.core.text_model.norm})

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return self.core.text_model.layers

    @property
    def lora_target(self) -> str:
        return r"model\.text_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"

    def add_lora(self, rank: int, alpha: int, dropout: float) -> None:
        put_lora(self.net, self.base, self.lora_target, rank, alpha, dropout)

    def save(self, folder: str | Path, adapter_only: bool = False, recipe: Mapping[str, Any] | None = None) -> None:
        save_folder(self, self.net, self.base, LOADING, self._write, folder, adapter_only, recipe)

    def _write(self, folder: Path) -> None:
        merged(self.net).save_pretrained(folder)
        self.processor.save_pretrained(folder)

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        """Turns prompts into left-padded ids, up to the first code of the image.

        A null prompt is the template without a text, which is shorter: it is padded to the same length.

        Raises:
            ValueError: For an empty prompt, words the tokenizer does not know, or a prompt too long for the context.
        """
        rows = [self._template.prompt_ids(text) for text in texts]
        return with_null_prompts(rows, self._template.null_prompt, self._template.pad, self.net.device)

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        # checkpointed layers in train mode drop their keys and values without a word
        with evaluating(self):
            return self._sampler.sample(prompt, seeds_BN, recipe)

    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        text, vq = self.net.config.text_config, self.net.config.vq_config
        width = text.hidden_size // text.num_attention_heads
        per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * width * self.net.lm_head.weight.itemsize
        drawn = per_token * (self.words.written_length + USUAL_PROMPT) * (1 if recipe.cfg == 1 else 2)
        # the last upsampling still has the channels of the level below
        widest = vq.base_channels * max(vq.channel_multiplier[:2])
        height, across = self.pictures.side
        # the vectors of the codes are spread to the same size
        maps = DECODER_MAPS * widest + vq.embed_dim
        return max(drawn, maps * height * across * torch.float32.itemsize)

    def image_logps(
        self, prompt: PromptBatch, codes_RM: torch.Tensor, noise_RM: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Log-probability of each image code among all image codes, float32 (R, M), in nats, at temperature 1.

        The ends of lines are given and have no term: what can be drawn has a total probability of 1.

        Args:
            prompt: B prompts.
            codes_RM: One image for each, or several: then those of one prompt lie side by side.
            noise_RM: ``None``: the likelihood is exact.

        Raises:
            ValueError: For any noise, and when the images do not fall to the prompts evenly.
        """
        if noise_RM is not None:
            raise ValueError("Emu3 has an exact likelihood and takes no noise; pass noise_RM=None")
        return image_logps(self.net, self.words, prompt, codes_RM)

    def training_noise(self, codes_RM: torch.Tensor) -> None:
        return None

    def decode(self, codes_BM: torch.Tensor) -> torch.Tensor:
        return self.pictures.decode(codes_BM)

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.pictures.encode(pixels_BCHW)

    # -- understanding

    def judge_answers(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> Answers:
        return self._reader.judge_answers(pixels_BCHW, questions_BQ)

    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._reader.text_logps(pixels_BCHW, questions_BQ, answers_BQ)
