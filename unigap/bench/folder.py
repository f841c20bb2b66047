"""The folder of ``unigap bench``: pictures, answers as they arrive, and at the end figures, results and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unigap.bench.base import Benchmark
from unigap.bench.page import Picture, page
from unigap.evaluation.scoring.answers import ImageAnswers
from unigap.evaluation.scoring.benchmarks import Scored
from unigap.files.continued_folder import ContinuedFolder
from unigap.files.durable import durable_file, make_folder, write_durable
from unigap.files.journal import append_line
from unigap.files.outputs import write_figures
from unigap.records import Candidate

JOURNAL, ANSWERS = "measured.jsonl", "answers.jsonl"
SCORES, RESULTS, PAGE, PICTURES, POOL = "scores.json", "results.parquet", "README.md", "pictures", "pool"
KEYS = ("id", "picture", "answer")
"""Keys of a line of ``JOURNAL``: the candidate, its picture's file, and the answers about it."""


class BenchFolder(ContinuedFolder):
    """The output of ``unigap bench``; for arguments see `ContinuedFolder`."""

    recipe_file, journal_file, keys, holds = "bench.json", JOURNAL, KEYS, "results of"

    @property
    def pool(self) -> Path:
        """Where the drawings are kept."""
        return self.folder / POOL

    def begin(self, recipe: Mapping[str, Any]) -> None:
        """Begin the output, or continue it; see `ContinuedFolder.begin`."""
        make_folder(self.folder / PICTURES)
        super().begin(recipe)

    def is_measured(self, candidate: Candidate) -> bool:
        """Whether a candidate has its answers and its picture."""
        record = self._records.get(candidate.id)
        return record is not None and (self.folder / record["picture"]).is_file()

    def add(self, candidate: Candidate, png: bytes, answer: Mapping[str, Any]) -> None:
        """Write the picture of a candidate, then the answers about it."""
        picture = f"{PICTURES}/{_file_name(candidate)}"
        write_durable(self.folder / picture, png)
        record = {"id": candidate.id, "picture": picture, "answer": dict(answer)}
        if candidate.id not in self._records:
            append_line(self.folder / JOURNAL, record)
        self._records[candidate.id] = record

    def answers(self, candidates: Sequence[Candidate]) -> list[ImageAnswers]:
        """Return the answers about all candidates, in their order."""
        rows = [{"id": c.prompt.id, **self._records[c.id]["answer"]} for c in candidates]
        where = str(self.folder / ANSWERS)
        return [
            ImageAnswers(candidate.prompt, row, f"{where}, line {number}")
            for number, (candidate, row) in enumerate(zip(candidates, rows, strict=True), 1)
        ]

    def finish(
        self,
        benchmark: Benchmark,
        candidates: Sequence[Candidate],
        values: Sequence[float],
        p_yes: Sequence[float],
        scored: Scored,
        facts: Mapping[str, Any],
    ) -> None:
        """Write answers, figures, results and the page.

        Args:
            benchmark: What was measured.
            candidates: All images.
            values: The score of each image.
            p_yes: The judge's probability of yes for each image.
            scored: The figures.
            facts: What the page says of the checkpoint and its sampling, by name.
        """
        images = self.answers(candidates)
        lines = "".join(json.dumps(dict(image.row), ensure_ascii=False) + "\n" for image in images)
        write_durable(self.folder / ANSWERS, lines.encode())
        pictures = [
            Picture(self._records[candidate.id]["picture"], candidate.prompt.text, candidate.prompt.category, value)
            for candidate, value in zip(candidates, values, strict=True)
        ]
        with durable_file(self.folder / RESULTS) as file:
            pq.write_table(_table(candidates, pictures, p_yes, images), file)
        write_figures(str(self.folder / SCORES), {tag: e.to_dict() for tag, e in scored.figures.items()})
        write_durable(self.folder / PAGE, page(benchmark, scored.figures, pictures, p_yes, facts).encode())


def _file_name(candidate: Candidate) -> str:
    safe = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in candidate.prompt.id)
    return f"{safe[:60]}-{candidate.index}-{candidate.seed}.png"


def _table(
    candidates: Sequence[Candidate], pictures: Sequence[Picture], p_yes: Sequence[float], images: Sequence[ImageAnswers]
) -> pa.Table:
    return pa.table(
        {
            "prompt_id": [candidate.prompt.id for candidate in candidates],
            "prompt": [candidate.prompt.text for candidate in candidates],
            "tag": [candidate.prompt.category for candidate in candidates],
            "index": pa.array([candidate.index for candidate in candidates], pa.int32()),
            "seed": pa.array([candidate.seed for candidate in candidates], pa.int64()),
            "score": pa.array([picture.value for picture in pictures], pa.float64()),
            "judge_p_yes": pa.array(p_yes, pa.float64()),
            "picture": [picture.file for picture in pictures],
            "answers": [json.dumps(dict(image.row), ensure_ascii=False) for image in images],
        }
    )
