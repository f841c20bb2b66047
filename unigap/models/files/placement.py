"""Precision of the weights of a model that is only used, and the devices it is spread over."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from unigap.models.files.load_options import PRECISIONS, check_device

QUANTISED = {"bnb-8bit": "load_in_8bit", "bnb-4bit": "load_in_4bit"}
"""Precisions that need bitsandbytes."""
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Ways of accelerate to spread a model over the devices that are visible."""


@dataclass(frozen=True)
class Placement:
    """How the weights of a model are loaded.

    Args:
        dtype: One of ``PRECISIONS``, or a quantised one of ``QUANTISED``.
        device: The device; not used with a device map.
        device_map: One of ``DEVICE_MAPS``; empty means one device.
    """

    dtype: str
    device: str = ""
    device_map: str = ""

    def check(self) -> None:
        """Check the options before anything is loaded.

        Raises:
            ValueError: One is unknown, two exclude each other, the device does not exist, or bitsandbytes is missing.
        """
        known = (*PRECISIONS, *QUANTISED)
        if self.dtype not in known:
            raise ValueError(f"unknown dtype {self.dtype!r}; choose one of: {', '.join(known)}")
        if self.device_map and self.device_map not in DEVICE_MAPS:
            raise ValueError(f"unknown device_map {self.device_map!r}; choose one of: {', '.join(DEVICE_MAPS)}")
        if self.device_map and self.device:
            raise ValueError(f"device {self.device!r} and device_map {self.device_map!r} exclude each other; give one")
        if self.device:
            check_device(self.device)
        if self.dtype in QUANTISED and importlib.util.find_spec("bitsandbytes") is None:
            raise ValueError(f"dtype {self.dtype!r} needs bitsandbytes; pip install 'unigap[quantized]'")

    @property
    def movable(self) -> bool:
        """Whether the weights can be moved to another device after loading."""
        return not self.device_map and self.dtype not in QUANTISED

    @property
    def precision(self) -> str:
        """The precision of weights that are not quantised, one of ``PRECISIONS``."""
        return "auto" if self.dtype in QUANTISED else self.dtype

    def options(self) -> dict[str, Any]:
        """Return the options of ``from_pretrained``."""
        options: dict[str, Any] = {}
        if self.dtype in QUANTISED:
            from transformers import BitsAndBytesConfig

            options["quantization_config"] = BitsAndBytesConfig(**{QUANTISED[self.dtype]: True})
        if not self.movable:
            options["device_map"] = self.device_map or {"": self.device or "cpu"}
        return options
