"""Compare sampling with a peer: codes with transformers' ``generate``, flows with a loop of the published algorithm.

Run ``python -m benchmarks.sampling``; ``--json FILE`` also writes the rows. Both sides have the same weights, prompts,
seeds and recipe. Before timing, the greedy codes of both sides must be equal, and so must our sampled codes with and
without compilation; latents of both sides must agree to 1e-3. The time of compilation is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.flow_sampling import bagel_image, janus_flow_image
from benchmarks.side_by_side import Row, main, speeds
from benchmarks.small_flows import save_bagel, save_janus_flow
from benchmarks.small_janus import PROMPTS, small_janus
from unigap.models.bagel import Bagel
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.engine.patches import unpatched
from unigap.models.janus import Janus
from unigap.models.janus_flow import JanusFlow

GUIDANCE = 5
# generate keeps the 50 most likely codes by default
SAMPLED = SamplingRecipe(cfg=GUIDANCE, top_k=50)
GREEDY = SamplingRecipe(cfg=GUIDANCE, temperature=0)


def ours(janus: Janus, n: int, recipe: SamplingRecipe = SAMPLED) -> torch.Tensor:
    """Sample codes with our engine, shape (B * n, M)."""
    seeds_BN = torch.arange(len(PROMPTS) * n).view(-1, n)
    return janus.sample_images(janus.encode_prompt(PROMPTS), seeds_BN, recipe).drawings_BN.flatten(0, 1)


def transformers(janus: Janus, n: int, do_sample: bool = True) -> torch.Tensor:
    """Sample codes with transformers, shape (B * n, M)."""
    chats = [
        janus.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": text}]}], add_generation_prompt=True
        )
        for text in PROMPTS
    ]
    inputs = janus.processor(text=chats, generation_mode="image", padding=True, return_tensors="pt")
    return janus.net.generate(
        **inputs, generation_mode="image", do_sample=do_sample, guidance_scale=GUIDANCE, num_return_sequences=n
    )


def measure() -> list[Row]:
    """Measure image tokens per second, compiled and not compiled."""
    plain, compiled = small_janus(), small_janus(compile=True)
    if not torch.equal(ours(plain, 1, GREEDY), transformers(plain, 1, do_sample=False)):
        raise RuntimeError("the greedy codes differ from those of transformers, so the speeds cannot be compared")
    rows = []
    for name, janus, n in [("not compiled", plain, 4), ("compiled", compiled, 4), ("compiled", compiled, 1)]:
        if not torch.equal(ours(janus, n), ours(plain, n)):
            raise RuntimeError(f"{name}, {n} candidates: compilation changes the sampled codes")
        work = len(PROMPTS) * n * janus.image_tokens
        label = f"sampling, {len(PROMPTS)} prompts x {n}, {name}"
        rows.append(speeds(label, partial(ours, janus, n), partial(transformers, janus, n), work, "tokens/s"))
    return rows


if __name__ == "__main__":
    main("Image tokens per second, compared with transformers.", measure)
