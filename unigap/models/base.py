"""The protocol every unified model follows: draw from text, answer about images, and give the likelihood of both."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from unigap.models.files.lora import is_adapted

# Shape legend: B prompts or images, N candidates a prompt, M image tokens, L prompt tokens, Q questions an image,
# T answer tokens, V image codes, C H W image channels and sides, R images.

MOST_GUIDANCE = 1000
"""Guidance beyond this overflows logits in half precision, and has long drowned the prompt."""
USUAL_PROMPT = 64
"""Tokens of a prompt in estimates of memory."""


@dataclass(frozen=True)
class PromptBatch:
    """Prompts as token ids, left-padded.

    Padding is what the masks say: a tokenizer may pad with an id that also means something, its end of text for one.

    Attributes:
        ids_BL: Conditional prompts, int64.
        mask_BL: 1 for tokens, 0 for padding, int64.
        uncond_BL: The null prompts of classifier-free guidance, int64.
        uncond_mask_BL: 1 for tokens of the null prompts, 0 for their padding, int64.
    """

    ids_BL: torch.Tensor
    mask_BL: torch.Tensor
    uncond_BL: torch.Tensor
    uncond_mask_BL: torch.Tensor

    def repeat(self, n: int) -> PromptBatch:
        """Each prompt ``n`` times in a row, shape (B * n, L)."""
        given = (self.ids_BL, self.mask_BL, self.uncond_BL, self.uncond_mask_BL)
        return PromptBatch(*(tensor.repeat_interleave(n, 0) for tensor in given))

    def to_prefill(self, guided: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and masks to prefill: (B, L), or (2B, L) with the null prompts second where ``guided``."""
        if not guided:
            return self.ids_BL, self.mask_BL
        return torch.cat([self.ids_BL, self.uncond_BL]), torch.cat([self.mask_BL, self.uncond_mask_BL])

    def images_each(self, codes_RM: torch.Tensor) -> int:
        """How many of these images each prompt has; those of one prompt lie side by side.

        Raises:
            ValueError: When they do not fall to the prompts evenly.
        """
        if len(codes_RM) % len(self.ids_BL):
            raise ValueError(f"{len(codes_RM)} images do not fall evenly to {len(self.ids_BL)} prompts")
        return len(codes_RM) // len(self.ids_BL)

    def unconditional(self, where_B: torch.Tensor) -> PromptBatch:
        """The same batch with the prompts at ``where_B`` (bool) replaced by their null prompts (prompt dropout)."""
        ids_BL = torch.where(where_B[:, None], self.uncond_BL, self.ids_BL)
        mask_BL = torch.where(where_B[:, None], self.uncond_mask_BL, self.mask_BL)
        return PromptBatch(ids_BL, mask_BL, self.uncond_BL, self.uncond_mask_BL)


@dataclass(frozen=True)
class SamplingRecipe:
    """How image tokens are drawn.

    Args:
        temperature: Divides the logits; 0 takes the most likely code each time.
        cfg: Classifier-free guidance scale, >= 1; 1 is no guidance and costs half.
        top_k: Keep only this many most likely codes; 0 keeps all.
        top_p: Keep the smallest set of codes whose probability reaches this, in (0, 1].
    """

    temperature: float = 1.0
    cfg: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be >= 0, got {self.temperature}; 0 is greedy")
        if not 1 <= self.cfg <= MOST_GUIDANCE:
            raise ValueError(f"cfg must be >= 1 and at most {MOST_GUIDANCE}, got {self.cfg}; 1 is no guidance")
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, got {self.top_k}; 0 keeps all codes")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")


@dataclass(frozen=True)
class Samples:
    """Drawn images.

    Attributes:
        codes_BNM: Image tokens, int64.
        logp_BNM: Log-probability of each token given the prompt at temperature 1 without guidance, float32, nats.
    """

    codes_BNM: torch.Tensor
    logp_BNM: torch.Tensor


@dataclass(frozen=True)
class Answers:
    """Answers to yes-no questions; both tensors have the same shape.

    Attributes:
        logit: Log-odds of "yes" over "no", float32, differentiable.
        mass: P(yes) + P(no) among all tokens that could begin the answer, float32, in [0, 1], no gradient. Near 0 the
            log-odds compare two things that the model does not say.
    """

    logit: torch.Tensor
    mass: torch.Tensor


