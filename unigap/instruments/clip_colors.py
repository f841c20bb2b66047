"""Colour of a detected object by CLIP, as GenEval asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from unigap.instruments.base import Found, Instrument
from unigap.models.files.config import check_family, model_type
from unigap.models.files.pretrained import Network

# Shape legend: K colours, P phrasings, N objects, D features.

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
PHRASINGS = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
"""GenEval's phrasings; their features are averaged for each colour."""
BACKGROUND = "#999"
"""Colour in place of the pixels outside the object's mask."""


class ClipColors(Instrument):
    """GenEval's colour classifier: CLIP compares the masked crop of an object with ten colours in three phrasings.

    Args:
        checkpoint: Folder or hub id of a CLIP in transformers' layout; the default is the published one.
        device: Device of the network; empty means the device of the model that is measured.
    """

    kind = "colors"

    def __init__(self, checkpoint: str = "openai/clip-vit-large-patch14", device: str = "") -> None:
        super().__init__(checkpoint, device)
        self._classifiers: dict[str, torch.Tensor] = {}

    def network(self) -> Network:
        from transformers import CLIPModel, CLIPProcessor

        check_family(self.checkpoint, model_type(self.checkpoint), ["clip"])
        return Network("a CLIP model", CLIPModel, CLIPModel, CLIPProcessor)

    @torch.no_grad()
    def colors(self, image: Image.Image, found: Sequence[Found], name: str, device: torch.device | str) -> list[str]:
        """Return the colour of each object, one of ``COLORS``.

        Args:
            image: The image.
            found: Objects of one class.
            name: Their class.
            device: Device of the model that is measured.
        """
        if not found:
            return []
        net, processor = self.loaded(device)
        if name not in self._classifiers:
            self._classifiers[name] = _classifier(net, processor, name)
        inputs = processor(images=[crop(image, thing) for thing in found], return_tensors="pt").to(net.device)
        features_ND = normalize(net.get_image_features(**inputs).pooler_output, dim=-1)
        return [COLORS[i] for i in (features_ND @ self._classifiers[name].to(net.device).T).argmax(1).tolist()]


def crop(image: Image.Image, thing: Found) -> Image.Image:
    """Return the box of an object, the pixels outside its mask replaced by ``BACKGROUND``; at least one pixel."""
    if thing.mask_HW is not None:
        mask = Image.fromarray(thing.mask_HW.astype(np.uint8) * 255)
        image = Image.composite(image, Image.new("RGB", image.size, BACKGROUND), mask)
    left, top, right, bottom = map(round, thing.detection.box)
    left, top = min(left, image.width - 1), min(top, image.height - 1)
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def _classifier(net: Any, processor: Any, name: str) -> torch.Tensor:
    """Return the features of each colour, (K, D): the mean over the phrasings, each of length 1."""
    texts = [phrasing.format(color=color, name=name) for color in COLORS for phrasing in PHRASINGS]
    inputs = processor(text=texts, padding=True, truncation=True, return_tensors="pt").to(net.device)
    features = normalize(net.get_text_features(**inputs).pooler_output, dim=-1)
    return normalize(features.view(len(COLORS), len(PHRASINGS), -1).mean(1), dim=-1)
