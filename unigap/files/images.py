"""Convert images between tensors in [-1, 1], PIL images and files."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from unigap.console.mistakes import shortened
from unigap.files.outside import read_outside

GREY = (127, 127, 127)
"""Padding of an image that is not square."""
BACKGROUND = (255, 255, 255)
"""Colour behind transparent pixels: white, as in a browser."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are read; detected from the content, not from the file name."""
WANTED = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
MAX_IMAGE_BYTES = 256 * 2**20


def to_image(pixels_CHW: torch.Tensor) -> Image.Image:
    """Convert pixels (3, H, W) in [-1, 1] to an RGB image with 8 bits per channel."""
    levels = ((pixels_CHW.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).numpy()))


def to_png(pixels_CHW: torch.Tensor) -> bytes:
    """Encode pixels (3, H, W) in [-1, 1] as a PNG file."""
    return png_bytes(to_image(pixels_CHW))


def png_bytes(image: Image.Image) -> bytes:
    """Encode an image as a PNG file."""
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def to_pixels(image: Image.Image, side: int) -> torch.Tensor:
    """Convert an image to float32 pixels (3, side, side) in [-1, 1], padded to a square with grey."""
    square = ImageOps.pad(to_rgb(image), (side, side), color=GREY)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1


def read_image(path: Path) -> Image.Image:
    """Read an image file as upright RGB with 8 bits per channel, see `to_rgb`.

    Args:
        path: A file in one of ``FORMATS``, with any name. Of an animation, the first frame is read.

    Raises:
        ValueError: The file is missing, no plain file, of another format, damaged, of 32-bit pixels, or so large that
            it may be a decompression bomb.
    """
    named = f"image {str(path)!r}"
    return decode_image(read_outside(path, named, f"a {WANTED} file", MAX_IMAGE_BYTES), named)


def decode_image(data: bytes, named: str) -> Image.Image:
    """Decode the bytes of an image file, see `read_image`.

    Args:
        data: The bytes.
        named: Name of the image in messages.

    Raises:
        ValueError: As for `read_image`.
    """
    try:
        with warnings.catch_warnings():
            # refuse an image if Pillow warns that it may be a decompression bomb
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # other formats start programs (EPS runs Ghostscript) or use rarely tested decoders
            return to_rgb(Image.open(io.BytesIO(data), formats=FORMATS))
    except UnidentifiedImageError:
        raise ValueError(f"{named} cannot be read, its format is another; save it as {WANTED}") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        Image.DecompressionBombWarning,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(f"{named} cannot be read ({shortened(str(error), 120)}); repair or remove it") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB with 8 bits per channel, rotated by its EXIF orientation.

    Transparent pixels show ``BACKGROUND``. Of 16 bits per channel, the upper 8 are kept. Pillow converts CMYK, YCbCr,
    LAB, palettes and grey to RGB, without colour management.

    Raises:
        ValueError: The pixels are 32-bit numbers, whose range is unknown.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode}: 32-bit pixels have no known range; save 8 or 16 bits a channel")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.has_transparency_data:
        colours = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, (*BACKGROUND, 255)), colours).convert("RGB")
    if upright.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(*profiles, "LAB", "RGB").apply(upright)
    return upright.convert("RGB")


def check_side(side: int) -> None:
    """Check the side of an image in pixels.

    Raises:
        ValueError: ``side`` is below 1.
    """
    if side < 1:
        raise ValueError(f"side must be >= 1, got {side}; 384 is what Janus-Pro looks at")
