"""Estimate the cost of self-improvement at scale.

``python -m benchmarks.scale`` prints a check, the assumptions and a table. The check counts operations and bytes of the
tiny Janus on this machine and compares them with the cost model. The times in the table are computed from a GPU's data
sheet and assumed utilisations, not measured; compare them with the output of ``python -m benchmarks.full_size`` on a
GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cost_model import TRUNKS, Costs, janus_pro
from benchmarks.small_janus import PROMPTS, small_janus
from unigap.judges.self_judge import QUESTION
from unigap.models.base import SamplingRecipe
from unigap.models.engine.attention import causal, positions, run_trunk
from unigap.models.engine.static_decoding import DecodingCache
from unigap.models.janus import Janus

COMPUTE, BANDWIDTH = 0.4, 0.6
"""Assumed utilisation of peak compute and peak bandwidth."""
DISK = 2e9
"""Assumed bytes per second when a checkpoint is written."""
CANDIDATES, EPOCHS = 10, 20
ROWS_PER_PROMPT = 2265 / 6000
"""Accepted images per prompt: the paper's count at N = 10."""
TRAIN_BATCH = 8
"""Rows per step on each GPU."""
SIZES = (6_000, 1_000_000)
GPUS = (1, 4, 64)


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet.

    Attributes:
        name: Name of the GPU.
        half: Operations per second in bfloat16, dense.
        single: Operations per second in float32 without tensor cores.
        bandwidth: Bytes per second to and from its memory.
        memory: Bytes of memory.
        link: Bytes per second to each other GPU of its node.
        network: Bytes per second to other nodes.
    """

    name: str
    half: float
    single: float
    bandwidth: float
    memory: float
    link: float
    network: float


DEVICES = {
    "h200": Device("H200", 989e12, 67e12, 4.8e12, 141e9, 450e9, 50e9),
    "a800": Device("A800 80GB", 312e12, 19.5e12, 2.0e12, 80e9, 200e9, 25e9),
}


@dataclass(frozen=True)
class Hours:
    """Hours of a run by phase."""

    sample: float
    decode: float
    judge: float
    train: float
    save: float

    @property
    def total(self) -> float:
        """Hours of all phases."""
        return self.sample + self.decode + self.judge + self.train + self.save


def fits(costs: Costs, device: Device, gpus: int) -> bool:
    """Return whether float32 weights, gradients and AdamW's moments leave a tenth of the memory free."""
    return 16 * costs.trained / gpus < 0.9 * device.memory


