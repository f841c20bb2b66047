"""Print the tables of docs/hardware.md: ``python -m benchmarks.hardware``. All figures are computed, not measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import JanusForConditionalGeneration

from benchmarks.cost_model import TRUNKS, Costs, janus_pro
from unigap.models.engine.memory import SHARE

GB = 1e9
CARDS = (24, 40, 80, 141)
"""Memory of common GPUs, in GB."""
RESERVE = 0.2
"""Share of the memory that activations and buffers may need."""
RANK = 32


@dataclass(frozen=True)
class Use:
    """A use of a model: ``needs`` is the memory of weights and training state on one GPU, in bytes."""

    name: str
    needs: int

    def smallest_card(self) -> str:
        """Return the smallest card that holds it with the reserve."""
        return next((f"{card} GB" for card in CARDS if self.needs <= (1 - RESERVE) * card * GB), "several GPUs")


def parameters(size: str) -> int:
    """Return the number of parameters of a Janus-Pro."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in JanusForConditionalGeneration(janus_pro(size)).parameters())


def adapter(costs: Costs) -> int:
    """Return the number of parameters of an adapter for all linear layers of the shared LLM."""
    text = costs.config.text_config
    width, inner = text.hidden_size, text.intermediate_size
    return text.num_hidden_layers * RANK * (4 * 2 * width + 3 * (width + inner))


def uses(size: str) -> list[Use]:
    """Return what a model is used for, by its need of memory."""
    costs, count = Costs(janus_pro(size)), parameters(size)
    frozen = 4 if size == "1B" else 2  # bytes of a frozen weight, as the configs load it
    return [
        Use("measure: `gap`, `validate`, `predict` in bfloat16", 2 * count),
        Use(f"train an adapter, rank {RANK}, on bfloat16", 2 * count + 16 * adapter(costs)),
        Use("train in full on one GPU", frozen * (count - costs.trained) + 16 * costs.trained),
    ]


def images_at_once(size: str, card: int) -> int:
    """Return how many guided images a batch holds next to bfloat16 weights, by the rule of the sampler."""
    costs = Costs(janus_pro(size))
    return max(0, int(SHARE * (card * GB - 2 * parameters(size)) // costs.cache(2)))


def main() -> None:
    """Print both tables."""
    print("| Janus-Pro | use | weights and training state | smallest GPU |\n|---|---|---|---|")
    for size in TRUNKS:
        for use in uses(size):
            print(f"| {size} | {use.name} | {use.needs / GB:.1f} GB | {use.smallest_card()} |")
    print("\n| GPU memory | " + " | ".join(f"{size}, guided images a batch" for size in TRUNKS) + " |\n|---|---|---|")
    for card in CARDS:
        print(f"| {card} GB | " + " | ".join(str(images_at_once(size, card)) for size in TRUNKS) + " |")


if __name__ == "__main__":
    main()
