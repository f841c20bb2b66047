"""Read images with captions from the shards of a WebDataset: tar files in which files of one name make a sample."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from PIL import Image

from unigap.files.images import MAX_IMAGE_BYTES, decode_image
from unigap.own_images.layouts import TEXTS
from unigap.prompt_sets.rows import on_one_line, parse_json, text_field

SHARD = ".tar"
IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
"""Endings of an image in a sample; the first that is there is read."""
MAX_TEXT = 2**20
"""Maximum bytes of a caption."""


@dataclass(frozen=True)
class Sample:
    """An image of a shard with its caption.

    Attributes:
        caption: The caption on one line.
        where: Its place in the source, for messages.
        name: What identifies it in the source.
        read: Function that reads the image as upright RGB.
    """

    caption: str
    where: str
    name: str
    read: Callable[[], Image.Image] = field(repr=False, compare=False)


@dataclass(frozen=True)
class _File:
    """A file in a shard: its bytes are ``size`` bytes from ``start``."""

    shard: Path
    start: int
    size: int
    where: str

    def read(self, most: int) -> bytes:
        if self.size > most:
            raise ValueError(f"{self.where} has {self.size} bytes, more than {most}; make it smaller")
        with self.shard.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.size)
        if len(data) < self.size:
            raise ValueError(f"{self.where} is cut off; fetch the shard again")
        return data


def shards_in(path: Path) -> list[Path]:
    """Return a tar file, or those of a folder by name; empty if there are none."""
    if path.is_dir():
        return sorted(file for file in path.glob(f"*{SHARD}") if file.is_file())
    return [path] if path.suffix == SHARD else []


def read_shards(shards: list[Path]) -> Iterator[Sample]:
    """Yield the samples of shards in their order.

    A sample has an image, and its caption as ``.txt`` or under ``text``, ``caption`` or ``prompt`` of its ``.json``.
    Other files of a sample are not read.

    Raises:
        ValueError: A shard is no tar file or is damaged, or a sample has no image or no caption.
    """
    for shard in shards:
        for key, files in groupby(_members(shard), key=lambda member: member[0]):
            yield _sample(shard, key, {ending: file for _, ending, file in files})


def _members(shard: Path) -> Iterator[tuple[str, str, _File]]:
    """Yield name of the sample, ending in lower case and place of each plain file of a shard."""
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                stem, _, ending = file.partition(".")
                if member.isreg() and stem:
                    where = f"shard {str(shard)!r}: {member.name!r}"
                    yield f"{folder}/{stem}", ending.lower(), _File(shard, member.offset_data, member.size, where)
    except tarfile.TarError as error:
        raise ValueError(f"shard {str(shard)!r} is no tar file or is damaged ({error}); fetch it again") from error


def _sample(shard: Path, key: str, files: Mapping[str, _File]) -> Sample:
    where = f"shard {str(shard)!r}: sample {key.removeprefix('/')!r}"
    image = next((files[ending] for ending in IMAGES if ending in files), None)
    if image is None:
        raise ValueError(f"{where} holds no image ({', '.join(IMAGES)}); remove it")
    return Sample(
        caption=on_one_line(_caption(files, where)),
        where=where,
        name=f"{shard.name}/{key.removeprefix('/')}",
        read=lambda: decode_image(image.read(MAX_IMAGE_BYTES), f"{where}: the image"),
    )


def _caption(files: Mapping[str, _File], where: str) -> str:
    if "txt" in files:
        text = _decoded(files["txt"])
        if not text.strip():
            raise ValueError(f"{where}: the caption is empty; write what the image shows")
        return text
    row = parse_json(_decoded(files["json"]), where) if "json" in files else {}
    name = next((name for name in TEXTS if isinstance(row, dict) and name in row), None)
    if name is None:
        raise ValueError(f"{where} has no caption; add a .txt file, or {', '.join(TEXTS)} to its .json")
    return text_field(row, name, where)


def _decoded(file: _File) -> str:
    try:
        return file.read(MAX_TEXT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.where} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
