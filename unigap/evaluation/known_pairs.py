"""Images with captions known to match or not: what a judge can be examined on without anyone who knows better."""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unigap.plots.pictures import check_side, read_image, to_pixels
from unigap.prompts import normalised
from unigap.records import Prompt
from unigap.seeds import seed_of_part
from unigap.shapes.exam import Exam, shapes_exam


class KnownPairs(ABC):
    """A source of images and claims about them, half of which are true."""

    @abstractmethod
    def load(self, n: int) -> Exam:
        """``n`` claims, the same ones every time.

        Raises:
            ValueError: When there are fewer pairs, or one of them is damaged.
        """


class ShapesPairs(KnownPairs):
    """Renders of the embedded world; what does not match differs in one attribute, count or relation.

    Args:
        split: Split of the prompts that are rendered; not one that is trained on.
        seed: Which pictures; null follows the run's seed.
    """

    def __init__(self, split: str = "validation", seed: int | None = None) -> None:
        self.split, self.seed = split, seed_of_part("rendered pairs", seed)

    def load(self, n: int) -> Exam:
        """Renders, every second one with its own prompt."""
        return shapes_exam(self.split, n, self.seed)


class CaptionedFile(KnownPairs):
    """A JSONL file of ``{"image": path, "caption": text}``; every second image is given the caption of another one.

    Args:
        path: The file; image paths in it are relative to its folder.
        side: Images are made squares of this many pixels, grey beside what is not square.
        seed: Which rows, and whose caption; null follows the run's seed.
    """

    def __init__(self, path: str, side: int = 384, seed: int | None = None) -> None:
        check_side(side)
        self.path, self.side, self.seed = Path(path), side, seed_of_part("captioned pairs", seed)

    def load(self, n: int) -> Exam:
        """Images of the file."""
        if not self.path.is_file():
            raise ValueError(f"pairs {str(self.path)!r}: no such file; give a .jsonl file of image and caption")
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"pairs {str(self.path)!r}: not UTF-8 at byte {error.start}; convert it") from error
        rows = [_row(line, f"pairs {str(self.path)!r}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]
        chosen = _choose(rows, n, self.seed, str(self.path))
        pixels = [to_pixels(read_image(self.path.parent / image), self.side) for image, _ in chosen]
        return _examine(chosen, pixels, self.seed, str(self.path))


class CaptionedDataset(KnownPairs):
    """A data set of images with captions, local or from the hub, read with ``datasets``; mismatched by swapping.

    Args:
        name: A folder (``imagefolder``, Parquet, ...) or a hub id, as ``datasets.load_dataset`` takes it.
        split: Its split.
        image: Name of the image column.
        caption: Name of the column of captions; where one holds several, the first is taken.
        side: Images are made squares of this many pixels, grey beside what is not square.
        seed: Which rows, and whose caption; null follows the run's seed.
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

    def load(self, n: int) -> Exam:
        """Images of the data set."""
        data = self._open()
        for column in (self.image, self.caption):
            if column not in data.column_names:
                raise ValueError(
                    f"pairs {self.name!r} has no column {column!r}; choose one of: {', '.join(data.column_names)}"
                )
        rows = [(str(number), self._text(said, number)) for number, said in enumerate(data[self.caption])]
        chosen = _choose(rows, n, self.seed, self.name)
        pixels = [to_pixels(self._picture(data[int(number)][self.image], number), self.side) for number, _ in chosen]
        return _examine(chosen, pixels, self.seed, self.name)

    def _text(self, said: Any, number: int) -> str:
        first = said[0] if isinstance(said, list) and said else said
        if not isinstance(first, str):
            raise ValueError(f"pairs {self.name!r}, row {number}: {self.caption!r} holds no text; name another column")
        return first

    def _picture(self, found: Any, number: str) -> Image.Image:
        if not isinstance(found, Image.Image):
            raise ValueError(f"pairs {self.name!r}, row {number}: {self.image!r} holds no image; name another column")
        return found

    def _open(self) -> Any:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        try:
            return load_dataset(self.name, split=self.split)
        except (DatasetsError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"pairs {self.name!r}, split {self.split!r}: cannot be read ({reason})") from error


def _row(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({str(error).splitlines()[0][:80]}); write one object a line") from error
    found = [row.get(name) for name in ("image", "caption")] if isinstance(row, dict) else []
    texts = [value for value in found if isinstance(value, str) and value.strip()]
    if len(texts) < 2:
        raise ValueError(f"{where}: needs an object with 'image', a path, and 'caption', a text")
    return texts[0], texts[1]


def _choose(rows: Sequence[tuple[str, str]], n: int, seed: int, source: str) -> list[tuple[str, str]]:
    if len(rows) < n:
        raise ValueError(f"pairs {source!r} holds {len(rows)} images, {n} are asked for; lower n")
    return random.Random(f"pairs/{seed}").sample(list(rows), n)


def _examine(rows: Sequence[tuple[str, str]], pixels: Sequence[torch.Tensor], seed: int, source: str) -> Exam:
    """Every second image keeps its caption, the others get one that says something else."""
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
    return Exam(prompts, tuple(claims), torch.stack(list(pixels)), torch.tensor(truth))
