"""Example of a model whose images are latents: a small flow over 4 x 4 coloured patches that answers questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import nn

from unigap.models.base import Answers, FlowTerms, PromptBatch, Samples, SamplingRecipe, UnifiedModel, evaluating
from unigap.models.engine.chat_template import left_padded, with_null_prompts
from unigap.models.engine.flow_likelihood import FlowLikelihood
from unigap.models.engine.packed_questions import answers
from unigap.models.engine.rectified_flow import check_recipe, euler, noises, time_features
from unigap.models.files.weights import digest
from unigap.records import DrawingFormat

# Shape legend: B prompts or images, N candidates a prompt, R = B * N images, L bytes of a text, M latent tokens,
# C numbers of a token, Q questions an image, D width, H W image sides.

GRID, PATCH, CHANNELS, TIME_WIDTH = 4, 8, 3, 16


class Sketcher(UnifiedModel):
    """Rectified flow of 16 latent tokens, with one trunk for sampling and for answering.

    Args:
        width: Width of the trunk.
        steps: Euler steps from noise to image.
        seed: Seed of the initial weights; nothing is pretrained.
    """

    exact_likelihood: ClassVar[bool] = False
    # the digest of the weights covers the number of steps, which changes the samples
    options: ClassVar[tuple[str, ...]] = ("steps",)

    def __init__(self, width: int = 96, steps: int = 8, seed: int = 0) -> None:
        super().__init__()
        self.shape = (GRID * GRID, CHANNELS)
        numbers = GRID * GRID * CHANNELS
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.text = nn.Embedding(256, width)
            self.enter = nn.Linear(numbers + TIME_WIDTH, width)
            self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
            self.velocity_head, self.answer_head = nn.Linear(width, numbers), nn.Linear(width, 2)
        self.steps = nn.Parameter(torch.tensor(float(steps)), requires_grad=False)
        # what the pool stores for each image
        self.drawing_format = DrawingFormat("float16", self.shape)
        self.likelihood = FlowLikelihood(self, draws=4, shift=1.0)
        self.train_only_trunk()

    @property
    def trunk(self) -> nn.Module:
        return self.mlp

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.text.weight.device

    def save(self, folder: str | Path, adapter_only: bool = False, recipe: Mapping[str, Any] | None = None) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), Path(folder) / "model.safetensors")

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        if not all(text.strip() for text in texts):
            raise ValueError("a prompt is empty; write a text")
        # the null prompt of guidance, and of prompt dropout, has no bytes
        return with_null_prompts([list(text.encode()) for text in texts], [], 0, self.device)

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        check_recipe("Sketcher", recipe)
        images, null = seeds_BN.shape[1], prompt.unconditional(torch.ones(len(seeds_BN), dtype=torch.bool))

        def velocity(latents_RMC: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            time_R = time.to(self.device).expand(len(latents_RMC))
            found_RMC = self.velocity_given(prompt, images, latents_RMC, time_R)
            if recipe.cfg == 1:
                return found_RMC
            return torch.lerp(self.velocity_given(null, images, latents_RMC, time_R), found_RMC, recipe.cfg)

        with evaluating(self), torch.no_grad():
            # each image starts from the noise of its own seed
            noise_RMC = noises(seeds_BN.flatten(), self.shape).to(self.device)
            latents_RMC = euler(noise_RMC, torch.linspace(1, 0, int(self.steps) + 1), velocity)
        return Samples(latents_RMC.view(*seeds_BN.shape, *self.shape), None)

    def image_logps(
        self,
        prompt: PromptBatch,
        drawings_R: torch.Tensor,
        noise_R: torch.Tensor | None = None,
        recipe: SamplingRecipe | None = None,
    ) -> torch.Tensor:
        if recipe is not None:
            raise ValueError("Sketcher has no likelihood under a sampling recipe; pass recipe=None")
        return self.likelihood.surrogate(prompt, drawings_R, noise_R)

    def velocity_terms(self, prompt: PromptBatch, drawings_R: torch.Tensor, noise_R: torch.Tensor) -> FlowTerms:
        return self.likelihood.velocity_terms(prompt, drawings_R, noise_R)

    @torch.no_grad()
    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        grid_BCHW = drawings_B.float().clamp(-1, 1).transpose(1, 2).unflatten(2, (GRID, GRID))
        return grid_BCHW.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(pixels_BCHW.float(), PATCH).flatten(2).transpose(1, 2)

    def drawing_digest(self) -> str:
        return digest({"grid": torch.tensor([GRID, PATCH, CHANNELS])})

    # -- understanding

    def judge_answers(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> Answers:
        rows, questions = [list(text.encode()) for row in questions_BQ for text in row], len(questions_BQ[0])
        text_RD = self._read(*left_padded(rows, max(map(len, rows)), 0, self.device))
        latents_RMC = self.encode(pixels_BCHW).repeat_interleave(questions, 0)
        state_RD = self._states(text_RD, latents_RMC, torch.zeros(len(rows), device=self.device))
        return answers(self.answer_head(state_RD).view(-1, questions, 2).float(), [0], [1])

    # -- the trunk

    def velocity_given(
        self, prompt: PromptBatch, images: int, latents_RMC: torch.Tensor, time_R: torch.Tensor
    ) -> torch.Tensor:
        """Return the velocity, noise minus image, float32 (R, M, C); ``FlowLikelihood`` needs it."""
        text_RD = self._read(prompt.ids_BL, prompt.mask_BL).repeat_interleave(images, 0)
        return self.velocity_head(self._states(text_RD, latents_RMC, time_R)).view(-1, *self.shape).float()

    def _states(self, text_RD: torch.Tensor, latents_RMC: torch.Tensor, time_R: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([latents_RMC.flatten(1), time_features(time_R * 100, TIME_WIDTH)], 1)
        return self.mlp(self.enter(seen) + text_RD)

    def _read(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """Return the sum of the embeddings of the bytes, without padding, divided by the root of their number."""
        count_B1 = mask_BL.sum(1, keepdim=True).clamp(min=1)
        return (self.text(ids_BL) * mask_BL[..., None]).sum(1) / count_B1.sqrt()
