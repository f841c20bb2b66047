"""Known pairs of the embedded world."""

from __future__ import annotations

from unigap.evaluation.probe_set import ProbeSet
from unigap.evaluation.probe_sources import ProbeSource
from unigap.seeds import seed_of_part
from unigap.worlds.shapes.probe_set import shapes_probe_set


class ShapesPairs(ProbeSource):
    """Renders of the embedded world; what does not match differs in one attribute, count or relation.

    Args:
        split: Split of the prompts that are rendered; not one that is trained on.
        seed: Which pictures; null follows the run's seed.
    """

    def __init__(self, split: str = "validation", seed: int | None = None) -> None:
        self.split, self.seed = split, seed_of_part("rendered pairs", seed)

    def load(self, n: int) -> ProbeSet:
        """Renders, every second one with its own prompt."""
        return shapes_probe_set(self.split, n, self.seed)
