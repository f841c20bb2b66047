"""The exam of the embedded world: rendered pictures with statements about them, half of them true."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unigap.records import Prompt
from unigap.shapes.grammar import parse
from unigap.shapes.lessons import twist
from unigap.shapes.prompt_sets import prompts
from unigap.shapes.scenes import describes, imagine, render


@dataclass(frozen=True)
class Exam:
    """Pictures, what is claimed of each, and whether it is true.

    Attributes:
        prompts: The prompt each picture was imagined from; bootstrap clusters and groups come from it.
        claims: What is claimed, one text a picture.
        pixels_BCHW: The pictures, in [-1, 1].
        truth_B: Whether the claim is true, bool.
    """

    prompts: tuple[Prompt, ...]
    claims: tuple[str, ...]
    pixels_BCHW: torch.Tensor
    truth_B: torch.Tensor

    @property
    def cluster_B(self) -> torch.Tensor:
        """Number of the prompt each picture was imagined from, int64: pictures of one prompt are alike."""
        numbers = {prompt.id: i for i, prompt in enumerate(dict.fromkeys(self.prompts))}
        return torch.tensor([numbers[prompt.id] for prompt in self.prompts])

    def batches(self, size: int) -> Iterator[Exam]:
        """The exam in parts of at most ``size`` pictures."""
        for i in range(0, len(self.claims), size):
            cut = slice(i, i + size)
            yield Exam(self.prompts[cut], self.claims[cut], self.pixels_BCHW[cut], self.truth_B[cut])


def shapes_exam(split: str, pictures: int, seed: int) -> Exam:
    """Renders of a split's prompts, every second one with a hard negative in place of its prompt.

    Every category and difficulty is as likely as any other, as it is among the prompts that are drawn.
    """
    rng = random.Random(f"exam/{split}/{seed}")
    cells: dict[tuple[str, str], list[Prompt]] = {}
    for prompt in prompts(split):
        cells.setdefault((prompt.category, prompt.difficulty), []).append(prompt)
    asked: list[Prompt] = []
    claims: list[str] = []
    images: list[torch.Tensor] = []
    truth: list[bool] = []
    while len(asked) < pictures:
        prompt = rng.choice(rng.choice(list(cells.values())))
        described = parse(prompt.text)
        scene = imagine(described, rng)
        claim = described if len(asked) % 2 else twist(described, rng)
        asked.append(prompt)
        claims.append(claim.text)
        images.append(render(scene))
        truth.append(describes(claim, scene))
    return Exam(tuple(asked), tuple(claims), torch.stack(images), torch.tensor(truth))
