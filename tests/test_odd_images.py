"""One reader for images from outside: a table of odd files, each with the colours that must be seen."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from unigap.evaluation.probe_sources import CaptionedDataset
from unigap.files.images import FORMATS, read_image, to_pixels

RED, GREEN, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (255, 255, 255), (0, 0, 0)
Colour = tuple[int, int, int]


def halves(left: Any, right: Any, mode: str = "RGB") -> Image.Image:
    """16 x 8 pixels of two colours."""
    image = Image.new(mode, (16, 8), left)
    image.paste(right, (8, 0, 16, 8))
    return image


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def turned(orientation: int) -> bytes:
    """Red on the left once a viewer has turned the stored pixels as EXIF says."""
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = halves(RED, GREEN)
    return saved(stored.transpose(undo[orientation]) if orientation in undo else stored, "PNG", exif=exif)


def palette(transparent: bool) -> bytes:
    image = halves(0, 1, "P")
    image.putpalette([*RED, *GREEN])
    return saved(image, transparency=1) if transparent else saved(image)


def sixteen_bits() -> bytes:
    levels = np.zeros((8, 16), dtype=np.uint16)
    levels[:, 8:] = 0x80FF
    return saved(Image.fromarray(levels))


def lab() -> bytes:
    spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return saved(ImageCms.applyTransform(halves(WHITE, BLACK), ImageCms.buildTransform(*spaces, "RGB", "LAB")), "TIFF")


ODD: dict[str, tuple[Callable[[], bytes], Colour, Colour]] = {
    "upright": (lambda: turned(1), RED, GREEN),
    "EXIF upside down": (lambda: turned(3), RED, GREEN),
    "EXIF on its right side": (lambda: turned(6), RED, GREEN),
    "EXIF on its left side": (lambda: turned(8), RED, GREEN),
    "transparent RGBA": (lambda: saved(halves((*RED, 255), (*GREEN, 0), "RGBA")), RED, WHITE),
    "half transparent RGBA": (lambda: saved(halves((*RED, 255), (0, 0, 0, 51), "RGBA")), RED, (204, 204, 204)),
    "transparent LA": (lambda: saved(halves((0, 255), (0, 0), "LA")), BLACK, WHITE),
    "transparent palette": (lambda: palette(True), RED, WHITE),
    "transparent colour of RGB": (lambda: saved(halves(RED, GREEN), transparency=GREEN), RED, WHITE),
    "transparent GIF": (lambda: saved(Image.open(io.BytesIO(palette(True))), "GIF"), RED, WHITE),
    "transparent WebP": (lambda: saved(halves((*RED, 255), (*GREEN, 0), "RGBA"), "WEBP", lossless=True), RED, WHITE),
    "palette": (lambda: palette(False), RED, GREEN),
    "grey": (lambda: saved(halves(0, 200, "L")), BLACK, (200, 200, 200)),
    "black and white": (lambda: saved(halves(0, 1, "1")), BLACK, WHITE),
    "16 bits": (sixteen_bits, BLACK, (128, 128, 128)),
    "16 bits in TIFF": (lambda: saved(Image.open(io.BytesIO(sixteen_bits())), "TIFF"), BLACK, (128, 128, 128)),
    "CMYK": (lambda: saved(halves((0, 255, 255, 0), (0, 0, 0, 255), "CMYK"), "TIFF"), RED, BLACK),
    "CMYK JPEG": (lambda: saved(halves((0, 0, 0, 0), (0, 0, 0, 255), "CMYK"), "JPEG", quality=100), WHITE, BLACK),
    "YCbCr": (lambda: saved(halves(WHITE, BLACK).convert("YCbCr"), "TIFF"), WHITE, BLACK),
    "LAB": (lab, WHITE, BLACK),
    "animation": (lambda: saved(halves(RED, GREEN), "GIF", save_all=True, append_images=[halves(GREEN, RED)]),
                  RED, GREEN),
    "BMP": (lambda: saved(halves(RED, GREEN), "BMP"), RED, GREEN),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_is_seen_as_it_is_meant(name: str, tmp_path: Path) -> None:
    make, left, right = ODD[name]
    path = tmp_path / "odd.png"  # the content tells the format
    path.write_bytes(make())
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (16, 8))
    for x, colour in ((3, left), (12, right)):
        seen = image.getpixel((x, 4))
        assert isinstance(seen, tuple) and max(abs(a - b) for a, b in zip(seen, colour, strict=True)) <= 1, (seen, x)


def promise(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than it holds."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    size = struct.pack(">I", 13)
    return b"\x89PNG\r\n\x1a\n" + size + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IEND\xaeB`\x82"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 8\n%%EndComments\n(ran) print\n%%EOF\n"
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "its format is another"),
    "text": (lambda: b"a red circle\n" * 20, "its format is another"),
    "EPS": (lambda: EPS, "its format is another; save it as PNG, JPEG, WEBP, GIF, BMP or TIFF"),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "its format is another"),
    "a format that few use": (lambda: saved(halves(RED, GREEN), "PCX"), "its format is another"),
    "cut off": (lambda: saved(Image.effect_noise((64, 64), 90))[:-900], "cannot be read"),
    "cut JPEG": (lambda: saved(Image.effect_noise((64, 64), 90), "JPEG")[:-900], "cannot be read"),
    "only a header": (lambda: promise(16, 8), "cannot be read"),
    "decompression bomb": (lambda: promise(40_000, 40_000), "cannot be read"),
    "32 bits": (lambda: saved(Image.new("I", (16, 8), 70_000), "TIFF"), "32-bit pixels have no known range"),
    "floating point": (lambda: saved(Image.new("F", (16, 8), 0.5), "TIFF"), "32-bit pixels have no known range"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_image_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, told = BAD[name]
    path = tmp_path / "odd.png"
    path.write_bytes(make())
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(ValueError, match=told) as error:
        read_image(path)
    assert "odd.png" in str(error.value) and "\n" not in str(error.value)


# Pillow's own: metadata is damaged and the pixels are not
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_flipped_bytes_end_in_a_picture_or_in_one_line(tmp_path: Path) -> None:
    rng, path, refused = random.Random(0), tmp_path / "odd.png", 0
    sound = [saved(Image.effect_noise((24, 24), 90).convert("RGB"), kind) for kind in FORMATS]
    for number in range(300):
        data = bytearray(rng.choice(sound))
        for _ in range(rng.choice((1, 5))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        try:
            assert read_image(path).mode == "RGB", number
        except ValueError:
            refused += 1
    assert refused > 50


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name, told in (("pipe.png", "it is a pipe"), ("zero.png", "it is a device"), ("", "it is a folder")):
        with pytest.raises(ValueError, match=told):
            read_image(tmp_path / name)


def test_a_data_set_is_read_by_the_same_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = []
    for number, name in enumerate(("transparent RGBA", "EXIF on its right side", "16 bits", "palette")):
        (folder / f"{number}.png").write_bytes(ODD[name][0]())
        rows.append(json.dumps({"file_name": f"{number}.png", "caption": f"caption {number}"}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(rows))
    exam = CaptionedDataset(str(folder), side=16).load(4)
    expected = torch.stack([to_pixels(read_image(folder / f"{p.text[-1]}.png"), 16) for p in exam.prompts])
    assert torch.equal(exam.pixels_BCHW, expected)
    (folder / "0.png").write_bytes(EPS)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "another"))
    with pytest.raises(ValueError, match="its format is another"):
        CaptionedDataset(str(folder), side=16).load(4)
