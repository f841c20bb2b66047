"""Known pairs of the embedded world."""

from __future__ import annotations

from unigap.evaluation.probe_set import ProbeSet
from unigap.evaluation.probe_sources import ProbeSource
from unigap.seeds import seed_of_part
from unigap.worlds.shapes.probe_set import shapes_probe_set


class ShapesPairs(ProbeSource):
    """Renders of the embedded world; a caption that does not match differs in one attribute, count or relation.

    Args:
        split: Split of the rendered prompts; use one that no model trains on.
        seed: Seed of the images; null follows the run's seed.
    """

    def __init__(self, split: str = "validation", seed: int | None = None) -> None:
        self.split, self.seed = split, seed_of_part("rendered pairs", seed)

    def load(self, n: int) -> ProbeSet:
        """Return ``n`` renders, every second one with its own prompt."""
        return shapes_probe_set(self.split, n, self.seed)
