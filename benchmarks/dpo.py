"""Compare a DPO step with TRL's ``DPOTrainer`` with precomputed reference: same LLM, optimizer and number of pairs.

Run ``python -m benchmarks.dpo``; ``--json FILE`` also writes the rows. TRL gets the codes as text tokens: its model is
the same Llama with text tokens and codes in one vocabulary. Both sides train the transformer layers only, in float32
and without gradient checkpointing. A completion has 144 tokens on both sides: 144 codes, or 143 and TRL's end of
sequence. Peak memory is the memory of activations, gradients and optimizer state; each side runs in its own process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.process_memory import added_mib
from benchmarks.side_by_side import Row, main, speeds
from benchmarks.small_janus import PROMPTS, small_janus
from unigap.models.base import evaluating
from unigap.objectives import DPO, PairBatch

PAIRS, LEARNING_RATE, BETA = 8, 1e-5, 0.1
Step = Callable[[], object]


def ours() -> Step:
    """Return a training step of our objective."""
    janus = small_janus()
    janus.train_only_trunk()
    generator = torch.Generator().manual_seed(0)
    texts = tuple(PROMPTS[i % len(PROMPTS)] for i in range(PAIRS))
    chosen_BM, rejected_BM = torch.randint(janus.n_codes, (2, PAIRS, janus.image_tokens), generator=generator)
    with torch.no_grad(), evaluating(janus):
        prompt = janus.encode_prompt(texts)
        reference_B2 = torch.stack([janus.image_logps(prompt, c).double().sum(-1) for c in (chosen_BM, rejected_BM)], 1)
    batch = PairBatch(texts, texts, chosen_BM, rejected_BM, reference_B2)
    objective = DPO(beta=BETA, nll_weight=0.0)
    optimizer = torch.optim.AdamW([p for p in janus.parameters() if p.requires_grad], lr=LEARNING_RATE)
    janus.trunk.train()

    def step() -> None:
        optimizer.zero_grad()
        objective.step(janus, batch).loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def trl() -> Step:
    """Return a training step of TRL's trainer, called as in its own loop."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer

    janus = small_janus()
    tokenizer = janus.processor.tokenizer
    codes = [f"<code{i}>" for i in range(janus.n_codes)]
    tokenizer.add_tokens(codes)
    config = LlamaConfig.from_dict(janus.net.config.text_config.to_dict() | {"vocab_size": len(tokenizer)})
    model: Any = LlamaForCausalLM(config)
    trunk = janus.core.language_model.state_dict()
    model.model.load_state_dict({n: t for n, t in trunk.items() if "embed_tokens" not in n}, strict=False)
    model.requires_grad_(False)
    for part in (model.model.layers, model.model.norm):
        part.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(janus.n_codes, (2, PAIRS, janus.image_tokens - 1), generator=generator).tolist()
    chosen, rejected = ([" ".join(codes[i] for i in row) for row in side] for side in pairs)
    start = janus.processor.image_start_token
    prompts = [
        janus.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": PROMPTS[i % len(PROMPTS)]}]}],
            add_generation_prompt=True,
        )
        + start
        for i in range(PAIRS)
    ]
    options = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=PAIRS,
        learning_rate=LEARNING_RATE,
        beta=BETA,
        precompute_ref_log_probs=True,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        max_length=None,
        report_to=[],
        disable_tqdm=True,
    )
    data = Dataset.from_dict({"prompt": prompts, "chosen": chosen, "rejected": rejected})
    trainer = DPOTrainer(model, args=options, train_dataset=data, processing_class=tokenizer)
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1  # set by its own loop
    batch = next(iter(trainer.get_train_dataloader()))
    model.train()

    def step() -> None:
        trainer.training_step(model, dict(batch))
        trainer.optimizer.step()
        model.zero_grad()

    return step


SIDES = {"ours": ours, "trl": trl}


def peak_of(side: str) -> float:
    """Return the peak memory that steps add to the loaded process, in MiB."""
    return added_mib(SIDES[side](), times=3)


def measure() -> list[Row]:
    """Measure pairs per second and peak memory."""
    command = (
        "import sys, torch, benchmarks.dpo as dpo; torch.set_num_threads(1); print('MiB', dpo.peak_of(sys.argv[1]))"
    )
    peaks = []
    for side in SIDES:
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", command, side], capture_output=True, text=True, check=True
        )
        peaks.append(float(result.stdout.rsplit("MiB", 1)[1]))
    label = f"DPO step, {PAIRS} pairs"
    return [
        speeds(label, ours(), trl(), PAIRS, "pairs/s"),
        Row(f"{label}, peak memory", peaks[0], peaks[1], peaks[1] / peaks[0], "MiB"),
    ]


if __name__ == "__main__":
    main("Speed and peak memory of a DPO step, compared with TRL.", measure)
