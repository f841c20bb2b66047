"""Measure the figures of docs/scale.md on a GPU: full-size Janus-Pro with random weights; writes JSON.

``python -m benchmarks.gpu --out FILE`` rewrites the file after every figure, so a time limit loses none of the earlier
ones. ``--device cpu --tiny`` runs the same code on a small model, to try the script without a GPU.
``benchmarks/gpu.sh`` runs this and a whole run in under nine minutes.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.full_size import build, measured
from benchmarks.small_janus import PROMPTS
from unigap.judges.self_judge import QUESTION
from unigap.models.base import SamplingRecipe
from unigap.models.janus import Janus
from unigap.objectives import DPO, PairBatch
from unigap.objectives.losses import sft_loss

GUIDED = SamplingRecipe(cfg=5)
Figures = dict[str, Any]


@dataclass(frozen=True)
class Machine:
    """Where and how large: ``device`` of torch; ``tiny`` takes the small model and few images."""

    device: str
    tiny: bool

    def model(self, size: str, compile: bool = False) -> Janus:
        """Return a Janus-Pro of this size in bfloat16 with random weights."""
        return build("small" if self.tiny else size, self.device, compile)

    def count(self, images: int) -> int:
        """Return how many images to take."""
        return min(images, 4) if self.tiny else images


def codes_of(janus: Janus, rows: int) -> torch.Tensor:
    """Return random codes, int64 (rows, M)."""
    return torch.randint(janus.n_codes, (rows, janus.image_tokens), device=janus._device)


def seeds(prompts: int, n: int) -> torch.Tensor:
    """Return a seed for each image, (prompts, n)."""
    return torch.arange(prompts * n).view(prompts, n)


def parity(machine: Machine, dtype: torch.dtype) -> Figures:
    """Compare log-probabilities at sampling with those of a forward pass over the whole image, in nats."""
    janus = machine.model("1B").to(dtype)
    janus.core.vqmodel.float()
    prompt = janus.encode_prompt(PROMPTS[:2])
    found = janus.sample_images(prompt, seeds(2, 2), SamplingRecipe())
    assert found.logp_BNM is not None, "Janus returns log-probabilities"
    rows = janus.encode_prompt([text for text in PROMPTS[:2] for _ in range(2)])
    with torch.no_grad():
        expected_RM = janus.image_logps(rows, found.drawings_BN.flatten(0, 1))
    difference_RM = (found.logp_BNM.flatten(0, 1) - expected_RM).abs()
    return {"token_max": difference_RM.max().item(), "image_max": difference_RM.sum(-1).max().item()}


def captured_parity(machine: Machine) -> Figures:
    """Return the share of equal codes of captured and eager sampling; after the first difference images diverge."""
    codes = []
    for compile in (False, True):
        torch.manual_seed(0)
        janus = machine.model("1B", compile)
        codes.append(janus.sample_images(janus.encode_prompt(PROMPTS[:2]), seeds(2, 2), GUIDED).drawings_BN)
    return {"equal_codes": (codes[0] == codes[1]).double().mean().item()}


def sampling(machine: Machine, size: str, compile: bool) -> Figures:
    """Sample ten images for each prompt."""
    janus, n = machine.model(size, compile), machine.count(10)
    prompts = 1 if machine.tiny else 4
    prompt = janus.encode_prompt([PROMPTS[i % len(PROMPTS)] for i in range(prompts)])
    return speed(machine, prompts * n, lambda: janus.sample_images(prompt, seeds(prompts, n), GUIDED))


def judging(machine: Machine, size: str) -> Figures:
    """Judge a batch of images."""
    janus, images = machine.model(size), machine.count(64)
    pixels_BCHW = janus.decode(codes_of(janus, 1)).expand(images, -1, -1, -1)
    questions = [[QUESTION.replace("{prompt}", PROMPTS[1])]] * images

    def judge() -> None:
        with torch.no_grad():
            janus.judge_logit(pixels_BCHW, questions)

    return speed(machine, images, judge)


def training(machine: Machine, size: str, objective: str, rank: int) -> Figures:
    """Take training steps with AdamW: in full with float32 weights under autocast, or an adapter of ``rank``."""
    janus, rows = machine.model(size), machine.count(8)
    if rank:
        janus.add_lora(rank, 2 * rank, 0.0)
        janus.train_only_trunk()
    for parameter in janus.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trained = [parameter for parameter in janus.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    texts = tuple(PROMPTS[i % len(PROMPTS)] for i in range(rows))
    codes_BM, other_BM = codes_of(janus, rows), codes_of(janus, rows)
    references_B2 = torch.zeros(rows, 2, dtype=torch.float64, device=codes_BM.device)
    pairs = PairBatch(texts, texts, codes_BM, other_BM, references_B2)
    prompt = janus.encode_prompt(texts)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(codes_BM.device.type, dtype=torch.bfloat16):
            if objective == "SFT":
                loss = sft_loss(janus.image_logps(prompt, codes_BM))
            else:
                loss = DPO(beta=0.1).step(janus, pairs).loss
        loss.backward()
        optimizer.step()

    return speed(machine, rows, step) | {"trained_parameters": sum(parameter.numel() for parameter in trained)}


def speed(machine: Machine, images: int, work: Callable[[], object]) -> Figures:
    """Return images per second and peak memory of the second of two calls."""
    seconds, peak = measured(machine.device, work)
    return {"images": images, "seconds": seconds, "images_per_second": images / seconds, "peak_gb": peak}


def tasks(machine: Machine) -> Iterator[tuple[str, Callable[[], Figures]]]:
    """Yield names and measurements, those that matter most first."""
    yield "parity, bfloat16", lambda: parity(machine, torch.bfloat16)
    yield "parity, float32", lambda: parity(machine, torch.float32)
    on_gpu = machine.device != "cpu"
    for size in ("1B", "7B"):
        yield f"sampling, {size}, eager", lambda size=size: sampling(machine, size, compile=False)
        if on_gpu:
            yield f"sampling, {size}, captured", lambda size=size: sampling(machine, size, compile=True)
        yield f"judging, {size}", lambda size=size: judging(machine, size)
    if on_gpu:
        yield "captured against eager, 1B", lambda: captured_parity(machine)
    for size, rank in (("1B", 0), ("7B", 32)):
        for objective in ("SFT", "DPO"):
            name = f"{objective} step, {size}, {f'LoRA {rank}' if rank else 'in full'}"
            yield name, lambda *, how=(size, objective, rank): training(machine, *how)


def main(argv: list[str] | None = None) -> int:
    """Measure; return 1 if a measurement failed."""
    parser = argparse.ArgumentParser(description="Full-size Janus-Pro with random weights, measured on a GPU.")
    parser.add_argument("--device", default="cuda", help="device to run on")
    parser.add_argument("--tiny", action="store_true", help="take the small model and few images")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args(argv)
    machine = Machine(args.device, args.tiny)
    name = torch.cuda.get_device_name() if machine.device.startswith("cuda") else "CPU"
    found: Figures = {"device": name, "torch": torch.__version__, "tiny": machine.tiny}
    failed = False
    for title, measure in tasks(machine):
        start = time.perf_counter()
        try:
            found[title] = measure()
        except Exception as error:  # a figure that fails must not cost the later ones
            found[title], failed = {"error": f"{type(error).__name__}: {error}"}, True
        found[title]["total_seconds"] = time.perf_counter() - start
        args.out.write_text(json.dumps(found, indent=2) + "\n")
        print(title, found[title], flush=True)
        gc.collect()
        if machine.device.startswith("cuda"):
            torch.cuda.empty_cache()
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
