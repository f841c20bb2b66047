"""Example of a unified model: a GRU that generates 4 x 4 coloured patches and answers questions about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from unigap.models.base import Answers, PromptBatch, Samples, SamplingRecipe, UnifiedModel, evaluating
from unigap.models.engine.autoregressive import (
    Sampled,
    code_logps,
    sample_codes,
    sample_next,
    samples_of,
    scored_recipe,
    uniforms,
)
from unigap.models.engine.packed_questions import answers
from unigap.models.files.weights import digest

# Shape legend: B prompts or images, N candidates a prompt, R = B * N rows, L text tokens, M image tokens,
# Q questions an image, T answer tokens, V image codes, D width, C H W image channels and sides.

PALETTE = ((0.9, 0.1, 0.1), (0.1, 0.6, 0.2), (0.1, 0.3, 0.9), (1.0, 0.8, 0.0), (0.6, 0.2, 0.8), (0.1, 0.1, 0.1))
GRID, PATCH = 4, 8
START_IMAGE = 256  # start-of-image token; smaller ids are bytes of text, larger ids are image codes
FIRST_CODE = START_IMAGE + 1


class Painter(UnifiedModel):
    """GRU over bytes and image codes, with one head for each.

    Args:
        width: Width of the trunk.
        seed: Seed of the initial weights; nothing is pretrained.
    """

    exact_likelihood: ClassVar[bool] = True

    def __init__(self, width: int = 96, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embed = nn.Embedding(FIRST_CODE + len(PALETTE), width)
            self.cell = nn.GRUCell(width, width)
            self.image_head = nn.Linear(width, len(PALETTE))
            self.text_head = nn.Linear(width, START_IMAGE)
        self.register_buffer("palette", torch.tensor(PALETTE) * 2 - 1)
        self.train_only_trunk()

    # -- properties

    @property
    def trunk(self) -> nn.Module:
        return self.cell

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [self.cell]

    @property
    def lora_target(self) -> str:
        return r"cell"

    def add_lora(self, rank: int, alpha: int, dropout: float) -> None:
        raise ValueError("a GRU takes no LoRA adapter; train it in full")

    def save(self, folder: str | Path, adapter_only: bool = False, recipe: Mapping[str, Any] | None = None) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), Path(folder) / "model.safetensors")

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        if not all(text.strip() for text in texts):
            raise ValueError("a prompt is empty; write a text")
        rows = [[*text.encode(), START_IMAGE] for text in texts]
        ids_BL, mask_BL = self._padded(rows, "left")
        return PromptBatch(ids_BL, mask_BL, torch.where(ids_BL == START_IMAGE, ids_BL, 0), mask_BL)

    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        rows, guided = prompt.repeat(seeds_BN.shape[1]), recipe.cfg != 1
        with evaluating(self), torch.no_grad():
            state = self._states(*rows.to_prefill(guided))[:, -1]

            def step(code_R: torch.Tensor, uniform_R: torch.Tensor) -> Sampled:
                nonlocal state
                token = FIRST_CODE + code_R.repeat(len(state) // len(code_R))[:, None]
                state = self._states(token, torch.ones_like(token), state)[:, -1]
                return sample_next(self.image_head(state), uniform_R, recipe)

            uniform_RM = uniforms(seeds_BN.flatten(), GRID * GRID).to(state.device)
            sampled = sample_codes(self.image_head(state), step, uniform_RM, recipe)
        return samples_of(sampled, *seeds_BN.shape)

    def drawing_bytes(self, recipe: SamplingRecipe) -> int:
        return 3 * (GRID * PATCH) ** 2 * torch.float32.itemsize

    def image_logps(
        self,
        prompt: PromptBatch,
        drawings_R: torch.Tensor,
        noise_R: torch.Tensor | None = None,
        recipe: SamplingRecipe | None = None,
    ) -> torch.Tensor:
        guided, prompt = scored_recipe(recipe).cfg != 1, prompt.repeat(prompt.images_each(drawings_R))
        text_ids, text_mask = prompt.to_prefill(guided)
        image = FIRST_CODE + drawings_R[:, :-1].repeat(len(text_ids) // len(drawings_R), 1)
        tokens, mask = torch.cat([text_ids, image], 1), torch.cat([text_mask, torch.ones_like(image)], 1)
        states = self._states(tokens, mask)[:, -GRID * GRID :]
        return code_logps(self.image_head, states, drawings_R, len(PALETTE), recipe=recipe)

    @torch.no_grad()
    def decode(self, drawings_B: torch.Tensor) -> torch.Tensor:
        grid_BCHW = self.palette[drawings_B].transpose(1, 2).unflatten(2, (GRID, GRID))
        return grid_BCHW.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        mean_BMC = nn.functional.avg_pool2d(pixels_BCHW.float(), PATCH).flatten(2).transpose(1, 2)
        return torch.cdist(mean_BMC, self.palette.expand(len(mean_BMC), -1, -1)).argmin(-1)

    def drawing_digest(self) -> str:
        return digest({"palette": self.palette})

    # -- understanding

    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        answer_RT, mask_RT = self._padded([list(answer.encode()) for row in answers_BQ for answer in row], "right")
        state_RD = self._after_questions(pixels_BCHW, questions_BQ)
        states = self._states(answer_RT, mask_RT, state_RD)
        before_RTD = torch.cat([state_RD[:, None], states[:, :-1]], 1)
        logp_RT = self.text_head(before_RTD).float().log_softmax(-1).gather(-1, answer_RT[..., None])[..., 0]
        shape = (len(pixels_BCHW), -1, answer_RT.shape[1])
        return (logp_RT * mask_RT).view(shape), mask_RT.bool().view(shape)

    def judge_answers(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> Answers:
        logits_RV = self.text_head(self._after_questions(pixels_BCHW, questions_BQ)).float()
        return answers(logits_RV.view(len(pixels_BCHW), -1, logits_RV.shape[-1]), [ord("y")], [ord("n")])

    # -- the trunk

    def _after_questions(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> torch.Tensor:
        image_BM = FIRST_CODE + self.encode(pixels_BCHW)
        image_RM = image_BM.repeat_interleave(len(questions_BQ[0]), 0)
        text_RL, mask_RL = self._padded([list(text.encode()) for row in questions_BQ for text in row], "left")
        tokens, mask = torch.cat([image_RM, text_RL], 1), torch.cat([torch.ones_like(image_RM), mask_RL], 1)
        return self._states(tokens, mask)[:, -1]

    def _states(self, tokens: torch.Tensor, mask: torch.Tensor, state_RD: torch.Tensor | None = None) -> torch.Tensor:
        """Return the hidden state after each token; padding leaves the state unchanged."""
        inputs = self.embed(tokens)
        state = inputs.new_zeros(len(tokens), inputs.shape[-1]) if state_RD is None else state_RD
        states = []
        for token_RD, is_token_R in zip(inputs.unbind(1), mask.bool().unbind(1), strict=True):
            state = torch.where(is_token_R[:, None], self.cell(token_RD, state), state)
            states.append(state)
        return torch.stack(states, 1)

    def _padded(self, rows: Sequence[Sequence[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = [torch.tensor(row, device=self.embed.weight.device) for row in rows]
        ids = pad_sequence(tokens, batch_first=True, padding_side=side)
        return ids, pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True, padding_side=side)
