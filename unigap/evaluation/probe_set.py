"""A probe set: images, each with one caption that is true of it or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unigap.records import Prompt


@dataclass(frozen=True)
class ProbeSet:
    """Images, what is claimed of each, and whether it is true.

    Attributes:
        prompts: The prompt each image was made from; bootstrap clusters and groups come from it.
        claims: What is claimed, one text an image.
        pixels_BCHW: The images, in [-1, 1].
        truth_B: Whether the claim is true, bool.
    """

    prompts: tuple[Prompt, ...]
    claims: tuple[str, ...]
    pixels_BCHW: torch.Tensor
    truth_B: torch.Tensor

    @property
    def cluster_B(self) -> torch.Tensor:
        """Number of the prompt each image was made from, int64: images of one prompt are alike."""
        numbers = {prompt.id: i for i, prompt in enumerate(dict.fromkeys(self.prompts))}
        return torch.tensor([numbers[prompt.id] for prompt in self.prompts])

    def batches(self, size: int) -> Iterator[ProbeSet]:
        """The set in parts of at most ``size`` images."""
        for i in range(0, len(self.claims), size):
            cut = slice(i, i + size)
            yield ProbeSet(self.prompts[cut], self.claims[cut], self.pixels_BCHW[cut], self.truth_B[cut])
