"""The probe set of the embedded world: rendered images with statements about them, half of them true."""

from __future__ import annotations

import random

import torch

from unigap.evaluation.probe_set import ProbeSet
from unigap.records import Prompt
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.lessons import twist
from unigap.worlds.shapes.prompt_sets import prompts
from unigap.worlds.shapes.scenes import describes, imagine, render


def shapes_probe_set(split: str, pictures: int, seed: int) -> ProbeSet:
    """Render prompts of a split, every second one with a hard negative in place of its prompt.

    Every (category, difficulty) is equally likely.
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
    return ProbeSet(tuple(asked), tuple(claims), torch.stack(images), torch.tensor(truth))
