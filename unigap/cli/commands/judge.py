"""``unigap judge export`` and ``import``: images of a pool for people to judge, and their verdicts into the pool."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unigap.cli.commands.model_choice import ModelChoice
from unigap.console import tasks
from unigap.console.closing import close, command
from unigap.files.durable import check_empty_folder, whole_folder, write_durable
from unigap.files.images import to_image
from unigap.files.outputs import refuse_inside_pool
from unigap.judges.base import CERTAIN
from unigap.judges.human import NAME, HumanJudge, Ties, safe_cell
from unigap.loop.members import stage_members
from unigap.loop.sampling import stack_drawings
from unigap.models.base import UnifiedModel
from unigap.pool import Pool
from unigap.records import Candidate

SHEET = "verdicts.csv"
SHOWN = "self"
"""The judge whose probability of yes a sheet that is not blind holds."""
LEAST_SIDE = 256
"""Least side in pixels of an exported image; smaller images are enlarged by an integer factor."""
BATCH = 64


def judge_export(
    pool: str,
    out: str = "runs/judging",
    checkpoint: str | None = None,
    n: int = 200,
    seed: int = 0,
    blind: bool = True,
    *,
    model: UnifiedModel | None = None,
    device: str | None = None,
) -> None:
    """Export images of a pool for people to judge: PNG files, and a sheet, verdicts.csv, to fill in with yes and no.

    Args:
        pool: The pool.
        out: Folder for the images and the sheet; must be empty or not exist.
        checkpoint: The model that sampled the pool: a shipped model, a folder, a hub id, or a run of ``unigap fit``.
            Default: the model of the run that holds the pool, else ``shapes``.
        n: Number of images to export, in random order, out of those that no person has judged; all if there are fewer.
        seed: Seed of the random choice and order.
        blind: Leave the verdict of the model's own judge out of the sheet; ``false`` adds its probability of yes.
        model: A model of your own by its class path, instead of ``checkpoint``.
        device: Device to run on, e.g. ``cuda:1``. Default: the GPU if there is one, else the CPU.
    """
    chosen, _ = ModelChoice(checkpoint, model, device).load_for_pool(pool)
    sheet = export_images(chosen, pool, Path(out), n, seed, blind)
    close({"fill in": sheet}, f"{command('judge', 'page', out)}, then {command('judge', 'import', pool, sheet)}")


def judge_import(pool: str, sheet: str, name: str = "human", ties: Ties = "refuse") -> None:
    """Store the verdicts of a filled-in sheet in a pool, next to the judgments of other judges.

    Stored verdicts are never changed.

    Args:
        pool: The pool.
        sheet: CSV file with the columns ``candidate_id``, ``verdict`` and, for several raters, ``rater``.
        name: Name under which the verdicts are stored.
        ties: Verdict on an image with as many yes as no: ``yes``, ``no``, or ``refuse`` the sheet.
    """
    verdicts = HumanJudge(sheet, ties).verdicts
    Pool.open(pool).annotate(name, {candidate: CERTAIN if right else -CERTAIN for candidate, right in verdicts.items()})
    print(f"{pool}: {len(verdicts)} verdicts by {name!r}")
    close({}, command("judge", "agreement", pool))


def export_images(model: UnifiedModel, pool: str, out: Path, n: int, seed: int, blind: bool) -> Path:
    """Write images of a pool that no person has judged yet, and the sheet; return the path of the sheet.

    Args:
        model: The model that sampled the pool.
        pool: Folder of the pool.
        out: Folder to write; must be empty or not exist. A killed export writes nothing.
        n: Number of images, >= 1; all if there are fewer.
        seed: Seed of the random choice and order.
        blind: Leave the verdict of ``SHOWN`` out of the sheet.

    Raises:
        ValueError: The pool is another model's or empty, every image is judged, ``out`` is not empty, or ``SHOWN``
            judged nothing.
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    check_empty_folder(out)
    refuse_inside_pool(out, "--out")
    source = Pool.open(pool, model.drawing_digest())
    chosen = _choose(source, pool, n, seed)
    p_yes = {} if blind else {judgment.candidate_id: judgment.p_yes for judgment in source.judgments(SHOWN)}
    if not blind and not p_yes:
        raise ValueError(f"pool {pool!r} holds no verdict of {SHOWN!r}; leave the sheet blind")
    with whole_folder(out) as aside:
        rows = _write_images(aside, _images(model, chosen), chosen)
        if not blind:
            rows = [row | {"p_yes": f"{p_yes[candidate.id]:.3f}"} for row, candidate in zip(rows, chosen, strict=True)]
        write_durable(aside / SHEET, sheet_bytes(rows))
    return out / SHEET


def _choose(source: Pool, pool: str, n: int, seed: int) -> list[Candidate]:
    """Return up to ``n`` candidates that no person has judged, in random order."""
    candidates = sorted(source.candidates(), key=lambda candidate: candidate.id)
    if not candidates:
        raise ValueError(f"pool {pool!r} holds no image yet; sample some with unigap predict")
    judged = {judgment.candidate_id for judgment in source.judgments(NAME)}
    unjudged = [candidate for candidate in candidates if candidate.id not in judged]
    if not unjudged:
        raise ValueError(f"pool {pool!r}: all {len(candidates)} images are judged by {NAME!r} already; sample more")
    return random.Random(f"judge/{seed}").sample(unjudged, min(n, len(unjudged)))


def _write_images(folder: Path, images: Iterator[Image.Image], candidates: Sequence[Candidate]) -> list[dict[str, str]]:
    """Write each image, and return its row of the sheet."""
    rows = []
    with tasks.task("exporting", "export", len(candidates), "image") as task:
        for number, (candidate, image) in enumerate(zip(candidates, images, strict=True)):
            name = f"{number:05d}.png"
            image.save(folder / name)
            row = {"image": name, "prompt": safe_cell(candidate.prompt.text), "verdict": "", "rater": ""}
            rows.append(row | {"candidate_id": safe_cell(candidate.id)})
            task.advance()
    return rows


def _images(model: UnifiedModel, candidates: Sequence[Candidate]) -> Iterator[Image.Image]:
    device = next(model.parameters()).device
    stage_members(candidates, np.arange(len(candidates)), lambda candidate: (candidate,))
    for start in range(0, len(candidates), BATCH):
        for pixels_CHW in model.decode(stack_drawings(candidates[start : start + BATCH]).to(device)):
            image = to_image(pixels_CHW)
            factor = -(-LEAST_SIDE // min(image.size))
            yield image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def sheet_bytes(rows: Sequence[Mapping[str, str]]) -> bytes:
    """Return rows with the same columns as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
