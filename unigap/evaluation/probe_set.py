"""Probe set: images, each with one caption that is known to be true or false."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unigap.records import Prompt


@dataclass(frozen=True)
class ProbeSet:
    """Images with one claim each and whether it is true; examines a judge without an external one.

    Attributes:
        prompts: The prompt each image was made from; bootstrap clusters and groups come from it.
        claims: One caption for each image.
        pixels_BCHW: The images, in [-1, 1].
        truth_B: Whether the claim is true, bool.
    """

    prompts: tuple[Prompt, ...]
    claims: tuple[str, ...]
    pixels_BCHW: torch.Tensor
    truth_B: torch.Tensor

    @property
    def cluster_B(self) -> torch.Tensor:
        """Bootstrap cluster of each image, int64 (B,): images of one prompt are not independent."""
        numbers = {prompt.id: i for i, prompt in enumerate(dict.fromkeys(self.prompts))}
        return torch.tensor([numbers[prompt.id] for prompt in self.prompts])

    def batches(self, size: int) -> Iterator[ProbeSet]:
        """Yield the set in parts of at most ``size`` images."""
        for i in range(0, len(self.claims), size):
            cut = slice(i, i + size)
            yield ProbeSet(self.prompts[cut], self.claims[cut], self.pixels_BCHW[cut], self.truth_B[cut])
