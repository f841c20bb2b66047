"""Protocol of a unified model: generate images, answer questions about images, and compute likelihoods of both."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unigap.console import tasks
from unigap.models.files.lora import is_adapted
from unigap.models.files.weights import digest
from unigap.records import DrawingFormat

# Shape legend: B prompts or images, N candidates a prompt, M image tokens, L prompt tokens, Q questions an image,
# T answer tokens, C H W image channels and sides, R images. A drawing is what a model samples and decodes: the axes
# after the first, which counts images, are the family's own.

MAX_CFG = 1000
"""Largest guidance scale; beyond it, logits overflow in half precision."""
TYPICAL_PROMPT_TOKENS = 64
"""Prompt length assumed in estimates of memory, in tokens."""


@dataclass(frozen=True)
class PromptBatch:
    """Prompts as token ids, left-padded.

    Only the masks tell padding from tokens: a tokenizer may pad with a meaningful id, such as its end of text.

    Attributes:
        ids_BL: Conditional prompts, int64.
        mask_BL: 1 for tokens, 0 for padding, int64.
        uncond_BL: Null prompts of classifier-free guidance, int64.
        uncond_mask_BL: 1 for tokens of the null prompts, 0 for padding, int64.
    """

    ids_BL: torch.Tensor
    mask_BL: torch.Tensor
    uncond_BL: torch.Tensor
    uncond_mask_BL: torch.Tensor

    def repeat(self, n: int) -> PromptBatch:
        """Repeat each prompt ``n`` times, consecutively, shape (B * n, L)."""
        tensors = (self.ids_BL, self.mask_BL, self.uncond_BL, self.uncond_mask_BL)
        return PromptBatch(*(tensor.repeat_interleave(n, 0) for tensor in tensors))

    def to_prefill(self, guided: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and masks to prefill: (B, L), or (2B, L) with the null prompts second if ``guided``."""
        if not guided:
            return self.ids_BL, self.mask_BL
        return torch.cat([self.ids_BL, self.uncond_BL]), torch.cat([self.mask_BL, self.uncond_mask_BL])

    def images_each(self, drawings_R: torch.Tensor) -> int:
        """Return the number of images per prompt; the images of one prompt are consecutive.

        Raises:
            ValueError: The number of images is not a multiple of the number of prompts.
        """
        if len(drawings_R) % len(self.ids_BL):
            raise ValueError(
                f"{len(drawings_R)} images for {len(self.ids_BL)} prompts; give every prompt the same number of images"
            )
        return len(drawings_R) // len(self.ids_BL)

    def unconditional(self, where_B: torch.Tensor) -> PromptBatch:
        """Return the batch with the prompts at ``where_B`` (bool) replaced by null prompts (prompt dropout)."""
        ids_BL = torch.where(where_B[:, None], self.uncond_BL, self.ids_BL)
        mask_BL = torch.where(where_B[:, None], self.uncond_mask_BL, self.mask_BL)
        return PromptBatch(ids_BL, mask_BL, self.uncond_BL, self.uncond_mask_BL)


@dataclass(frozen=True)
class SamplingRecipe:
    """How image tokens are sampled.

    Args:
        temperature: Divides the logits; 0 is greedy.
        cfg: Classifier-free guidance scale, in [1, 1000]; 1 is no guidance and costs half.
        top_k: Keep this many most likely codes; 0 keeps all.
        top_p: Keep the smallest set of codes whose probability reaches this, in (0, 1].
    """

    temperature: float = 1.0
    cfg: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be >= 0, got {self.temperature}; 0 is greedy")
        if not 1 <= self.cfg <= MAX_CFG:
            raise ValueError(f"cfg must be >= 1 and at most {MAX_CFG}, got {self.cfg}; 1 is no guidance")
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, got {self.top_k}; 0 keeps all codes")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")

    @property
    def is_plain(self) -> bool:
        """Whether images are sampled at temperature 1 without guidance and filters."""
        return (self.temperature, self.cfg, self.top_k, self.top_p) == (1, 1, 0, 1)


@dataclass(frozen=True)
class Samples:
    """Sampled images.

    Attributes:
        drawings_BN: Drawings: image codes, int64 (B, N, M) or (B, N, M, D), or latents, float (B, N, M, C).
        logp_BNM: Log-probability of each token given the prompt at temperature 1 without guidance, float32, nats;
            ``None`` if the family has none.
        behaviour_BNM: Log-probability of each token under the recipe it was sampled with, float32, nats; the same
            tensor as ``logp_BNM`` if the recipe is plain, 0 if it is greedy; ``None`` if the family has none.
    """

    drawings_BN: torch.Tensor
    logp_BNM: torch.Tensor | None
    behaviour_BNM: torch.Tensor | None = None


