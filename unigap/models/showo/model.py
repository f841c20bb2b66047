"""Show-o: one Phi over words and image codes, which draws by unmasking and reads images as the codes they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unigap.models.base import USUAL_PROMPT, Answers, PromptBatch, Samples, SamplingRecipe, UnifiedModel, evaluating
from unigap.models.engine.chat_template import with_null_prompts
from unigap.models.files.lora import merged, put_lora
from unigap.models.files.saved_folder import Loading, save_folder
from unigap.models.showo.chat_template import ShowOChatTemplate
from unigap.models.showo.checkpoint import showo_from_folder, write_folder
from unigap.models.showo.likelihood import ShowOLikelihood, UnmaskingPath
from unigap.models.showo.masks import random_masks
from unigap.models.showo.network import ShowONetwork
from unigap.models.showo.sampling import ShowOSampler
from unigap.models.showo.understanding import ShowOReader

# Shape legend: B prompts or images, N candidates a prompt, R = B * N images, M image tokens, L prompt tokens,
# Q questions an image, T answer tokens, V image codes, C H W image channels and sides.

LOADING = Loading(
    library="unigap",
    checkpoint="""from unigap.models.showo import ShowO

model = ShowO(FOLDER)""",
    adapter="""from unigap.models.showo import ShowO

