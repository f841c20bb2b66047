"""Compare a sampling step of a full-size Janus-Pro with the time of its matrix products alone.

``python -m benchmarks.floor`` prints the milliseconds of one step of unigap, of the matrix products of that step alone,
and of a step of transformers' ``generate``, for each precision and number of rows. The three are measured alternately
in one process. No engine can be faster than the products with its weights, so ``ours / products`` is the overhead.
Products of attention are not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationConfig, JanusForConditionalGeneration

from benchmarks.cost_model import janus_pro
from benchmarks.published import Size, janus_config, janus_processor
from benchmarks.small_janus import PROMPTS
from unigap.models.base import SamplingRecipe
from unigap.models.janus import Janus

PLAIN = SamplingRecipe(top_k=50)
"""One row for an image, and the filter that ``generate`` applies."""
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def model(size: Size, dtype: torch.dtype, device: str) -> Janus:
    """Return a Janus-Pro-1B of this depth with random weights."""
    config = janus_config(janus_pro("1B"), size)
    processor = janus_processor(True, config.vision_config.image_size, size.image_tokens)
    tokenizer = processor.tokenizer
    config.image_token_id = tokenizer.convert_tokens_to_ids(processor.image_token)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            net = JanusForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    net.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        generation_kwargs={"boi_token_id": tokenizer.convert_tokens_to_ids("<begin_of_image>")},
    )
    return Janus.from_parts(net, processor)


def weights_of_a_step(janus: Janus) -> list[torch.Tensor]:
    """Return the matrices that every step multiplies by: those of the layers, of the aligner and of the head."""
    core = janus.core
    parts = (core.language_model.layers, core.generation_aligner, core.generation_head)
    return [module.weight for part in parts for module in part.modules() if isinstance(module, nn.Linear)]


def products(weights: Sequence[torch.Tensor], rows: int) -> Callable[[], object]:
    """Return a call that multiplies ``rows`` rows by every matrix."""
    inputs = {weight.shape[1]: torch.randn(rows, weight.shape[1]).to(weight) for weight in weights}

    @torch.no_grad()
    def multiply() -> None:
        for weight in weights:
            F.linear(inputs[weight.shape[1]], weight)

    return multiply


def ours(janus: Janus, rows: int) -> Callable[[], object]:
    """Return a call that samples ``rows`` images of one prompt."""
    prompt, seeds_1N = janus.encode_prompt(PROMPTS[:1]), torch.arange(rows)[None]
    return lambda: janus.sample_images(prompt, seeds_1N, PLAIN)


def theirs(janus: Janus, rows: int) -> Callable[[], object]:
    """Return a call of ``generate`` for ``rows`` images; it always guides, with two rows for an image."""
    chat = [{"role": "user", "content": [{"type": "text", "text": PROMPTS[0]}]}]
    text = janus.processor.apply_chat_template([chat], add_generation_prompt=True)
    inputs = janus.processor(text=text, generation_mode="image", return_tensors="pt").to(janus._device)
    images = max(1, rows // 2)
    how = {"generation_mode": "image", "do_sample": True, "guidance_scale": 2.0, "num_return_sequences": images}
    return lambda: janus.net.generate(**inputs, **how)


def milliseconds(device: str, calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median time of each call; calls take turns, so that a busy machine slows all of them."""
    taken: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, times in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if turn:  # the first turn warms up
                times.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(times) for times in taken]


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="A sampling step compared with its matrix products.")
    parser.add_argument("--layers", type=int, default=24, help="layers of the shared LLM")
    parser.add_argument("--image_tokens", type=int, default=64, help="tokens of an image, a square")
    parser.add_argument("--narrow", action="store_true", help="small widths, for a test")
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 8, 32], help="rows of a step, even numbers")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the median counts")
    parser.add_argument("--device", default="cpu", help="device to run on")
    args = parser.parse_args(argv)
    size = Size(args.layers, args.image_tokens, args.narrow)
    print("| precision | rows | ours, ms a step | products alone, ms | generate, ms a step | ours / products |")
    print("|---|---|---|---|---|---|")
    for name in args.dtypes:
        janus = model(size, DTYPES[name], args.device)
        weights = weights_of_a_step(janus)
        for rows in args.rows:
            whole = (ours(janus, rows), products(weights, rows), theirs(janus, rows))
            sampled, alone, generated = milliseconds(args.device, whole, args.repeats)
            step, other = sampled / size.image_tokens, generated / size.image_tokens
            print(f"| {name} | {rows} | {step:.3f} | {alone:.3f} | {other:.3f} | {step / alone:.2f} |", flush=True)


if __name__ == "__main__":
    main()
