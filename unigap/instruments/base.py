"""Instrument: a pretrained network of transformers that measures images, loaded when it is first used."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from unigap.evaluation.scoring.answers import Detection
from unigap.judges.described import Described
from unigap.models.files.config import read_config
from unigap.models.files.load_options import check_device
from unigap.models.files.location import resolve
from unigap.models.files.pretrained import Network, check_network, network_from_folder

COCO_NAMES = {
    "aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle", "pottedplant": "potted plant",
    "sofa": "couch", "tvmonitor": "tv",
}  # fmt: skip
"""COCO's name of a class that some checkpoints spell as Pascal VOC does."""


class Instrument(Described):
    """A pretrained network that measures images.

    The checkpoint is checked before anything is sampled. Its weights are loaded in float32, from safetensors, when the
    first image is measured. Code in its folder is not run.

    Args:
        checkpoint: Folder or hub id in transformers' layout.
        device: Device of the network; empty means the device of the model that is measured.
    """

    kind: ClassVar[str]
    """Prefix of the name, e.g. ``"boxes"``."""

    def __init__(self, checkpoint: str, device: str = "") -> None:
        # fail before anything is sampled
        resolve(checkpoint)
        if device:
            check_device(device)
        self.checkpoint, self.device = checkpoint, device
        self._loaded: tuple[Any, Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}-{Path(self.checkpoint).resolve().name}"

    @abstractmethod
    def network(self) -> Network:
        """Return the transformers classes that load the checkpoint."""

    def check(self) -> None:
        """Check all of the checkpoint but its weights.

        Raises:
            ValueError: It is no network of this kind, is damaged, or a package is missing.
        """
        if self._loaded is None:
            check_network(self.network(), self.checkpoint)

    def loaded(self, device: torch.device | str) -> tuple[Any, Any]:
        """Return the network, in eval mode on its device, and its processor."""
        if self._loaded is None:
            self._loaded = network_from_folder(self.network(), self.checkpoint)
        net, processor = self._loaded
        return net.to(self.device or device), processor


@dataclass(frozen=True)
class Found:
    """One detected object.

    Attributes:
        detection: Its class, box and confidence.
        mask_HW: Its pixels, bool, as large as the image; None from a detector of boxes.
    """

    detection: Detection
    mask_HW: np.ndarray | None = field(default=None, repr=False, compare=False)


class Detector(Instrument):
    """A network that finds objects.

    Args:
        checkpoint: Folder or hub id in transformers' layout.
        confidence: Least confidence of a stored detection, in (0, 1); rules of benchmarks may ask for more.
        device: Device of the network; empty means the device of the model that is measured.
    """

    def __init__(self, checkpoint: str, confidence: float, device: str = "") -> None:
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
        super().__init__(checkpoint, device)
        self.confidence = confidence

    @abstractmethod
    def classes(self) -> frozenset[str] | None:
        """Return the names of the classes that it knows; None if it takes any name."""

    @abstractmethod
    def find(self, image: Image.Image, names: Sequence[str], device: torch.device | str) -> list[Found]:
        """Return the objects in an RGB image, most confident first.

        Args:
            image: The image.
            names: Classes to look for; a detector with classes of its own may find others too.
            device: Device of the model that is measured.
        """


class ClassDetector(Detector):
    """A detector with classes of its own, which its checkpoint names."""

    def classes(self) -> frozenset[str]:
        return classes_of(self.checkpoint, read_config(self.checkpoint))

    def seen(self, image: Image.Image, device: torch.device | str) -> tuple[Any, Any, Any]:
        """Return the network, its processor, and the network's outputs for an RGB image."""
        net, processor = self.loaded(device)
        return net, processor, net(**processor(images=[image], return_tensors="pt").to(net.device))


def coco_name(label: str) -> str:
    """Return a class as COCO names it.

    >>> coco_name("Sofa"), coco_name("traffic light")
    ('couch', 'traffic light')
    """
    plain = label.lower().replace("_", " ").strip()
    return COCO_NAMES.get(plain, plain)


def classes_of(checkpoint: str, config: dict[str, Any]) -> frozenset[str]:
    """Return the classes that a detector's ``config.json`` names.

    Raises:
        ValueError: It names none, or numbers them only.
    """
    named = config.get("id2label")
    labels = [str(label) for label in named.values()] if isinstance(named, dict) else []
    if not labels or all(label.startswith("LABEL_") for label in labels):
        raise ValueError(
            f"checkpoint {checkpoint!r}: config.json names no classes in id2label; take a detector trained on COCO"
        )
    return frozenset(map(coco_name, labels))


def sorted_by_confidence(found: Sequence[Found]) -> list[Found]:
    """Return the objects, most confident first, without boxes that hold no pixel."""
    boxes = [thing for thing in found if _has_area(thing.detection)]
    return sorted(boxes, key=lambda thing: -thing.detection.score)


def _has_area(detection: Detection) -> bool:
    left, top, right, bottom = detection.box
    return all(map(math.isfinite, detection.box)) and right > left and bottom > top
