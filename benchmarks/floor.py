"""Compare the time of a full-size Janus-Pro with the time of its matrix products alone.

``python -m benchmarks.floor`` prints, for each precision and number of rows, the milliseconds of one step of sampling,
of judging images and of the gradient of a DPO step, and of the matrix products that each of them makes, measured in
turns in the same process. No engine can be faster than these: ``products / ours`` is the share of the time that is not
overhead. Products of attention and convolutions are not counted. Sampling is also compared with a step of transformers'
``generate``, and the choice of a code from its logits is measured alone.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from transformers import GenerationConfig, JanusForConditionalGeneration

from benchmarks.cost_model import janus_pro
from benchmarks.published import Size, janus_config, janus_processor
from benchmarks.small_janus import PROMPTS
from unigap.judges.self_judge import QUESTION
from unigap.models.base import SamplingRecipe
from unigap.models.engine.autoregressive import sample_next
from unigap.models.janus import Janus
from unigap.objectives import DPO, PairBatch

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
    janus = Janus.from_parts(net, processor)
    janus.train_only_trunk()
    return janus


@dataclass(frozen=True)
class Product:
    """One product of a linear layer: ``rows`` vectors times ``weight``."""

    weight: torch.Tensor
    rows: int


def products_of(call: Callable[[], object]) -> list[Product]:
    """Return the products that a call makes in its forward passes, recomputed ones included."""
    found: list[Product] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        if isinstance(module, nn.Linear):
            found.append(Product(module.weight, inputs[0].numel() // module.in_features))

    handle = register_module_forward_hook(note)
    try:
        call()
    finally:
        handle.remove()
    return found


def products_alone(products: Sequence[Product], backward: bool) -> Callable[[], object]:
    """Return a call that makes products on random numbers, with those of the gradients if ``backward``."""
    sizes = {(product.rows, product.weight.shape[1]): product.weight for product in products}
    inputs = {size: torch.randn(size).to(weight) for size, weight in sizes.items()}

    @torch.no_grad()
    def multiply() -> None:
        for product in products:
            vectors = inputs[product.rows, product.weight.shape[1]]
            gradient = F.linear(vectors, product.weight)
            if backward:
                gradient @ product.weight
            if backward and product.weight.requires_grad:
                gradient.T @ vectors

    return multiply


def sampling(janus: Janus, rows: int) -> Callable[[], object]:
    """Return a call that samples ``rows`` images of one prompt."""
    prompt, seeds_1N = janus.encode_prompt(PROMPTS[:1]), torch.arange(rows)[None]
    return lambda: janus.sample_images(prompt, seeds_1N, PLAIN)


def generate(janus: Janus, rows: int) -> Callable[[], object]:
    """Return a call of ``generate`` for ``rows`` images; it always guides, with two rows for an image."""
    chat = [{"role": "user", "content": [{"type": "text", "text": PROMPTS[0]}]}]
    text = janus.processor.apply_chat_template([chat], add_generation_prompt=True)
    inputs = janus.processor(text=text, generation_mode="image", return_tensors="pt").to(janus._device)
    images = max(1, rows // 2)
    how = {"generation_mode": "image", "do_sample": True, "guidance_scale": 2.0, "num_return_sequences": images}
    return lambda: janus.net.generate(**inputs, **how)


def choosing(janus: Janus, rows: int) -> Callable[[], object]:
    """Return a call that chooses a code for each of ``rows`` rows of logits, without a filter as the recipes do."""
    logits_RV = torch.randn(rows, janus.n_codes, device=janus._device)
    uniform_R = torch.rand(rows, dtype=torch.float64, device=janus._device)
    return lambda: sample_next(logits_RV, uniform_R, SamplingRecipe())


def judging(janus: Janus, rows: int) -> Callable[[], object]:
    """Return a call that asks one question about each of ``rows`` images."""
    size = janus.processor.image_processor.size
    pixels_BCHW = torch.zeros(rows, 3, size["height"], size["width"], device=janus._device)
    questions_B1 = [[QUESTION.replace("{prompt}", PROMPTS[0])]] * rows

    @torch.no_grad()
    def judge() -> None:
        janus.judge_logit(pixels_BCHW, questions_B1)

    return judge


def dpo(janus: Janus, rows: int) -> Callable[[], object]:
    """Return a call that computes the gradient of DPO on ``rows`` images, every two of them a pair."""
    pairs = max(1, rows // 2)
    codes = torch.randint(janus.n_codes, (2, pairs, janus.image_tokens), device=janus._device)
    names, texts = tuple(map(str, range(pairs))), tuple(PROMPTS[:1] * pairs)
    batch = PairBatch(names, texts, codes[0], codes[1], torch.zeros(pairs, 2, dtype=torch.float64).to(janus._device))

    def step() -> None:
        DPO().step(janus, batch).loss.backward()
        janus.zero_grad()

    return step


def milliseconds(device: str, calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median time of each call, on a CPU that of the process, which other programs do not slow.

    Calls take turns, so that a machine that changes its pace does so for all of them.
    """
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    taken: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, times in zip(calls, taken, strict=True):
            start = clock()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if turn:  # the first turn warms up
                times.append(1e3 * (clock() - start))
    return [statistics.median(times) for times in taken]


def row(
    janus: Janus, what: str, rows: int, repeats: int, peer: Callable[[Janus, int], Callable[[], object]] | None = None
) -> tuple[float, ...]:
    """Return milliseconds of one of ``WORK``, of its products alone, and of a peer; for sampling, those of a step."""
    call = WORK[what](janus, rows)
    alone = products_alone(products_of(call), backward=what == "dpo")
    calls = [call, alone] if peer is None else [call, alone, peer(janus, rows)]
    steps = janus.image_tokens if what == "sampling" else 1
    return tuple(taken / steps for taken in milliseconds(str(janus._device), calls, repeats))


WORK = {"sampling": sampling, "choosing": choosing, "judging": judging, "dpo": dpo}


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Sampling, judging and a DPO step compared with their products.")
    parser.add_argument("--what", nargs="+", choices=list(WORK), default=list(WORK), help="what to measure")
    parser.add_argument("--layers", type=int, default=24, help="layers of the shared LLM")
    parser.add_argument("--image_tokens", type=int, default=64, help="tokens of an image, a square")
    parser.add_argument("--narrow", action="store_true", help="small widths, for a test")
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 8, 32], help="rows or images, even numbers")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the median counts")
    parser.add_argument("--device", default="cpu", help="device to run on")
    args = parser.parse_args(argv)
    size = Size(args.layers, args.image_tokens, args.narrow)
    print("| what | precision | rows | ours, ms | products alone, ms | products / ours | generate, ms |")
    print("|---|---|---|---|---|---|---|")
    for name in args.dtypes:
        janus = model(size, DTYPES[name], args.device)
        for what, rows in itertools.product(args.what, args.rows):
            ours, alone, *peers = row(janus, what, rows, args.repeats, generate if what == "sampling" else None)
            other = "".join(f"{peer:.3f}" for peer in peers)
            floor = ("", "") if what == "choosing" else (f"{alone:.3f}", f"{alone / ours:.2f}")
            cells = (what, name, rows, f"{ours:.3f}", *floor, other)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