def images_at_once(costs: Costs, device: Device, gpus: int) -> int:
    """Return the images per batch: half of the memory that the gathered LLM leaves, or less if shards need it."""
    gathered, shards = 2 * (costs.trained + costs.head), 12 * costs.trained / gpus
    left = min(0.5 * (device.memory - gathered), 0.9 * device.memory - gathered - shards)
    return max(1, int(left // costs.cache(2)))


def sample_seconds(costs: Costs, device: Device, images: int) -> float:
    """Return the seconds of one captured batch; the slower of arithmetic and memory bounds it."""
    prompts = max(1, images // CANDIDATES)
    arithmetic = costs.sample(prompts, images // prompts, fixed=True) / (COMPUTE * device.half)
    read = 2 * (costs.trained + costs.head) + costs.cache(2 * images)
    return max(arithmetic, costs.image * read / (BANDWIDTH * device.bandwidth))


def step_seconds(costs: Costs, device: Device, gpus: int) -> float:
    """Return the seconds of a training step with recomputed activations; arithmetic and communication overlap."""
    arithmetic = costs.train(TRAIN_BATCH, recompute=True) / (COMPUTE * device.half)
    # bfloat16 weights are gathered forward and backward, float32 gradients are scattered
    moved = costs.trained * (2 + 2 + 4) * (gpus - 1) / gpus
    return max(arithmetic, moved / (device.link if gpus <= 8 else device.network))


def hours(costs: Costs, device: Device, prompts: int, gpus: int) -> Hours:
    """Return the hours of one round and its epochs; replaying a share of the prompts adds that share of sampling."""
    images, batch = prompts * CANDIDATES / gpus, images_at_once(costs, device, gpus)
    steps = EPOCHS * prompts * ROWS_PER_PROMPT / (gpus * TRAIN_BATCH)
    seconds = (
        images / batch * sample_seconds(costs, device, batch),
        images * costs.decode(1) / (COMPUTE * device.single),
        images * costs.judge(1) / (COMPUTE * device.half),
        steps * step_seconds(costs, device, gpus),
        EPOCHS * saved_bytes(costs) / DISK,
    )
    return Hours(*(value / 3600 for value in seconds))


def saved_bytes(costs: Costs) -> float:
    """Return the bytes of a checkpoint: trainable float32 weights and AdamW's two moments, not the frozen weights."""
    return 12 * costs.trained


def counted(run: Callable[[], object]) -> int:
    """Return the operations that torch counts."""
    # torch does not count fused attention on a CPU
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def compare(janus: Janus | None = None) -> list[tuple[str, int, int]]:
    """Return the name, predicted and counted value of each quantity on the tiny Janus."""
    janus = janus or small_janus()
    janus.train_only_trunk()
    prompt = janus.encode_prompt(PROMPTS[:1] * 2)
    template = janus._template
    question_text = QUESTION.replace("{prompt}", PROMPTS[0])
    question = len(template.image_prefix) + len(template.question_ids(question_text)) - janus.image_tokens
    costs = Costs(janus.net.config, prompt.ids_BL.shape[1], question)
    seeds_BN = torch.arange(6).view(2, 3)
    codes_BM = torch.zeros(2, janus.image_tokens, dtype=torch.int64)
    pixels_BCHW = janus.decode(codes_BM)
    return [
        (
            "sampling 2 prompts x 3, guided",
            costs.sample(2, 3),
            counted(lambda: janus.sample_images(prompt, seeds_BN, SamplingRecipe(cfg=5))),
        ),
        ("decoding 2 images", costs.decode(2), counted(lambda: janus.decode(codes_BM))),
        (
            "judging 2 images",
            costs.judge(2),
            counted(lambda: janus.judge_logit(pixels_BCHW, [[question_text]] * 2).detach()),
        ),
        (
            "training on 2 images",
            costs.train(2),
            counted(lambda: janus.image_logps(prompt, codes_BM).sum().backward()),
        ),
        ("learning online from 2 images, guided", costs.learn_online(2), counted(lambda: online(janus, codes_BM))),
        ("trainable weights", costs.trained, sum(p.numel() for p in janus.parameters() if p.requires_grad)),
        ("bytes of keys and values, 6 rows", costs.cache(6, 4), cache_bytes(janus)),
    ]


def online(janus: Janus, codes_BM: torch.Tensor) -> None:
    """Run what a policy-gradient step computes: the guided likelihood with its gradient, and that of the reference."""
    prompt, recipe = janus.encode_prompt(PROMPTS[:1] * len(codes_BM)), SamplingRecipe(cfg=5)
    with torch.no_grad():
        janus.image_logps(prompt, codes_BM, recipe=recipe)
    janus.image_logps(prompt, codes_BM, recipe=recipe).sum().backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def cache_bytes(janus: Janus) -> int:
    """Return the bytes of the KV buffers when six rows are sampled."""
    prompt, llm = janus.encode_prompt(PROMPTS[:1] * 2), janus.core.language_model
    mask_BL = prompt.mask_BL
    out = run_trunk(llm, llm.embed_tokens(prompt.ids_BL), causal(mask_BL), positions(mask_BL), use_cache=True)
    rows = torch.arange(2).repeat_interleave(3)
    cache = DecodingCache(llm.rotary_emb, out.past_key_values, mask_BL, rows, janus.image_tokens - 1, fixed=False)
    return sum(tensor.nbytes for tensor in (*cache.keys, *cache.values))


def report(size: str, device: Device) -> str:
    """Format the assumptions and the table as Markdown."""
    costs = Costs(janus_pro(size))
    batches = " / ".join(str(images_at_once(costs, device, gpus)) for gpus in GPUS if fits(costs, device, gpus))
    lines = [
        f"Janus-Pro-{size} on {device.name}: {device.half / 1e12:.0f} TFLOP/s in bfloat16, {device.single / 1e12:g} in "
        f"float32, {device.bandwidth / 1e12:g} TB/s, {device.memory / 1e9:.0f} GB; {COMPUTE:.0%} of the arithmetic and "
        f"{BANDWIDTH:.0%} of the bandwidth reached; {costs.prompt} tokens per prompt, {costs.question} per question, "
        f"{CANDIDATES} candidates, guidance, {ROWS_PER_PROMPT:.2f} rows per prompt, {EPOCHS} epochs, {TRAIN_BATCH} "
        f"rows per step and GPU, {batches} images per batch; no external judge. Seconds are computed, not measured.",
        "",
        "| per image | |",
        "|---|---|",
        f"| sampling | {costs.sample(1, CANDIDATES) / CANDIDATES / 1e12:.1f} TFLOP, "
        f"{2 * (costs.image - 1)} tokens through the shared LLM, {costs.cache(2) / 1e6:.0f} MB of keys and values |",
        f"| decoding | {costs.decode(1) / 1e12:.2f} TFLOP in float32 |",
        f"| judging | {costs.judge(1) / 1e12:.1f} TFLOP |",
        f"| training, once | {costs.train(1, recompute=True) / 1e12:.1f} TFLOP with recomputed activations |",
        "",
        f"Trainable weights: {costs.trained / 1e9:.2f} G; a checkpoint holds {saved_bytes(costs) / 1e9:.0f} GB.",
        "",
        "| prompts | GPUs | sample h | decode h | judge h | train h | save h | total h | GPU h | codes GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for prompts in SIZES:
        codes = prompts * CANDIDATES * costs.image * 4 / 1e9
        for gpus in GPUS:
            if not fits(costs, device, gpus):
                lines.append(f"| {prompts:,} | {gpus} | full fine-tuning does not fit |" + " |" * 7)
                continue
            spent = hours(costs, device, prompts, gpus)
            parts = (spent.sample, spent.decode, spent.judge, spent.train, spent.save, spent.total, spent.total * gpus)
            cells = " | ".join(f"{value:,.2f}" if value < 10 else f"{value:,.0f}" for value in parts)
            lines.append(f"| {prompts:,} | {gpus} | {cells} | {codes:.2f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Print the check and the table."""
    parser = argparse.ArgumentParser(description="Cost of self-improvement at scale, computed.")
    parser.add_argument("--size", choices=TRUNKS, default="7B", help="which Janus-Pro")
    parser.add_argument("--gpu", choices=DEVICES, default="h200", help="which GPU")
    args = parser.parse_args(argv)
    print("| counted on the tiny Janus | predicted | counted | ratio |\n|---|---|---|---|")
    for name, predicted, measured in compare():
        print(f"| {name} | {predicted:,} | {measured:,} | {predicted / measured:.4f} |")
    print(f"\n{report(args.size, DEVICES[args.gpu])}")


if __name__ == "__main__":
    main()
