"""Sources of probe sets: captioned images from a file or a data set, half of them with a wrong caption."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unigap.console.mistakes import shortened
from unigap.evaluation.probe_set import ProbeSet
from unigap.files.images import check_side, decode_image, read_image, to_pixels
from unigap.files.outside import read_outside_text
from unigap.prompt_sets.rows import MAX_BYTES, json_rows, text_field, with_known_keys
from unigap.prompt_sets.same_text import normalised
from unigap.records import Prompt
from unigap.seeds import seed_of_part
from unigap.world import class_of_worlds


class ProbeSource(ABC):
    """Makes probe sets in which half of the claims are true."""

    @abstractmethod
    def load(self, n: int) -> ProbeSet:
        """Return ``n`` claims, the same ones on every call.

        Raises:
            ValueError: There are fewer than ``n``, or one of them is damaged.
        """


class CaptionedFile(ProbeSource):
    """A JSONL file of ``{"image": path, "caption": text}``; every second image gets the caption of another one.

    Args:
        path: The file; image paths in it are relative to its folder.
        side: Images are resized to squares of this many pixels; the rest of an oblong one is filled with grey.
        seed: Chooses the rows and the wrong captions; null follows the run's seed.
    """

    def __init__(self, path: str, side: int = 384, seed: int | None = None) -> None:
        check_side(side)
        self.path, self.side, self.seed = Path(path), side, seed_of_part("captioned pairs", seed)

    def load(self, n: int) -> ProbeSet:
        """Return ``n`` claims about images of the file."""
        named = f"pairs {str(self.path)!r}"
        text = read_outside_text(self.path, named, "a .jsonl file of image and caption", MAX_BYTES)
        given = with_known_keys(json_rows(text, named), named, ("image", "caption"))
        rows = [(text_field(row, "image", where), text_field(row, "caption", where)) for where, row in given]
        chosen = _choose(rows, n, self.seed, str(self.path))
        pixels = [to_pixels(read_image(self.path.parent / image), self.side) for image, _ in chosen]
        return _with_swapped_captions(chosen, pixels, self.seed, str(self.path))


class CaptionedDataset(ProbeSource):
    """A captioned data set, local or from the hub, read with ``datasets``; every second image gets another's caption.

    Args:
        name: A folder (``imagefolder``, Parquet, ...) or a hub id, as ``datasets.load_dataset`` takes it.
        split: Its split.
        image: Name of the image column.
        caption: Name of the caption column; of a list of captions the first is taken.
        side: Images are resized to squares of this many pixels; the rest of an oblong one is filled with grey.
        seed: Chooses the rows and the wrong captions; null follows the run's seed.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        image: str = "image",
        caption: str = "caption",
        side: int = 384,
        seed: int | None = None,
    ) -> None:
        check_side(side)
        if "://" in name:
            raise ValueError(f"pairs {name!r} is a URL; download it and give the folder")
        self.name, self.split, self.image, self.caption = name, split, image, caption
        self.side, self.seed = side, seed_of_part("captioned pairs", seed)

    def load(self, n: int) -> ProbeSet:
        """Return ``n`` claims about images of the data set."""
        from datasets import Image as ImageColumn

        data = self._open()
        for column in (self.image, self.caption):
            if column not in data.column_names:
                raise ValueError(
                    f"pairs {self.name!r} has no column {column!r}; choose one of: {', '.join(data.column_names)}"
                )
        rows = [(str(number), self._text(cell, number)) for number, cell in enumerate(data[self.caption])]
        if isinstance(data.features[self.image], ImageColumn):
            data = data.cast_column(self.image, ImageColumn(decode=False))  # datasets would decode any image format
        chosen = _choose(rows, n, self.seed, self.name)
        pixels = [to_pixels(self._picture(data[int(number)][self.image], number), self.side) for number, _ in chosen]
        return _with_swapped_captions(chosen, pixels, self.seed, self.name)

    def _text(self, cell: Any, number: int) -> str:
        first = cell[0] if isinstance(cell, list) and cell else cell
        if not isinstance(first, str):
            raise ValueError(f"pairs {self.name!r}, row {number}: {self.caption!r} holds no text; name another column")
        return first

    def _picture(self, cell: Any, number: str) -> Image.Image:
        where = f"pairs {self.name!r}, row {number}"
        match cell:
            case {"bytes": bytes(data)}:
                return decode_image(data, f"{where}: the image")
            case {"path": str(path)}:
                return read_image(Path(path))
        raise ValueError(f"{where}: {self.image!r} holds no image; name another column")

    def _open(self) -> Any:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        try:
            return load_dataset(self.name, split=self.split)
        except (DatasetsError, OSError, ValueError) as error:
            reason = shortened(str(error))
            raise ValueError(f"pairs {self.name!r}, split {self.split!r}: cannot be read ({reason})") from error


def _choose(rows: Sequence[tuple[str, str]], n: int, seed: int, source: str) -> list[tuple[str, str]]:
    if len(rows) < n:
        raise ValueError(f"pairs {source!r} holds {len(rows)} images, {n} are asked for; lower n")
    return random.Random(f"pairs/{seed}").sample(list(rows), n)


def _with_swapped_captions(
    rows: Sequence[tuple[str, str]], pixels: Sequence[torch.Tensor], seed: int, source: str
) -> ProbeSet:
    """Keep the caption of every second image and give the others a different caption of the set."""
    rng = random.Random(f"swap/{seed}")
    captions = [caption.strip() for _, caption in rows]
    claims = []
    for number, caption in enumerate(captions):
        others = [other for other in captions if normalised(other) != normalised(caption)]
        if not others or not caption:
            raise ValueError(f"pairs {source!r}: captions must not be empty, nor all the same; nothing would mismatch")
        claims.append(caption if number % 2 else rng.choice(others))
    prompts = tuple(Prompt(name, caption) for (name, _), caption in zip(rows, captions, strict=True))
    truth = [claim == caption for claim, caption in zip(claims, captions, strict=True)]
    return ProbeSet(prompts, tuple(claims), torch.stack(list(pixels)), torch.tensor(truth))


def __getattr__(name: str) -> Any:
    return class_of_worlds(__name__, name)
