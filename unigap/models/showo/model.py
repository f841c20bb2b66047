"""Show-o: one Phi over text tokens and image codes, which generates images by unmasking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unigap.models.base import TYPICAL_PROMPT_TOKENS, PromptBatch, Samples, SamplingRecipe, evaluating
from unigap.models.engine.chat_template import with_null_prompts
from unigap.models.engine.precision import float32_arithmetic
from unigap.models.files.lora import merged
from unigap.models.files.saved_folder import Loading
from unigap.models.files.weights import digest
from unigap.models.folder_model import IN_MEMORY, FolderModel
from unigap.models.showo.chat_template import ShowOChatTemplate
from unigap.models.showo.checkpoint import showo_from_folder, write_folder
from unigap.models.showo.likelihood import ShowOLikelihood, UnmaskingPath
from unigap.models.showo.network import ShowONetwork
from unigap.models.showo.sampling import ShowOSampler
from unigap.models.showo.understanding import ShowOUnderstanding

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
"""How to load a saved folder; transformers has no Show-o."""
DECODER_MAPS = 3
"""Full-size feature maps in the image decoder at its peak: the residual, the activation, and its gate."""


class ShowO(FolderModel):
    """Show-o model (Xie et al. 2024), in the layout that ``save`` and ``convert_official`` write.

    Written from the public code and the names and shapes of the published tensors, and not yet tested on the published
    weights.

    Args:
        checkpoint: Folder with config.json, model.safetensors and a tokenizer.
        dtype: Precision of the language model, ``float32`` or ``bfloat16``; the image tokenizer stays in float32.
        attn_implementation: ``sdpa`` or ``eager``; flash attention takes no mask, which bidirectional images need.
        device: Device of the weights, e.g. ``cpu`` or ``cuda``; a trainer moves them to its own.
        lora_rank: Rank of the LoRA adapter; 0 trains the trunk in full.
        lora_alpha: Scale of the adapter; the update is multiplied by alpha / rank.
        lora_dropout: Dropout inside the adapter, in [0, 1).
        gradient_checkpointing: Recompute the trunk's activations in the backward pass instead of storing them.
        steps: Maximum number of unmasking steps of an image, >= 1.
        choice_temperature: Initial scale of the noise on the order of unmasking, >= 0; a greedy recipe has no noise.
        likelihood_masks: Number of masks averaged in a likelihood estimate, >= 1. Each costs a forward pass.
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
        steps: int = 18,
        choice_temperature: float = 1.0,
        likelihood_masks: int = 4,
    ) -> None:
        super().__init__()
        net, tokenizer = showo_from_folder(checkpoint, dtype, attn_implementation, device)
        self._adopt(net, tokenizer, checkpoint, steps, choice_temperature, likelihood_masks)
        self._prepare(net.llm, gradient_checkpointing, lora_rank, lora_alpha, lora_dropout)

    @classmethod
    def from_parts(
        cls,
        net: ShowONetwork,
        tokenizer: Any,
        steps: int = 18,
        choice_temperature: float = 1.0,
        likelihood_masks: int = 4,
    ) -> ShowO:
        """Wrap a network and its tokenizer."""
        showo = cls.__new__(cls)
        nn.Module.__init__(showo)
        showo._adopt(net, tokenizer, IN_MEMORY, steps, choice_temperature, likelihood_masks)
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
        # a frozen parameter, so that weights_digest depends on the settings
        settings = torch.tensor([steps, choice_temperature, masks], device=net.device)
        self.settings = nn.Parameter(settings, requires_grad=False)
        shape = net.shape
        self._template = ShowOChatTemplate(
            tokenizer, shape.question, shape.image_tokens, shape.llm.max_position_embeddings
        )
        self._sampler = ShowOSampler(net, self._template, steps, choice_temperature)
        self._likelihood = ShowOLikelihood(net, self._template, masks)
        self._understanding = ShowOUnderstanding(net, self._template)

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
        # text tokens and codes share embeddings: training them on images would change how text is read
        core = self.net.llm.model
        return nn.ModuleDict({"layers": core.layers, "final_layernorm": core.final_layernorm})

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return self.net.llm.model.layers

    @property
    def lora_target(self) -> str:
        return r"model\.layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|dense)|mlp\.(fc1|fc2))"

    @property
    def adapted(self) -> Any:
        return self.net.llm

    def _write(self, folder: Path) -> None:
        write_folder(merged(self.net, "llm"), self.tokenizer, folder)

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        """Tokenize prompts, left-padded, up to the image.

        The null prompt is the template without text, padded to the same length.

        Raises:
            ValueError: A prompt is empty, has unknown words, or is too long for the context.
        """
        rows = [self._template.prompt_ids(text) for text in texts]
        return with_null_prompts(rows, self._template.null_prompt, self._template.pad, self.net.device)

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Sample N images per prompt. Equal seeds give equal images, independent of the rest of the batch.

        An image starts fully masked. Each step samples every masked token given the fixed ones, fixes the tokens with
        the highest guided log-probability plus Gumbel noise, and masks the others again (MaskGIT, Chang et al. 2022).

        Returns:
            The images, and for each token its log-probability at the step that fixed it, given the prompt and the
            tokens fixed before, at temperature 1 without guidance. Their sum is the exact log-probability of the image
            given its order of unmasking. It does not include the probability of that order. ``path_logps`` computes the
            same values by teacher forcing.
        """
        return self.sample_paths(prompt, seeds_BN, recipe)[0]

    def sample_paths(
        self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe
    ) -> tuple[Samples, UnmaskingPath]:
        """Sample as ``sample_images`` does, and also return the order of unmasking of the R = B * N images."""
        # in train mode, checkpointed layers silently drop their keys and values
        with evaluating(self):
            return self._sampler.sample(prompt, seeds_BN, recipe)

    def path_logps(self, prompt: PromptBatch, path: UnmaskingPath) -> torch.Tensor:
        """Return the log-probability of each token at the step that fixed it, float32 (R, M), in nats, differentiable.

        Costs one forward pass per step of the path.

        Args:
            prompt: B prompts.
            path: One or several unmasked images per prompt; the images of one prompt are consecutive.
        """
        return self._likelihood.path_logps(prompt, path)

    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        llm, shape = self.net.shape.llm, self.net.shape
        tokens, halves = shape.image_tokens + 2, 1 if recipe.cfg == 1 else 2
        # keys and values of the prompt in all layers; activations of the image in one layer
        prompt = 2 * llm.num_hidden_layers * llm.hidden_size * TYPICAL_PROMPT_TOKENS
        image = tokens * (5 * llm.hidden_size + llm.intermediate_size)
        sampling = halves * self.net.llm.dtype.itemsize * (prompt + image)
        # the last upsampling has the channels of the coarser level
        widest = shape.magvit.channels * max(shape.magvit.decoder_widths[:2])
        return max(sampling, DECODER_MAPS * widest * shape.side**2 * torch.float32.itemsize)

    def image_logps(
        self,
        prompt: PromptBatch,
        drawings_R: torch.Tensor,
        noise_R: torch.Tensor | None = None,
        recipe: SamplingRecipe | None = None,
    ) -> torch.Tensor:
        """Return a term per image token, float32 (R, M), in nats, whose sum estimates a bound of the log-likelihood.

        For a mask with k of M tokens masked, a masked token contributes M / k times its log-probability given the
        unmasked tokens; the others contribute 0. With k uniform in 1 to M and the set uniform given k, the expected sum
        is the log-likelihood along an order of single tokens, averaged over all orders, a lower bound of the
        log-likelihood (Uria et al. 2014, "A Deep and Tractable Density Estimator"; Hoogeboom et al. 2022,
        "Autoregressive Diffusion Models"). The negative mean over tokens is then the mean cross-entropy of the masked
        tokens, Show-o's training loss.

        Args:
            prompt: B prompts.
            drawings_R: Image codes, int64 (R, M), of one or several images per prompt; the images
                of one prompt are consecutive.
            noise_R: One seed an image, int64, from which its mask follows (``unigap.models.showo.masks.seeded_masks``).
                ``None`` averages over ``likelihood_masks`` masks that depend only on the prompt (``prompt_masks``).
            recipe: ``None``, because there is no likelihood under a recipe.

        Raises:
            ValueError: A recipe is given, the seeds have another shape or type, or the number of images is not a
                multiple of the number of prompts.
        """
        if recipe is not None:
            raise ValueError("Show-o only estimates likelihoods and has none under a sampling recipe; pass recipe=None")
        return self._likelihood.estimate(prompt, drawings_R, noise_R)

    def mask_logps(self, prompt: PromptBatch, codes_RM: torch.Tensor, masked_RKM: torch.Tensor) -> torch.Tensor:
        """Return ``image_logps`` with given masks instead of seeds, bool (R, K, M), True where a token is masked."""
        return self._likelihood.mask_logps(prompt, codes_RM, masked_RKM)

    @torch.no_grad()
    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        with float32_arithmetic(drawings_B.device.type):
            return self.net.magvit.decode(drawings_B).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        with float32_arithmetic(pixels_BCHW.device.type):
            return self.net.magvit.encode(pixels_BCHW.float())

    def drawing_digest(self) -> str:
        return digest({"codebook": self.codebook})
