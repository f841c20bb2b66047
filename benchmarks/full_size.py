"""Measure a full-size Janus-Pro with random weights on a GPU and compare it with the cost model.

Run ``python -m benchmarks.full_size`` on a machine with a GPU. It prints the name of the GPU and downloads nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from transformers import JanusConfig, JanusForConditionalGeneration, LlamaConfig
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig

from benchmarks.cost_model import TRUNKS, Costs, janus_pro
from benchmarks.small_janus import PROMPTS
from unigap.judges.self_judge import QUESTION
from unigap.models.base import SamplingRecipe
from unigap.models.janus import Janus
from unigap.objectives.losses import sft_loss
from unigap.worlds.shapes.untrained.janus import make_processor

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
GUIDED = SamplingRecipe(cfg=5)


def configuration(size: str) -> JanusConfig:
    """Return the configuration of ``1B``, ``7B``, or ``small``, which has the same parts and runs on a CPU."""
    if size != "small":
        return janus_pro(size)
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 64}
    codes = {"num_embeddings": 64, "base_channels": 32, "channel_multiplier": [1, 1, 1, 1, 1], "num_res_blocks": 1}
    return JanusConfig(
        text_config=LlamaConfig(vocab_size=512, **SMALL),
        vision_config=JanusVisionConfig(projection_dim=64, num_image_tokens=16, **vision),
        vq_config=JanusVQVAEConfig(projection_dim=64, image_token_embed_dim=64, **codes),
        tie_word_embeddings=False,
    )


def build(size: str, device: str, compile: bool) -> Janus:
    """Return a Janus with random bfloat16 weights, whose processor has the vocabulary of the embedded world."""
    config = configuration(size)
    vision = config.vision_config
    side, grid = vision.image_size, vision.image_size // vision.patch_size
    processor = make_processor(grid)
    processor.image_processor.size = {"height": side, "width": side}
    config.image_token_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        net = JanusForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    janus = Janus.from_parts(net, processor, compile)
    janus.core.language_model.activation_checkpointing_enable({"use_reentrant": False})
    janus.train_only_trunk()
    return janus


def measured(device: str, work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of the second of two runs, and the peak memory in GB."""
    on_gpu = device.startswith("cuda")
    work()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="A full-size Janus-Pro with random weights, measured on a GPU.")
    parser.add_argument("--size", choices=[*TRUNKS, "small"], default="7B", help="which Janus-Pro")
    parser.add_argument("--device", default="cuda", help="device to run on")
    parser.add_argument("--images", type=int, default=40, help="images sampled in one batch, ten per prompt")
    parser.add_argument("--judged", type=int, default=64, help="images judged in one batch")
    parser.add_argument("--rows", type=int, default=8, help="images per training step")
    parser.add_argument("--compile", action="store_true", help="capture the sampling step as a CUDA graph")
    args = parser.parse_args(argv)
    janus = build(args.size, args.device, args.compile)
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    prompts, n = max(1, args.images // 10), min(10, args.images)
    prompt = janus.encode_prompt([PROMPTS[i % len(PROMPTS)] for i in range(prompts)])
    seeds_BN = torch.arange(prompts * n).view(prompts, n)
    codes_BM = torch.zeros(max(args.rows, args.judged), janus.image_tokens, dtype=torch.int64, device=args.device)
    pixels_BCHW = janus.decode(codes_BM[:1]).expand(args.judged, -1, -1, -1)
    questions = [[QUESTION.replace("{prompt}", PROMPTS[1])]] * args.judged
    rows = janus.encode_prompt(PROMPTS[1:2] * args.rows)
    template = janus._template
    question = len(template.image_prefix) + len(template.question_ids(questions[0][0])) - janus.image_tokens
    costs = Costs(janus.net.config, rows.ids_BL.shape[1], question)

    def judge() -> None:
        with torch.no_grad():
            janus.judge_logit(pixels_BCHW, questions)

    def step() -> None:
        janus.zero_grad()
        sft_loss(janus.image_logps(rows, codes_BM[: args.rows])).backward()

    tasks: list[tuple[str, int, float, Callable[[], object]]] = [
        (
            "sampling, guided",
            prompts * n,
            costs.sample(prompts, n, fixed=args.compile),
            lambda: janus.sample_images(prompt, seeds_BN, GUIDED),
        ),
        ("decoding", args.rows, costs.decode(args.rows), lambda: janus.decode(codes_BM[: args.rows])),
        ("judging", args.judged, costs.judge(args.judged), judge),
        ("forward and backward", args.rows, costs.train(args.rows, recompute=True), step),
    ]
    print(f"Janus-Pro-{args.size}, random weights in bfloat16, on {name}, torch {torch.__version__}")
    print("| | images | seconds | images/s | TFLOP/s by the cost model | peak GB |\n|---|---|---|---|---|---|")
    for task, images, operations, work in tasks:
        seconds, peak = measured(args.device, work)
        rate = operations / seconds / 1e12
        print(f"| {task} | {images} | {seconds:.3f} | {images / seconds:.2f} | {rate:.3g} | {peak:.1f} |")


if __name__ == "__main__":
    main()