@dataclass(frozen=True)
class FlowTerms:
    """Prediction of a flow model between an image (time 0) and noise (time 1), on x_t = (1 - t) x_0 + t noise.

    Attributes:
        velocity_RMC: Predicted velocity, noise minus image, float32, differentiable.
        mixed_RMC: x_t, float32.
        time_R: t, in (0, 1].
    """

    velocity_RMC: torch.Tensor
    mixed_RMC: torch.Tensor
    time_R: torch.Tensor


@dataclass(frozen=True)
class Answers:
    """Answers to yes-no questions; both tensors have the same shape.

    Attributes:
        logit: Log-odds of "yes" over "no", float32, differentiable.
        mass: P(yes) + P(no) over the whole vocabulary, float32, in [0, 1], no gradient. Near 0 the model answers
            neither, and the log-odds mean little.
    """

    logit: torch.Tensor
    mass: torch.Tensor


class UnifiedModel(nn.Module, ABC):
    """Model that generates images from text and answers questions about images.

    Contains only what the framework needs from a model family. Differentiable methods run in the gradient and
    train/eval mode of the caller; ``sample_images`` runs in eval mode without gradients.
    """

    exact_likelihood: ClassVar[bool]
    """Whether ``image_logps`` is the exact log-likelihood (autoregressive), or an estimate that takes noise.

    Masked diffusion estimates a bound in nats; a flow has minus its squared error, which is no likelihood but falls and
    rises with one. Logs, cards and reports mark every figure that is computed from estimates. Objectives compute such
    figures at fresh noise in every step, under the reference model too: at fixed noise, training fits that noise.
    """
    drawing_format: DrawingFormat | None = None
    """Type and shape of a stored drawing, set by models of latents or of codes (M, D); None for codes, int32 (M,)."""
    unreached_by_images: tuple[str, ...] = ()
    """Beginnings of the names of weights that train but that ``image_logps`` does not use; they learn from answers."""
    options: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that hold options instead of weights, so that ``weights_digest`` covers them."""
    reference_state: dict[str, torch.Tensor] | None = None
    """Trainable weights of the reference model of a training run (``trainable_state``); ``None`` if it has none."""

    @property
    def usual_cfg(self) -> float:
        """Guidance scale that the checkpoint recommends, >= 1; 1 if it names none."""
        return 1.0

    @property
    @abstractmethod
    def trunk(self) -> nn.Module:
        """The shared LLM, the only part that trains."""

    @abstractmethod
    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        """Tokenize prompts, left-padded, up to the first image token.

        Raises:
            ValueError: A prompt is empty, has unknown words, or is too long for the context.
        """

    @abstractmethod
    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Sample N images per prompt. Equal seeds give equal images, independent of the rest of the batch."""

    @abstractmethod
    def image_logps(
        self,
        prompt: PromptBatch,
        drawings_R: torch.Tensor,
        noise_R: torch.Tensor | None = None,
        recipe: SamplingRecipe | None = None,
    ) -> torch.Tensor:
        """Return the log-probability of each image token given its prompt, float32 (R, M), in nats.

        Args:
            prompt: B prompts.
            drawings_R: One or several images per prompt; the images of one prompt are consecutive.
            noise_R: For families without an exact likelihood, one int64 seed an image of the noise to estimate it with:
                equal seeds give equal noise, whatever the image and the rest of the batch. ``None`` takes seeds that
                follow from the prompt, so that the estimate is a function of prompt, image and weights. Exact families
                take only ``None``.
            recipe: Return the log-probability under the distribution that this recipe samples from, differentiable
                through the conditional and the unconditional pass; -inf for a token that a filter removes. ``None`` is
                temperature 1 without guidance and filters. Families without an exact likelihood take only ``None``.

        Raises:
            ValueError: The recipe is greedy, or the family has no exact likelihood under it.
        """

    @abstractmethod
    def judge_answers(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> Answers:
        """Answer yes-no questions, (B, Q). Every question attends to its image and itself only."""

    def judge_logit(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> torch.Tensor:
        """Return the log-odds of "yes" over "no" for each question, float32 (B, Q), differentiable."""
        return self.judge_answers(pixels_BCHW, questions_BQ).logit

    @abstractmethod
    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        """Decode drawings to pixels in [-1, 1], float32 (B, 3, H, W), without gradient, by frozen parts only."""

    def train_only_trunk(self) -> None:
        """Freeze everything except the trunk or, if there is a LoRA adapter, everything except the adapter."""
        adapted = is_adapted(self.trunk)
        self.requires_grad_(False)
        for name, parameter in self.trunk.named_parameters():
            parameter.requires_grad_(not adapted or ".lora_" in name)

    @abstractmethod
    def drawing_digest(self) -> str:
        """Return a SHA-256 of what turns drawings into pixels; this model can decode a pool with the same digest."""

    # -- members that only some uses need

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The trunk's repeated layers in execution order, each sharded separately over devices; none by default."""
        return ()

    @property
    def lora_target(self) -> str:
        """Regular expression that matches the full module names of the trunk's linear layers that LoRA adapts."""
        raise _missing(self, "lora_target", "a LoRA adapter needs it")

    def add_lora(self, rank: int, alpha: int, dropout: float) -> None:
        """Attach a LoRA adapter to the trunk's linear layers; ``train_only_trunk`` then trains only the adapter."""
        raise _missing(self, "add_lora", "a LoRA adapter needs it; train the model in full")

    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        """Estimate the memory that one more image in a batch takes during sampling and decoding, in bytes, > 0.

        The default of 1 byte limits no batch; a batch that does not fit is halved.
        """
        return 1

    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-probability of each answer token.

        Every question attends to its image and itself only, as if it were asked alone.

        Returns:
            ``logp_BQT``, float32, in nats, 0 at padding, and ``mask_BQT``, bool.
        """
        raise _missing(self, "text_logps", "training on answers in text needs it")

    def velocity_terms(self, prompt: PromptBatch, drawings_R: torch.Tensor, noise_R: torch.Tensor) -> FlowTerms:
        """Return the velocity that a flow model predicts between given images and noise; only flow models have one.

        Args:
            prompt: B prompts.
            drawings_R: One or several images per prompt; the images of one prompt are consecutive.
            noise_R: One int64 seed an image of its time and noise, as for ``image_logps``.

        Raises:
            ValueError: The family is no flow model.
        """
        raise _missing(self, "velocity_terms", "learning from a flow's velocities needs it")

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Encode pixels in [-1, 1] to drawings, without gradient.

        Do not use it on the model's own samples: their drawings are stored, and encoding the pixels may change them.
        """
        raise _missing(self, "encode", "training on images from elsewhere needs it")

    def save(self, folder: str | Path, adapter_only: bool = False, recipe: Mapping[str, Any] | None = None) -> None:
        """Write a folder that the family's own library loads, with a model card.

        Args:
            folder: Folder to write.
            adapter_only: Write only the LoRA adapter, in peft's format; otherwise write a whole checkpoint with its
                processor and the adapter merged.
            recipe: Training settings by name, for the card.

        Raises:
            ValueError: ``adapter_only`` without an adapter, or the weights are sharded.
        """
        raise _missing(self, "save", "exporting the model needs it")

    # -- training

    def storable(self, drawings_R: torch.Tensor) -> torch.Tensor:
        """Return drawings as the pool stores them, on the CPU: codes as int32, latents as float16."""
        return drawings_R.to("cpu", torch.float16 if drawings_R.is_floating_point() else torch.int32)

    def weights_digest(self) -> str:
        """Return a SHA-256 of all parameters, frozen ones included; equal digests sample equal images.

        For a sharded model, all processes must call it.
        """
        with tasks.task("digest", "digest of the weights"):
            return digest(dict(self.named_parameters()))

    def trainable_state(self) -> dict[str, torch.Tensor]:
        """Return a detached copy of the trainable parameters by name, such as the weights of a reference model."""
        return {name: p.detach().clone() for name, p in self.named_parameters() if p.requires_grad}

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[None]:
        """Run the body with the weights of ``reference_state``, in eval mode and without gradient.

        Raises:
            ValueError: There is no reference model.
        """
        if self.reference_state is None:
            raise ValueError("the model has no reference weights; set model.reference_state = model.trainable_state()")
        with evaluating(self), self.with_state(self.reference_state), torch.no_grad():
            yield

    @contextlib.contextmanager
    def with_state(self, state: dict[str, torch.Tensor]) -> Iterator[None]:
        """Run the body with the parameters of ``state``, then restore the present ones bit for bit."""
        parameters = dict(self.named_parameters())
        present = {name: parameters[name].detach().clone() for name in state}
        try:
            # copy in place: FSDP keeps references to the shards
            for name, value in state.items():
                parameters[name].data.copy_(value)
            yield
        finally:
            for name, value in present.items():
                parameters[name].data.copy_(value)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run the body in eval mode, then restore the mode of every submodule."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training


def _missing(model: UnifiedModel, member: str, use: str) -> ValueError:
    return ValueError(f"{type(model).__name__} has no {member}; {use}")
