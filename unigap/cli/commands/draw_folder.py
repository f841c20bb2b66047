"""The folder of ``unigap draw``: the kept images, a line with all seeds and verdicts for each prompt, and a table."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from unigap.files.continued_folder import ContinuedFolder
from unigap.files.durable import write_durable
from unigap.files.images import png_bytes
from unigap.files.journal import append_line
from unigap.judges.human import safe_cell
from unigap.loop.best_of import JudgedImage
from unigap.records import Prompt

VERDICTS, TABLE = "verdicts.jsonl", "images.csv"
KEYS = ("id", "text", "images")
"""Keys of a line of ``VERDICTS``."""
COLUMNS = ("file", "prompt", "seed", "index", "judge", "p_yes", "logit")
MAX_NAME = 40
"""Characters of a prompt in the name of a file."""


class DrawFolder(ContinuedFolder):
    """The output of ``unigap draw``; for arguments see `ContinuedFolder`. The prompts are no part of the recipe."""

    recipe_file, journal_file, keys, holds = "draw.json", VERDICTS, KEYS, "images drawn with"

    def missing(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts whose images are not stored yet.

        Raises:
            ValueError: The folder holds other prompts.
        """
        wanted = {prompt.id: prompt.text for prompt in prompts}
        for name, record in self._records.items():
            if wanted.get(name) != record["text"]:
                raise ValueError(
                    f"{self._option} {str(self.folder)!r} holds images of another prompt, {record['text'][:60]!r}; "
                    "give another name"
                )
        return [prompt for prompt in prompts if not self._is_whole(prompt.id)]

    def add(self, number: int, images: Sequence[JudgedImage], kept: Sequence[JudgedImage]) -> None:
        """Write the kept images of a prompt, then its line of verdicts.

        Args:
            number: Number of the prompt, from 1.
            images: All its images.
            kept: Those to write.
        """
        prompt = images[0].candidate.prompt
        files = {shown.candidate.index: file_name(number, shown) for shown in kept}
        for shown in kept:
            write_durable(self.folder / files[shown.candidate.index], png_bytes(shown.image))
        rows = [verdict_of(shown) | {"file": files.get(shown.candidate.index, "")} for shown in images]
        record = {"id": prompt.id, "text": prompt.text, "images": rows}
        if prompt.id not in self._records:
            append_line(self.folder / VERDICTS, record)
        self._records[prompt.id] = record

    def finish(self, prompts: Sequence[Prompt]) -> tuple[int, int]:
        """Write the table of all images; return how many were sampled and how many the judge accepted."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        rows = [(prompt, row) for prompt in prompts for row in self._records[prompt.id]["images"]]
        for prompt, row in rows:
            writer.writerow({"prompt": safe_cell(prompt.text)} | {name: row[name] for name in COLUMNS if name in row})
        write_durable(self.folder / TABLE, text.getvalue().encode())
        return len(rows), sum(row["logit"] >= 0 for _, row in rows)

    def _is_whole(self, name: str) -> bool:
        """Whether a prompt has its verdicts, and all its kept images are there."""
        record = self._records.get(name)
        return record is not None and all(
            (self.folder / row["file"]).is_file() for row in record["images"] if row["file"]
        )


def verdict_of(shown: JudgedImage) -> dict[str, Any]:
    """Return the seed and the verdict of an image as plain JSON."""
    candidate, judgment = shown.candidate, shown.judgment
    return {
        "index": candidate.index,
        "seed": candidate.seed,
        "judge": judgment.judge,
        "p_yes": judgment.p_yes,
        "logit": judgment.logit,
    }


def file_name(number: int, shown: JudgedImage) -> str:
    """Return the name of an image's file: number and words of the prompt, and the seed."""
    plain = unicodedata.normalize("NFKD", shown.candidate.prompt.text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain)[:MAX_NAME].strip("-")
    return "-".join(filter(None, (f"{number:04d}", name, str(shown.candidate.seed)))) + ".png"