model = ShowO({base!r})
model.net.llm.load_adapter(FOLDER)""",
)
"""How a saved folder is loaded: transformers has no Show-o."""
DECODER_MAPS = 3
"""Full-size feature maps the image decoder holds at its peak: what a block adds to, what it works on, and its gate."""


class ShowO(UnifiedModel):
    """A Show-o checkpoint (Xie et al. 2024), in the layout that ``save`` and ``convert_official`` write.

    The published weights were not at hand when this was written: what is known of them is their tensors' names and
    shapes, and the public code.

    Args:
        checkpoint: Folder with config.json, model.safetensors and a tokenizer.
        dtype: Precision of the language model, ``float32`` or ``bfloat16``; the image tokenizer stays in float32.
        attn_implementation: ``sdpa`` or ``eager``; flash attention takes no mask that lets images look both ways.
        device: Where the weights are loaded to, e.g. ``cpu`` or ``cuda``; a trainer moves them to its own.
        lora_rank: 0 trains the trunk in full; above 0 trains a LoRA adapter of this rank.
        lora_alpha: Scale of the adapter; the update is multiplied by alpha / rank.
        lora_dropout: Dropout inside the adapter, in [0, 1).
        gradient_checkpointing: Compute the trunk's activations once more in the backward pass instead of keeping them.
        steps: Most steps in which an image is unmasked, >= 1.
        choice_temperature: How much noise stirs the order of unmasking at first, >= 0; a greedy recipe has none.
        likelihood_masks: How many masks an estimate of the likelihood is the mean of, >= 1. Each costs a forward pass.
    """

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
        steps: int = 18,
        choice_temperature: float = 1.0,
        likelihood_masks: int = 4,
    ) -> None:
        super().__init__()
        net, tokenizer = showo_from_folder(checkpoint, dtype, attn_implementation, device)
        self._adopt(net, tokenizer, checkpoint, steps, choice_temperature, likelihood_masks)
        if gradient_checkpointing:
            net.llm.activation_checkpointing_enable({"use_reentrant": False})
        if lora_rank:
            self.add_lora(lora_rank, lora_alpha, lora_dropout)
        self.train_only_trunk()

    @classmethod
    def from_parts(
        cls,
        net: ShowONetwork,
        tokenizer: Any,
        steps: int = 18,
        choice_temperature: float = 1.0,
        likelihood_masks: int = 4,
    ) -> ShowO:
        """Wraps a network and its tokenizer that are in memory already."""
        showo = cls.__new__(cls)
        nn.Module.__init__(showo)
        showo._adopt(net, tokenizer, "weights made in memory", steps, choice_temperature, likelihood_masks)
        return showo

    def _adopt(
        self, net: ShowONetwork, tokenizer: Any, base: str, steps: int, choice_temperature: float, masks: int
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be >= 1, got {steps}; 18 is usual")
        if not 0 <= choice_temperature < float("inf"):
            raise ValueError(f"choice_temperature must be >= 0 and finite, got {choice_temperature}; 1 is usual")
        if masks < 1:
            raise ValueError(f"likelihood_masks must be >= 1, got {masks}")
        self.net, self.tokenizer, self.base = net, tokenizer, base
        # a parameter that never trains, so that weights_digest tells apart what draws or measures differently
        settings = torch.tensor([steps, choice_temperature, masks], device=net.device)
        self.settings = nn.Parameter(settings, requires_grad=False)
        shape = net.shape
        self._template = ShowOChatTemplate(
            tokenizer, shape.question, shape.image_tokens, shape.llm.max_position_embeddings
        )
        self._sampler = ShowOSampler(net, self._template, steps, choice_temperature)
        self._likelihood = ShowOLikelihood(net, self._template, masks)
        self._reader = ShowOReader(net, self._template)

    @property
    def n_codes(self) -> int:
        return self.net.shape.n_codes

    @property
    def image_tokens(self) -> int:
        return self.net.shape.image_tokens

    @property
    def codebook(self) -> torch.Tensor:
        return self.net.magvit.codebook

    @property
    def usual_cfg(self) -> float:
        return self.net.shape.cfg

    @property
    def trunk(self) -> nn.Module:
        # words and codes share a table: with it in the trunk, learning to draw would move what is read
        core = self.net.llm.model
        return nn.ModuleDict({"layers": core.layers, "final_layernorm": core.final_layernorm})

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return self.net.llm.model.layers

    @property
    def lora_target(self) -> str:
        return r"model\.layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|dense)|mlp\.(fc1|fc2))"

    def add_lora(self, rank: int, alpha: int, dropout: float) -> None:
        put_lora(self.net.llm, self.base, self.lora_target, rank, alpha, dropout)

    def save(self, folder: str | Path, adapter_only: bool = False, recipe: Mapping[str, Any] | None = None) -> None:
        save_folder(self, self.net.llm, self.base, LOADING, self._write, folder, adapter_only, recipe)

    def _write(self, folder: Path) -> None:
        write_folder(merged(self.net, "llm"), self.tokenizer, folder)

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        """Turns prompts into left-padded ids, up to the image.

        A null prompt is the template without a text, which is shorter: it is padded to the same length.

        Raises:
            ValueError: For an empty prompt, words the tokenizer does not know, or a prompt too long for the context.
        """
        rows = [self._template.prompt_ids(text) for text in texts]
        return with_null_prompts(rows, self._template.null_prompt, self._template.pad, self.net.device)

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Draws N images for each prompt. Equal seeds give equal images whatever else is in the batch.

        An image starts fully masked. At each step every masked token is drawn from the model's distribution given the
        tokens fixed so far, under the recipe; those the model gives the highest (guided) probability to, stirred by
        Gumbel noise, are fixed, the others masked again (MaskGIT, Chang et al. 2022).

        Returns:
            The images, and for each token its log-probability at the step that fixed it, given the prompt and the
            tokens fixed at earlier steps, at temperature 1 without guidance. The sum over an image is the exact
            log-probability of its tokens along that order of unmasking, the order taken as given: the choice of the
            order, and what was drawn and masked again, is no part of it. ``path_logps`` gives the same by teacher
            forcing.
        """
        return self.sample_paths(prompt, seeds_BN, recipe)[0]

    def sample_paths(
        self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe
    ) -> tuple[Samples, UnmaskingPath]:
        """``sample_images``, and the way in which the R = B * N images were unmasked."""
        # checkpointed layers in train mode drop their keys and values without a word
        with evaluating(self):
            return self._sampler.sample(prompt, seeds_BN, recipe)

    def path_logps(self, prompt: PromptBatch, path: UnmaskingPath) -> torch.Tensor:
        """Log-probability of each token when it was fixed, float32 (R, M), in nats, at temperature 1, differentiable.

        It costs a forward pass for each step of the path.

        Args:
            prompt: B prompts.
            path: Unmasked images, one for each prompt, or several: then those of one prompt lie side by side.
        """
        return self._likelihood.along(prompt, path)

    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        llm, shape = self.net.shape.llm, self.net.shape
        tokens, halves = shape.image_tokens + 2, 1 if recipe.cfg == 1 else 2
        # keys and values of the prompt in all layers; in the widest layer queries, keys, values, residual and inner MLP
        prompt = 2 * llm.num_hidden_layers * llm.hidden_size * USUAL_PROMPT
        drawn = halves * self.net.llm.dtype.itemsize * (prompt + tokens * (5 * llm.hidden_size + llm.intermediate_size))
        # the last upsampling still has the channels of the level below
        widest = shape.magvit.channels * max(shape.magvit.decoder_widths[:2])
        return max(drawn, DECODER_MAPS * widest * shape.side**2 * torch.float32.itemsize)

    def image_logps(
        self, prompt: PromptBatch, codes_RM: torch.Tensor, noise_RM: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A term for each image token, float32 (R, M), in nats: their sum estimates a bound of the log-likelihood.

        Of a mask with k of M tokens masked, a masked token contributes M / k times its log-probability given the tokens
        that are not masked, the others contribute 0. With k drawn evenly from 1 to M, and which tokens drawn evenly
        given k, the expected sum is the mean over all orders of fixing one token at a time of the log-likelihood along
        the order, which is at most the log-likelihood (Uria et al. 2014, "A Deep and Tractable Density Estimator";
        Hoogeboom et al. 2022, "Autoregressive Diffusion Models"). ``-mean`` over the tokens is then the mean
        cross-entropy of the masked ones, which is what Show-o trains.

        Args:
            prompt: B prompts.
            codes_RM: One image for each, or several: then those of one prompt lie side by side.
            noise_RM: Which tokens are masked, bool. ``None`` takes the mean over ``likelihood_masks`` masks that follow
                from the prompt alone (``showo_masks.prompt_masks``): the value is a function of prompt, image and
                weights, and all images of a prompt, under policy and reference, are measured with the same masks.

        Raises:
            ValueError: The mask has another shape or type, or the images do not fall to the prompts evenly.
        """
        return self._likelihood.estimate(prompt, codes_RM, noise_RM)

    def training_noise(self, codes_RM: torch.Tensor) -> torch.Tensor:
        """One mask for each image, bool (R, M), new at each call: training on fixed masks would learn those alone."""
        return random_masks(*codes_RM.shape).to(codes_RM.device)

    @torch.no_grad()
    def decode(self, codes_BM: torch.Tensor) -> torch.Tensor:
        with torch.autocast(codes_BM.device.type, enabled=False):
            return self.net.magvit.decode(codes_BM).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        with torch.autocast(pixels_BCHW.device.type, enabled=False):
            return self.net.magvit.encode(pixels_BCHW.float())

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
