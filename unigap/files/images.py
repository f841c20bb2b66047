"""Pictures between tensors in [-1, 1] and images as files and other libraries know them."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from unigap.files.outside import read_outside

GREY = (127, 127, 127)
"""What is put beside an image that is not square."""
BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels: white, as in a browser and on paper."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that are read, by what the file holds and not by its name."""
WANTED = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
MAX_IMAGE_BYTES = 256 * 2**20


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
    square = ImageOps.pad(to_rgb(image), (side, side), color=GREY)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1


def read_image(path: Path) -> Image.Image:
    """Read an image file as it is meant to be seen: upright, RGB, 8 bits a channel, see `to_rgb`.

    Args:
        path: A file in one of ``FORMATS``, whatever its name. The first frame of an animation is taken.

    Raises:
        ValueError: The file is missing, no plain file, of another format, damaged, has no range of brightness, or is so
            large that it may be a decompression bomb.
    """
    named = f"image {str(path)!r}"
    return decode_image(read_outside(path, named, f"a {WANTED} file", MAX_IMAGE_BYTES), named)


def decode_image(data: bytes, named: str) -> Image.Image:
    """Decode the bytes of an image file, see `read_image`.

    Args:
        data: The bytes.
        named: What messages call it.

    Raises:
        ValueError: As `read_image`.
    """
    try:
        with warnings.catch_warnings():
            # an image so large that Pillow warns of it is taken for the bomb it may be
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # other formats start programs (EPS runs Ghostscript) or are decoded by code that few people test
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
        raise ValueError(
            f"{named} cannot be read ({' '.join(str(error).split())[:120]}); repair or remove it"
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """An image as RGB with 8 bits a channel, turned as its EXIF orientation says.

    Transparent pixels show ``BACKGROUND``. Of 16 bits a channel the upper 8 are kept. CMYK, YCbCr, LAB, palettes and
    grey become RGB as Pillow converts them, without colour management.

    Raises:
        ValueError: The pixels are 32-bit numbers, whose range no header states.
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
    """Make sure that a picture has a size.

    Raises:
        ValueError: ``side`` is below 1.
    """
    if side < 1:
        raise ValueError(f"side must be >= 1, got {side}; 384 is what Janus-Pro looks at")
