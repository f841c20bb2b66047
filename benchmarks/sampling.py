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

import torch

from benchmarks.flow_sampling import bagel_image, janus_flow_image
from benchmarks.side_by_side import Row, main, speeds
from benchmarks.small_bagel import save_small_bagel
from benchmarks.small_janus import PROMPTS, small_janus
from benchmarks.small_janus_flow import save_small_janus_flow
from unigap.models.bagel import Bagel
from unigap.models.bagel import FlowSettings as BagelSettings
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.janus import Janus
from unigap.models.janus_flow import FlowSettings as JanusFlowSettings
from unigap.models.janus_flow import JanusFlow

GUIDANCE, FLOW_GUIDANCE, FLOW_STEPS = 5, SamplingRecipe(cfg=4), 10
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
    """Measure image tokens per second, compiled and not compiled, and images per second of flows."""
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
    return [*rows, *flow_rows()]


def flow_rows() -> list[Row]:
    """Measure images per second of flows, a batch of ours against one image at a time."""
    seeds_BN = torch.arange(2 * len(PROMPTS)).view(-1, 2)
    asked = [(text, seed) for text, row in zip(PROMPTS, seeds_BN.tolist(), strict=True) for seed in row]
    rows = []
    with TemporaryDirectory() as place:
        for name, model, image in flows(Path(place)):

            def batch(model: UnifiedModel = model) -> torch.Tensor:
                prompt = model.encode_prompt(PROMPTS)
                return model.sample_images(prompt, seeds_BN, FLOW_GUIDANCE).drawings_BN.flatten(0, 1)

            def loop(image: Callable[..., torch.Tensor] = image) -> torch.Tensor:
                return torch.stack([image(text, seed) for text, seed in asked])

            if (batch() - loop()).abs().max() > 1e-3:
                raise RuntimeError(f"the latents of {name} differ from the loop's, so the speeds cannot be compared")
            label = f"sampling, {len(PROMPTS)} prompts x 2, {name}, against one image at a time"
            rows.append(speeds(label, batch, loop, len(asked), "images/s"))
    return rows


def flows(place: Path) -> list[tuple[str, UnifiedModel, Callable[..., torch.Tensor]]]:
    """Return the small flows with random weights, each with the loop that samples one image, latents (M, C)."""
    save_small_bagel(place / "bagel")
    save_small_janus_flow(place / "janus_flow")
    cfg = FLOW_GUIDANCE.cfg
    # 32 pixels for both
    bagel = Bagel(str(place / "bagel"), image_size=32, flow=BagelSettings(timesteps=FLOW_STEPS + 1))
    janus_flow = JanusFlow(str(place / "janus_flow"), flow=JanusFlowSettings(FLOW_STEPS))
    return [
        ("BAGEL", bagel, lambda text, seed: bagel_image(bagel, text, seed, cfg)),
        ("JanusFlow", janus_flow, lambda text, seed: janus_flow_image(janus_flow, text, seed, cfg, FLOW_STEPS)),
    ]


if __name__ == "__main__":
    main("Image tokens or images per second, compared with a peer.", measure)
