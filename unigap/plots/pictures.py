"""Pictures between tensors in [-1, 1] and images as files and other libraries know them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

GREY = (127, 127, 127)
"""What is put beside an image that is not square."""


def to_image(pixels_CHW: torch.Tensor) -> Image.Image:
    """A picture in [-1, 1], (3, H, W), as an RGB image of 8 bits a channel."""
    levels = ((pixels_CHW.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).numpy()))


def to_png(pixels_CHW: torch.Tensor) -> bytes:
    """A picture in [-1, 1], (3, H, W), as a PNG file."""
    sink = io.BytesIO()
    to_image(pixels_CHW).save(sink, "PNG")
    return sink.getvalue()


def to_pixels(image: Image.Image, side: int) -> torch.Tensor:
    """An image as a square picture in [-1, 1], float32 (3, side, side), grey beside what is not square."""
    square = ImageOps.pad(image.convert("RGB"), (side, side), color=GREY)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1


def read_image(path: Path) -> Image.Image:
    """An RGB image from a file.

    Raises:
        ValueError: The file is missing, damaged, or so large that it may be a decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            # an image so large that Pillow warns of it is taken for the bomb it may be
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path).convert("RGB")
    except (OSError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"image {str(path)!r} cannot be read ({str(error)[:120]}); repair or remove it") from error


def check_side(side: int) -> None:
    """Make sure that a picture has a size.

    Raises:
        ValueError: ``side`` is below 1.
    """
    if side < 1:
        raise ValueError(f"side must be >= 1, got {side}; 384 is what Janus-Pro looks at")
