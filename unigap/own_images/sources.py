"""Read images with captions or preferences from a folder, a CSV or JSONL file, tar shards, or a data set on disk."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from unigap.console.mistakes import shortened
from unigap.console.quiet import quiet_datasets
from unigap.files.durable import digest
from unigap.files.images import decode_image, read_image
from unigap.files.outside import read_outside_text
from unigap.own_images.layouts import Layout, layout_of
from unigap.own_images.tar_shards import read_shards, shards_in
from unigap.prompt_sets.rows import MAX_BYTES, csv_rows, json_rows, on_one_line, refuse_url, with_known_keys

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Endings of an image in a folder, in lower case."""
METADATA = ("metadata.jsonl", "metadata.csv")
TABLES = (".parquet", ".arrow")
WANTED = "a folder of images and captions, a .csv or .jsonl file, .tar shards, or a data set on disk"
MAX_CAPTION = 1 << 20


@dataclass(frozen=True)
class SourceImage:
    """An image from elsewhere.

    Attributes:
        caption: Its caption on one line.
        where: Its place in the source, for messages.
        right: Whether the source says that it shows the caption, or prefers it.
        pair: Number of its pair from 0; None for a captioned image.
        name: What identifies it in the source: a path, or the digest of its bytes.
        read: Function that reads it as upright RGB.
    """

    caption: str
    where: str
    right: bool
    pair: int | None
    name: str
    read: Callable[[], Image.Image] = field(repr=False, compare=False)


def read_source(source: str, split: str = "train") -> list[SourceImage]:
    """List the images of a source; the images themselves are read later.

    Args:
        source: A folder of images with ``metadata.jsonl``, ``metadata.csv`` or a ``.txt`` file for each image; a
            ``.jsonl`` or ``.csv`` file; a ``.tar`` shard of a WebDataset or a folder of them; or a Parquet or Arrow
            file, a folder of these, or one that ``datasets.save_to_disk`` wrote.
        split: Split of a data set.

    Returns:
        The images in the order of the source, those of a pair consecutively and the preferred one first.

    Raises:
        ValueError: There is no such source, it holds no image, or a row is damaged.
    """
    refuse_url(source, "source")
    path, named = Path(source), f"source {source!r}"
    if not path.exists():
        raise ValueError(f"{named}: no such file or folder; give {WANTED}")
    found = list(_images_of(path, named, split))
    if not found:
        raise ValueError(f"{named}: no image with a caption or a preference in it; give {WANTED}")
    return found


def _images_of(path: Path, named: str, split: str) -> Iterator[SourceImage]:
    shards = shards_in(path)
    if shards:
        return (SourceImage(one.caption, one.where, True, None, one.name, one.read) for one in read_shards(shards))
    if not path.is_dir():
        if path.suffix in TABLES:
            return _of_dataset(path, named, split)
        return _of_table(path, named)
    metadata = next((path / name for name in METADATA if (path / name).is_file()), None)
    if metadata:
        return _of_table(metadata, f"source {str(metadata)!r}")
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file() or _tables_in(path):
        return _of_dataset(path, named, split)
    return _of_captioned_files(path, named)


def _of_captioned_files(folder: Path, named: str) -> Iterator[SourceImage]:
    """Yield the images of a folder and its subfolders, each with the text file of the same name."""
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    without = [path for path in images if not path.with_suffix(".txt").is_file()]
    if without:
        raise ValueError(
            f"{named}: {len(without)} of {len(images)} images have no caption, first {str(without[0])!r}; write it "
            f"into {without[0].with_suffix('.txt').name!r}, or remove the image"
        )
    for path in images:
        caption = path.with_suffix(".txt")
        text = on_one_line(read_outside_text(caption, f"caption {str(caption)!r}", "a text file", MAX_CAPTION))
        if not text:
            raise ValueError(f"caption {str(caption)!r} is empty; write what the image shows")
        yield SourceImage(text, f"image {str(path)!r}", True, None, str(path.relative_to(folder)), _reader(path, ""))


def _of_table(path: Path, named: str) -> Iterator[SourceImage]:
    """Yield the images of a CSV or JSONL file; paths in it are relative to its folder."""
    if path.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"{named}: {path.suffix or 'no ending'} is not read; give {WANTED}")
    text = read_outside_text(path, named, "a .csv or .jsonl file", MAX_BYTES)
    if path.suffix == ".csv":
        header = next(csv.reader(io.StringIO(text, newline="")), [])
        layout = layout_of(header, f"{named}, line 1")
        rows: Iterable[tuple[str, Mapping[str, Any]]] = csv_rows(text, named, layout.columns)
    else:
        listed = list(json_rows(text, named))
        layout = layout_of(listed[0][1] if listed else (), f"{named}, line 1")
        rows = with_known_keys(listed, named, layout.columns)
    return _images(rows, layout, named, path.parent)


