"""Write PNG figures, and read PNG files after a check that they are complete and small enough for a browser."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from unigap.files.durable import make_folder, write_durable
from unigap.files.plain import read_plain

PNG = b"\x89PNG\r\n\x1a\n"
LAST_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"
MAX_IMAGE_BYTES, MAX_IMAGE_SIDE = 16 * 2**20, 4096


def read_png(folder: Path, name: str) -> bytes:
    """Read a PNG file in a folder.

    Args:
        folder: The folder.
        name: Path of the file, relative to the folder.

    Raises:
        ValueError: It is missing, damaged, no PNG, too large, or outside the folder.
    """
    path = folder / name
    if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the image {name!r} lies outside {folder}; give paths inside it")
    try:
        data = read_plain(path, MAX_IMAGE_BYTES)
    except OSError as error:
        raise ValueError(f"cannot read the image {path}: {error.strerror}; make it again") from None
    check_png(data, path)
    return data


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure as a PNG file, atomically.

    Raises:
        OSError: It cannot be written; the message names it.
    """
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110)
    make_folder(path.parent)
    write_durable(path, sink.getvalue())


def image_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels from the header of a PNG."""
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def check_png(data: bytes, path: Path) -> None:
    """Check that bytes are one complete PNG image of at most ``MAX_IMAGE_SIDE`` pixels on a side.

    Raises:
        ValueError: They are not.
    """
    if not data.startswith(PNG) or data[12:16] != b"IHDR" or not data.endswith(LAST_CHUNK):
        raise ValueError(f"{path} is not a whole PNG image; make it again")
    width, height = image_size(data)
    # before decompression: a few bytes can expand to gigabytes of pixels
    if not (0 < width <= MAX_IMAGE_SIDE and 0 < height <= MAX_IMAGE_SIDE):
        raise ValueError(f"{path} is {width} x {height} pixels; at most {MAX_IMAGE_SIDE} a side are shown, shrink it")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()  # the checksum of each chunk
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ValueError(f"{path} is not a whole PNG image ({error}); make it again") from None