class UnifiedModel(nn.Module, ABC):
    """A model that draws images from text and answers questions about images.

    What the framework needs of a family, and nothing else. Differentiable methods run under whatever gradient and
    train/eval mode the caller has set; ``sample_images`` forces eval mode and no gradients.
    """

    exact_likelihood: ClassVar[bool]
    """Whether ``image_logps`` is the exact log-likelihood (autoregressive) or an estimate (masked diffusion).

    Logs, cards and reports say so of every figure that is made of estimates.
    """
    options: ClassVar[tuple[str, ...]] = ()
    """Parameters that hold options of the model, so that its digest covers them, and no weights."""

    @property
    @abstractmethod
    def n_codes(self) -> int:
        """V, the size of the image vocabulary."""

    @property
    @abstractmethod
    def image_tokens(self) -> int:
        """M, the number of tokens of one image."""

    @property
    @abstractmethod
    def codebook(self) -> torch.Tensor:
        """Embedding of every image code, shape (V, D)."""

    @property
    def usual_cfg(self) -> float:
        """Guidance scale the checkpoint asks to be drawn from with, >= 1; 1 where it does not say."""
        return 1.0

    @property
    @abstractmethod
    def trunk(self) -> nn.Module:
        """The shared LLM: the only part self-improvement trains."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The trunk's repeated layers, in the order they run: what is sharded one by one over several devices."""

    @property
    @abstractmethod
    def lora_target(self) -> str:
        """Regular expression for the trunk's linear layers that LoRA adapts, by their full module names."""

    @abstractmethod
    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        """Turns prompts into left-padded ids, ready for the first image token.

        Raises:
            ValueError: For an empty prompt, words the tokenizer does not know, or a prompt too long for the context.
        """

    @abstractmethod
    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        """Draws N images for each prompt. Equal seeds give equal images whatever else is in the batch."""

    @abstractmethod
    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        """About how much memory one more image in a batch takes while it is drawn and decoded, > 0."""

    @abstractmethod
    def image_logps(
        self, prompt: PromptBatch, codes_RM: torch.Tensor, noise_RM: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Log-probability of each image token given its prompt, float32 (R, M), in nats, at temperature 1.

        Args:
            prompt: B prompts.
            codes_RM: One image for each, or several: then those of one prompt lie side by side.
            noise_RM: For families without an exact likelihood, the mask to estimate it with; else ``None``.
        """

    @abstractmethod
    def training_noise(self, codes_RM: torch.Tensor) -> torch.Tensor | None:
        """Noise for ``image_logps`` in one training step, drawn from torch's generator; None where it takes none."""

    @abstractmethod
    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of answers, token by token.

        Returns:
            ``logp_BQT`` float32, in nats, 0 at padding, and ``mask_BQT`` bool. Every question sees its image and
            itself only, as if it were asked alone.
        """

    @abstractmethod
    def judge_answers(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> Answers:
        """Answers (B, Q), one for each question. Every question sees its image and itself only."""

    def judge_logit(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> torch.Tensor:
        """Log-odds of "yes" over "no" for each question, float32 (B, Q), differentiable."""
        return self.judge_answers(pixels_BCHW, questions_BQ).logit

    @abstractmethod
    def decode(self, codes_BM: torch.Tensor) -> torch.Tensor:
        """Image tokens to pixels in [-1, 1], float32 (B, 3, H, W), no gradient."""

    @abstractmethod
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels in [-1, 1] to image tokens, int64 (B, M), no gradient. Never use it on the model's own drawings."""

    @abstractmethod
    def add_lora(self, rank: int, alpha: int, dropout: float) -> None:
        """Puts a LoRA adapter on the trunk's linear layers; ``train_only_trunk`` then trains the adapter alone."""

    @abstractmethod
    def save(self, folder: str | Path, adapter_only: bool = False, recipe: Mapping[str, Any] | None = None) -> None:
        """Writes a folder that the family's own library loads, with a model card.

        Args:
            folder: Where to.
            adapter_only: Write the LoRA adapter alone, as peft loads it; otherwise a whole checkpoint with its
                processor, in which the adapter is merged.
            recipe: Settings by name of the training the card is to state.

        Raises:
            ValueError: For ``adapter_only`` without an adapter, and while the weights are sharded.
        """

    def train_only_trunk(self) -> None:
        """Freezes everything but the trunk, or, where a LoRA adapter is present, everything but the adapter."""
        adapted = is_adapted(self.trunk)
        self.requires_grad_(False)
        for name, parameter in self.trunk.named_parameters():
            parameter.requires_grad_(not adapted or ".lora_" in name)

    def codebook_digest(self) -> str:
        """Fingerprint of the image vocabulary: pools of equal digest hold codes this model can decode."""
        return _digest({"codebook": self.codebook})

    def weights_digest(self) -> str:
        """Fingerprint of all parameters, frozen ones too: equal digests draw equal images.

        Of a sharded model all processes have to ask for it.
        """
        return _digest(dict(self.named_parameters()))

    def trainable_state(self) -> dict[str, torch.Tensor]:
        """A detached copy of the parameters that train, by name: what a stage has to remember of its starting point."""
        return {name: p.detach().clone() for name, p in self.named_parameters() if p.requires_grad}

    @contextlib.contextmanager
    def with_state(self, state: dict[str, torch.Tensor]) -> Iterator[None]:
        """Runs the body with the parameters of ``state`` in place, then puts the present ones back bit for bit."""
        parameters = dict(self.named_parameters())
        present = {name: parameters[name].detach().clone() for name in state}
        try:
            # in place: the shards of a parameter are known to more than its name
            for name, value in state.items():
                parameters[name].data.copy_(value)
            yield
        finally:
            for name, value in present.items():
                parameters[name].data.copy_(value)


def unsharded(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor, gathered from all processes where it is sharded: all of them have to come here."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode())
        # a copy: numpy pins the memory it looks at, and gathered shards have to give theirs back
        copy = unsharded(tensor.detach()).to("cpu", copy=True)
        sha.update(copy.contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for the body, then every submodule back in the mode it was in."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training