def _of_dataset(path: Path, named: str, split: str) -> Iterator[SourceImage]:
    from datasets import Image as ImageColumn

    data = _open_dataset(path, named, split)
    layout = layout_of(data.column_names, named)
    data = data.select_columns([*layout.columns])
    for name, feature in data.features.items():
        if isinstance(feature, ImageColumn):
            data = data.cast_column(name, ImageColumn(decode=False))  # datasets would decode any image format
    folder = path if path.is_dir() else path.parent
    rows = ((f"{named}, row {number}", data[number]) for number in range(len(data)))
    return _images(rows, layout, named, folder, lambda number: data[number])


def _open_dataset(path: Path, named: str, split: str) -> Any:
    from datasets.exceptions import DatasetsError

    try:
        with quiet_datasets():
            return _loaded_dataset(path, split)
    except (DatasetsError, OSError, ValueError) as error:
        raise ValueError(f"{named}, split {split!r}: cannot be read ({shortened(str(error))})") from error


def _loaded_dataset(path: Path, split: str) -> Any:
    from datasets import DatasetDict, load_dataset, load_from_disk

    if path.is_dir() and not _tables_are_plain(path):
        stored = load_from_disk(str(path))
        if not isinstance(stored, DatasetDict):
            return stored
        if split not in stored:
            raise ValueError(f"no split {split!r}; it has: {', '.join(stored)}")
        return stored[split]
    files = [path] if path.is_file() else _tables_in(path)
    if len({file.suffix for file in files}) > 1:
        raise ValueError("it holds both .parquet and .arrow files; give a folder of one kind")
    return load_dataset(files[0].suffix[1:], data_files={split: [*map(str, files)]}, split=split)


def _tables_are_plain(path: Path) -> bool:
    """Whether a folder holds tables themselves, instead of what ``datasets.save_to_disk`` wrote."""
    return not ((path / "dataset_dict.json").is_file() or (path / "state.json").is_file())


def _tables_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in TABLES and path.is_file())


def _images(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    layout: Layout,
    named: str,
    folder: Path,
    again: Callable[[int], Mapping[str, Any]] | None = None,
) -> Iterator[SourceImage]:
    """Yield the images of rows; ``again`` reads a row a second time, so that bytes need not stay in memory."""
    ties = pair = 0
    for number, (where, row) in enumerate(rows):
        images, caption = layout.verdicts(row, where), on_one_line(layout.caption(row, where))
        ties += layout.pairs and not images
        for place, (cell, right) in enumerate(images):
            name = _name_of(cell, where)
            if again is None or isinstance(cell, str):
                read = _reader(folder / name, where)
            else:
                read = _later(again, layout, number, place, where)
            yield SourceImage(caption, where, right, pair if layout.pairs else None, name, read)
        pair += bool(layout.pairs and images)
    if ties:
        print(f"note: {named}: {ties} pairs without a preference are left out", file=sys.stderr)


def _name_of(cell: Any, where: str) -> str:
    """Return what identifies an image: its path, or the digest of its bytes."""
    match cell:
        case str(path) if path.strip() and "\0" not in path:
            return path
        case bytes(data) | {"bytes": bytes(data)}:
            return digest(data)
        case {"path": str(path)}:
            return path
    raise ValueError(f"{where}: holds no image; give the path of a file")


def _later(
    again: Callable[[int], Mapping[str, Any]], layout: Layout, number: int, place: int, where: str
) -> Callable[[], Image.Image]:
    def read() -> Image.Image:
        match layout.verdicts(again(number), where)[place][0]:
            case bytes(data) | {"bytes": bytes(data)}:
                return decode_image(data, f"{where}: the image")
            case {"path": str(path)}:
                return read_image(Path(path))
        raise AssertionError(where)

    return read


def _reader(path: Path, where: str) -> Callable[[], Image.Image]:
    def read() -> Image.Image:
        try:
            return read_image(path)
        except ValueError as error:
            raise ValueError(f"{where}: {error}" if where else str(error)) from error

    return read
