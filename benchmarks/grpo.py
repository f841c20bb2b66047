"""Compare a GRPO step with TRL's GRPO loss: same LLM, optimizer, images and shapes of logits.

Run ``python -m benchmarks.grpo``; ``--json FILE`` also writes the rows. TRL gets the codes as text tokens: its model is
the same Llama with the codes as its vocabulary, its own fused LM head and its own ``GRPOTrainer._compute_loss``. Both
sides train the transformer layers only, in float32 and without gradient checkpointing, on images of 144 tokens whose
log-probabilities under the acting policy are given. The rows with KL add a forward pass of the reference model: TRL
holds a second model, unigap swaps the weights. Peak memory is that of activations, gradients, optimizer state and
reference; each side runs in its own process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.process_memory import added_mib
from benchmarks.side_by_side import Row, main, speeds
from benchmarks.small_janus import PROMPTS, small_janus
from unigap.objectives import GRPO, RewardedBatch

# Shape legend: B images, M image tokens.

IMAGES, LEARNING_RATE, CLIP = 16, 1e-5, 0.2
PENALTIES = (0.0, 0.01)
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Makes the allocator return freed tensors at once: fragments of the heap vary by 25 MiB between runs."""
Step = Callable[[], object]


def ours(kl: float) -> Step:
    """Return a training step of our objective."""
    janus = small_janus()
    janus.train_only_trunk()
    texts = tuple(PROMPTS[i % len(PROMPTS)] for i in range(IMAGES))
    code_BM, behaviour_BM, advantage_B = acted(janus.n_codes, janus.image_tokens)
    janus.encode_prompt(texts)  # tokenizers load their tables once, on both sides before the measurement
    batch = RewardedBatch(texts, texts, code_BM, advantage_B, behaviour_BM)
    objective = GRPO(kl=kl)
    optimizer = torch.optim.AdamW([p for p in janus.parameters() if p.requires_grad], lr=LEARNING_RATE)
    janus.trunk.train()

    def step() -> None:
        if kl and janus.reference_state is None:  # in the first step, so that the peak of memory holds it
            janus.reference_state = janus.trainable_state()
        optimizer.zero_grad()
        objective.step(janus, batch).loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def acted(n_codes: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images, their log-probabilities under the acting policy, and advantages."""
    generator = torch.Generator().manual_seed(0)
    code_BM = torch.randint(n_codes, (IMAGES, tokens), generator=generator)
    behaviour_BM = torch.full((IMAGES, tokens), -float(torch.tensor(n_codes).log()))
    return code_BM, behaviour_BM, torch.randn(IMAGES, generator=generator)


def trl(kl: float) -> Step:
    """Return a training step with TRL's loss."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import GRPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    janus = small_janus()
    lengths = janus.encode_prompt(PROMPTS).ids_BL.shape[1]
    code_BM, behaviour_BM, advantage_B = acted(janus.n_codes, janus.image_tokens)
    config = LlamaConfig.from_dict(janus.net.config.text_config.to_dict() | {"vocab_size": janus.n_codes})
    model: Any = LlamaForCausalLM(config)
    trunk = janus.core.language_model.state_dict()
    model.model.load_state_dict({n: t for n, t in trunk.items() if "embed_tokens" not in n}, strict=False)
    model.requires_grad_(False)
    for part in (model.model.layers, model.model.norm):
        part.requires_grad_(True)
    add_fused_lm_head(model, temperature=1.0, outputs=("log_probs", "entropy"))
    trainer = _trainer_state(model, kl)
    log_probs = partial(GRPOTrainer._get_per_token_logps_and_entropies, trainer)
    trainer._get_per_token_logps_and_entropies = log_probs
    inputs = {
        "prompt_ids": torch.ones(IMAGES, lengths, dtype=torch.int64),
        "prompt_mask": torch.ones(IMAGES, lengths, dtype=torch.int64),
        "completion_ids": code_BM,
        "completion_mask": torch.ones_like(code_BM),
        "advantages": advantage_B,
        "old_per_token_logps": behaviour_BM,
    }
    rows = torch.cat([inputs["prompt_ids"], code_BM], 1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    model.train()

    @cache
    def reference() -> Any:  # made in the first step, so that the peak of memory holds it
        copied: Any = LlamaForCausalLM(config).eval()
        copied.load_state_dict(model.state_dict())
        add_fused_lm_head(copied, temperature=1.0, outputs=("log_probs", "entropy"))
        return copied

    def step() -> None:
        optimizer.zero_grad()
        if kl:
            with torch.no_grad():
                found = log_probs(reference(), rows, torch.ones_like(rows), code_BM.shape[1])
            inputs["ref_per_token_logps"] = found[0]
        GRPOTrainer._compute_loss(trainer, model, inputs).backward()
        optimizer.step()

    return step


def _trainer_state(model: Any, kl: float) -> Any:
    """Return what TRL's loss reads of its trainer."""
    keep = SimpleNamespace(
        gather=lambda t: t,
        reduce=lambda t, reduction: t,
        gather_for_metrics=lambda t: t,
        autocast=nullcontext,
        is_main_process=True,
    )
    return SimpleNamespace(
        model=model,
        accelerator=keep,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, report_to=[]),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        use_adaptive_entropy=False,
        beta=kl,
        epsilon_low=CLIP,
        epsilon_high=CLIP,
        loss_type="grpo",
        importance_sampling_level="token",
        _metrics=defaultdict(lambda: defaultdict(list)),
    )


SIDES = {"ours": ours, "trl": trl}


def peak_of(side: str, kl: float) -> float:
    """Return the peak memory that steps add to the loaded process, in MiB."""
    return added_mib(SIDES[side](kl), times=3)


def measure() -> list[Row]:
    """Measure steps per second and peak memory, without and with the divergence."""
    command = (
        "import sys, torch, benchmarks.grpo as grpo; torch.set_num_threads(1); "
        "print('MiB', grpo.peak_of(sys.argv[1], float(sys.argv[2])))"
    )
    rows = []
    for kl in PENALTIES:
        label = f"GRPO step, {IMAGES} images, KL {kl:g}"
        rows.append(speeds(label, ours(kl), trl(kl), 1, "steps/s"))
        peaks = []
        for side in SIDES:
            words = [sys.executable, "-W", "ignore", "-c", command, side, str(kl)]
            result = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | RETURNED)
            peaks.append(float(result.stdout.rsplit("MiB", 1)[1]))
        rows.append(Row(f"{label}, peak memory", peaks[0], peaks[1], peaks[1] / peaks[0], "MiB"))
    return rows


if __name__ == "__main__":
    main("Speed and peak memory of a GRPO step, compared with TRL.", measure)
