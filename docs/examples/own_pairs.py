"""A probe set of your own: images, each with a true caption and one that a person made almost true."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from unigap.evaluation.probe_set import ProbeSet
from unigap.evaluation.probe_sources import ProbeSource
from unigap.files.images import read_image, to_pixels
from unigap.records import Prompt


class HardNegatives(ProbeSource):
    """A CSV file with the columns ``image``, ``caption`` and ``wrong``; every image occurs with both captions.

    Args:
        path: The file; image paths in it are relative to its folder.
        side: Images are resized to squares of this many pixels.
    """

    def __init__(self, path: str, side: int = 384) -> None:
        self.path, self.side = Path(path), side

    def load(self, n: int) -> ProbeSet:
        """Return two claims for each image, the first one true."""
        with self.path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))[: n // 2]
        if 2 * len(rows) < n or n % 2:
            raise ValueError(f"pairs {str(self.path)!r}: {n} claims need {n / 2:g} pictures, it has {len(rows)}")
        pixels = [to_pixels(read_image(self.path.parent / row["image"]), self.side) for row in rows]
        prompts = [Prompt(row["image"], row["caption"]) for row in rows for _ in range(2)]
        claims = [claim for row in rows for claim in (row["caption"], row["wrong"])]
        truth = torch.tensor([True, False]).repeat(len(rows))
        return ProbeSet(tuple(prompts), tuple(claims), torch.stack(pixels).repeat_interleave(2, 0), truth)
