"""Estimate memory and hours of online learning with the GRPO configs for Janus-Pro.

Run ``python -m benchmarks.online_cost``. Operations and bytes follow from the model's sizes
(``benchmarks.cost_model``). Times follow from a GPU's data sheet and the utilisations that ``benchmarks.scale``
assumes; they are not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cost_model import Costs, janus_pro
from benchmarks.scale import COMPUTE, DEVICES, Device, sample_seconds
from unigap.files.markdown import table

CONFIGS = Path(__file__).parents[1] / "configs" / "janus_pro"
GPUS = 8
KEPT_PER_TOKEN = 20
"""Numbers per hidden unit that one layer holds at its peak, in the backward pass of a recomputed layer."""


@dataclass(frozen=True)
class Online:
    """A GRPO config as numbers.

    Attributes:
        size: ``1B`` or ``7B``.
        group: Candidates of a prompt.
        prompts: Prompts of a round.
        rounds: Rounds of the run.
        rows: Images per step on each GPU.
        images: Images sampled at once.
        rank: LoRA rank; 0 trains the shared LLM in full.
    """

    size: str
    group: int
    prompts: int
    rounds: int
    rows: int
    images: int
    rank: int


def read(name: str) -> Online:
    """Read a config."""
    found: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    stage, plan = found["model"]["init_args"], found["regrow"]["plan"]
    model = stage["model"]["init_args"]
    return Online(
        model["checkpoint"].rpartition("-")[2],
        plan["candidates"],
        stage["schedule"]["prompts"],
        found["trainer"]["max_epochs"],
        found["data"]["init_args"]["batch_size"],
        plan["images_per_batch"],
        model.get("lora_rank", 0),
    )


def trained(costs: Costs, rank: int) -> int:
    """Return the trainable weights."""
    if not rank:
        return costs.trained
    text = costs.config.text_config
    sides = 4 * 2 * text.hidden_size + 3 * (text.hidden_size + text.intermediate_size)
    return text.num_hidden_layers * rank * sides


def memory(costs: Costs, plan: Online) -> tuple[float, float]:
    """Return the bytes on a GPU while training and while sampling, without the external judge."""
    text, count = costs.config.text_config, trained(costs, plan.rank)
    frozen = 2 * text.vocab_size * text.hidden_size * (2 if plan.rank else 4)
    weights = frozen + (2 * costs.trained if plan.rank else 0)
    # float32 weights, the reference, and the copy that makes room for it
    held = weights + 3 * 4 * count
    tokens = 2 * plan.rows * (costs.prompt + costs.image)
    stored = tokens * text.hidden_size * 2 * (text.num_hidden_layers + KEPT_PER_TOKEN)
    return held + 3 * 4 * count + stored, held + 2 * 4 * count + costs.cache(2 * plan.images)


def hours(costs: Costs, plan: Online, device: Device) -> list[float]:
    """Return the hours of sampling, decoding, judging and learning."""
    images = plan.rounds * plan.prompts * plan.group / GPUS
    seconds = (
        images / plan.images * sample_seconds(costs, device, plan.images),
        images * costs.decode(1) / (COMPUTE * device.single),
        images * costs.judge(1) / (COMPUTE * device.half),
        images * costs.learn_online(1, recompute=True) / (COMPUTE * device.half),
    )
    return [value / 3600 for value in seconds]


def main() -> None:
    """Print a row for each config and GPU."""
    head = ["config", "GPUs", "train GB", "sample GB", "sample h", "decode h", "judge h", "learn h", "total h"]
    rows = []
    for name in ("1b_grpo", "7b_grpo"):
        plan = read(name)
        costs = Costs(janus_pro(plan.size))
        held = [f"{value / 1e9:.0f}" for value in memory(costs, plan)]
        for device in DEVICES.values():
            spent = hours(costs, plan, device)
            rows.append([name, f"{GPUS} {device.name}", *held, *(f"{value:.2f}" for value in [*spent, sum(spent)])])
    print(table(head, rows))


if __name__ == "__main__":
    main()
