"""Estimate peak memory and hours of the configs for one GPU: ``python -m benchmarks.one_gpu``.

Bytes and operations follow from the sizes of the models (``benchmarks.cost_model``), times from a GPU's data sheet and
the utilisations that ``benchmarks.scale`` assumes. Nothing is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cost_model import Costs, janus_pro
from benchmarks.hardware import GB, adapter, parameters
from benchmarks.online_cost import KEPT_PER_TOKEN
from benchmarks.scale import CANDIDATES, COMPUTE, DEVICES, EPOCHS, ROWS_PER_PROMPT, Device, sample_seconds
from unigap.files.markdown import table
from unigap.loop.plan import RoundPlan
from unigap.models.engine.memory import SHARE

CONFIGS = Path(__file__).parents[1] / "configs" / "janus_pro"
PROMPTS = 6_000
CARDS = {
    "1b_24gb": Device("RTX 4090", 165e12, 82.6e12, 1.01e12, 24 * GB, 0, 0),
    "1b_full_24gb": Device("RTX 4090", 165e12, 82.6e12, 1.01e12, 24 * GB, 0, 0),
    "7b_48gb": Device("L40S", 362e12, 91.6e12, 0.86e12, 48 * GB, 0, 0),
    "7b_80gb": DEVICES["a800"],
}
"""The GPU of each config by its data sheet; one GPU has no links."""
MATRICES, TABLES = 7.2e9, 1.09e9
"""Weights of Qwen2.5-VL-7B: of linear layers, and of its two tables of tokens, which stay in bfloat16."""
BYTES = {"bfloat16": 2.0, "bnb-4bit": 0.5 + 4 / 64}
"""Bytes of a weight of a linear layer; 64 weights in 4 bits share a float32 scale."""
IN_ADAPTER = 4 + 4 + 8 + 4 + 4
"""Bytes of an adapter's weight: itself, its gradient, two moments, the reference of DPO, and averaged weights."""
IN_FULL = 4 + 2 + 2
"""Bytes in addition to a weight trained in full: gradient, two moments in 8 bits, and its copy in bfloat16."""
LOGITS = 3
"""Copies of the logits of the image codes in float32: themselves, their logarithm, and the gradient."""


@dataclass(frozen=True)
class Need:
    """What a config needs: bytes while training and while sampling, images sampled at once, and hours."""

    train: float
    sample: float
    images: int
    hours: float

    @property
    def peak(self) -> float:
        """The larger number of bytes."""
        return max(self.train, self.sample)


def need(name: str) -> Need:
    """Return what a config needs with ``c_sft.yaml``; for an adapter, the memory of DPO, whose rows hold two images."""
    found: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    stage, device = found["model"]["init_args"], CARDS[name]
    size = stage["model"]["init_args"]["checkpoint"].rpartition("-")[2]
    costs, count = Costs(janus_pro(size)), parameters(size)
    text, vq = costs.config.text_config, costs.config.vq_config
    is_full = "lora_rank" not in stage["model"]["init_args"]
    weights = (4 if is_full else 2) * count
    state = IN_FULL * costs.trained if is_full else IN_ADAPTER * adapter(costs)
    judge = MATRICES * BYTES[stage["external"]["init_args"]["dtype"]] + 2 * TABLES if "external" in stage else 0
    held = weights + state + judge
    rows = (1 if is_full else 2) * found["data"]["init_args"]["batch_size"]
    stored = rows * (costs.prompt + costs.image) * text.hidden_size * 2 * (text.num_hidden_layers + KEPT_PER_TOKEN)
    logits = LOGITS * 4 * rows * costs.image * vq.num_embeddings
    most = found["regrow"]["plan"].get("images_per_batch", RoundPlan.images_per_batch)
    images = min(most, int(SHARE * (device.memory - weights) // costs.cache(2)))
    return Need(held + stored + logits, held + costs.cache(2 * images), images, hours(costs, device, images))


def hours(costs: Costs, device: Device, images: int) -> float:
    """Return the hours of a first round and 20 epochs on what it accepts, without the external judge."""
    drawn = PROMPTS * CANDIDATES
    seconds = drawn / images * sample_seconds(costs, device, images)
    seconds += drawn * costs.decode(1) / (COMPUTE * device.single)
    seconds += drawn * costs.judge(1) / (COMPUTE * device.half)
    seconds += EPOCHS * PROMPTS * ROWS_PER_PROMPT * costs.train(1, recompute=True) / (COMPUTE * device.half)
    return seconds / 3600


def main() -> None:
    """Print a row for each config."""
    head = ["config", "GPU", "training", "sampling", "images at once", "6,000 prompts"]
    rows = []
    for name, device in CARDS.items():
        found = need(name)
        sizes = [f"{value / GB:.0f} GB" for value in (found.train, found.sample)]
        rows.append([f"`{name}.yaml`", f"{device.name}", *sizes, str(found.images), f"{found.hours:.1f} h"])
    print(table(head, rows))


if __name__ == "__main__":
    main()
