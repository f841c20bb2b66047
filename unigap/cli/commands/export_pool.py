"""``unigap export pool``: a data set for the Hugging Face hub, Parquet files with images and verdicts, and a card."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from unigap.cli.commands.model_choice import ModelChoice
from unigap.console import tasks
from unigap.console.closing import close, command
from unigap.console.mistakes import hint
from unigap.files.durable import check_empty_folder, make_folder, whole_folder, write_durable
from unigap.files.images import to_png
from unigap.files.outputs import refuse_inside_pool
from unigap.loop.importing import IMPORTED
from unigap.loop.plan import SELECTS
from unigap.loop.sampling import stack_drawings
from unigap.loop.selection import threshold_logit
from unigap.metrics import scores
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.engine.memory import in_fitting_batches, items_that_fit
from unigap.pool import Pool
from unigap.prompt_sets.same_text import prompt_numbers
from unigap.records import Candidate, Judgment
from unigap.report.cards import PoolFacts, RoundFacts, check_license, pool_card
from unigap.report.run_folder.contents import Estimates
from unigap.report.run_folder.fit_folder import flat

ROWS_PER_FILE = 2_000
"""Images in one Parquet file: at 384 x 384 pixels about the half gigabyte that the hub recommends."""
ROWS_AT_ONCE = 100
"""Rows in one row group, which the hub's viewer reads for one page."""
TEXTS = ("prompt", "category", "difficulty", "split", "prompt_id", "candidate_id")
NUMBERS = ("round", "index", "seed")


@dataclass(frozen=True)
class Judged:
    """The candidates and judgments of a pool.

    Attributes:
        candidates: The candidates.
        judge: Name of the judge that selects training data.
        judgments: Judgments by judge, then by candidate id. ``judge`` comes first; it may not have judged all.
        threshold: Smallest probability of yes that accepts a candidate.
        drawings: Column of the drawings, ``codes`` or ``latents``; empty if they are left out.
    """

    candidates: Sequence[Candidate]
    judge: str
    judgments: Mapping[str, Mapping[str, Judgment]]
    threshold: float
    drawings: str = "codes"

    @property
    def external(self) -> list[str]:
        """Names of the judges that do not select training data."""
        return [name for name in self.judgments if name != self.judge]

    def accepted(self, candidate: Candidate) -> bool | None:
        """Whether the selecting judge accepts a candidate; None if it has not judged it."""
        judgment = self.judgments[self.judge].get(candidate.id)
        return None if judgment is None else judgment.logit >= threshold_logit(self.threshold)

    def row(self, candidate: Candidate, png: bytes) -> dict[str, Any]:
        """Return a candidate as a row of the data set."""
        prompt = candidate.prompt
        verdicts = {name: given[candidate.id].p_yes for name, given in self.judgments.items() if candidate.id in given}
        return {
            "image": {"bytes": png, "path": None},
            "prompt": prompt.text,
            "category": prompt.category,
            "difficulty": prompt.difficulty,
            "split": prompt.split,
            "prompt_id": prompt.id,
            "candidate_id": candidate.id,
            "round": candidate.round,
            "index": candidate.index,
            "seed": candidate.seed,
            "accepted": self.accepted(candidate),
            "verdicts": verdicts,
            "logp": candidate.logp,
            **({self.drawings: candidate.drawing.ravel().tolist()} if self.drawings else {}),
        }


def export_pool(
    pool: str,
    *,
    out: str,
    license: str = "unknown",
    checkpoint: str | None = None,
    threshold: float = 0.5,
    judge: str | None = None,
    latents: bool = False,
    model: UnifiedModel | None = None,
    device: str | None = None,
) -> None:
    """Export a pool as a data set for the Hugging Face hub: Parquet files with images and every verdict, and a card.

    Args:
        pool: The pool.
        out: Folder to write; must be empty or not exist.
        license: Licence of the data as the hub writes it, e.g. cc-by-4.0.
        checkpoint: The model that sampled the pool, which decodes its image tokens to pixels: a shipped model, a
            folder, a hub id, or a run of ``unigap fit``. Default: the model of the run that holds the pool, else
            ``shapes``.
        threshold: Smallest probability of yes that the card and the column ``accepted`` count as accepted, in (0, 1).
        judge: Name of the judge that selects, e.g. human. Default: the one that the pool records.
        latents: Whether to include the latents of a pool whose drawings are latents; they are much larger than the
            images.
        model: A model of your own by its class path, instead of ``checkpoint``.
        device: Device to run on, e.g. ``cuda:1``. Default: the GPU if there is one, else the CPU.
    """
    choice = ModelChoice(checkpoint, model, device)
    check_license(license)
    check_empty_folder(Path(out))
    refuse_inside_pool(Path(out), "--out")
    threshold_logit(threshold)
    _refuse_imported(Pool.open(pool))  # before loading the model
    chosen, base = choice.load_for_pool(pool)
    source = Pool.open(pool, chosen.drawing_digest())
    judged = read_judged(source, threshold, judge)
    if source.format and source.format.is_latent:
        judged = dataclasses.replace(judged, drawings="latents" if latents else "")
    elif latents:
        raise ValueError(f"pool {pool!r} holds image codes, which are always exported; leave --latents out")
    card = pool_card(pool_facts(source, judged, Path(out).name, license, base, chosen.exact_likelihood))
    with whole_folder(Path(out)) as aside:
        write_parquet(chosen, judged, aside / "data")
        write_durable(aside / "README.md", card.encode())
    if not judged.drawings:
        print("the latents of the images are left out; add --latents true to include them")
    close({"data set": out}, command("push", "pool", out, "OWNER/NAME"))


def read_judged(pool: Pool, threshold: float, judge: str | None = None) -> Judged:
    """Read the candidates and judgments of a pool.

    Args:
        pool: The pool.
        threshold: Smallest probability of yes that accepts a candidate.
        judge: Name of the judge that selects; None takes the one that the first round records.

    Raises:
        ValueError: The pool is damaged, holds no images, records no judge, or holds no verdict of ``judge``.
    """
    candidates = pool.candidates()
    if not candidates:
        raise ValueError(f"pool {pool.folder} holds no images; draw a round first")
    selects = judge or recorded_judge(pool)
    judgments: dict[str, dict[str, Judgment]] = {selects: {}}
    for judgment in pool.judgments():
        judgments.setdefault(judgment.judge, {})[judgment.candidate_id] = judgment
    if not judgments[selects]:
        raise ValueError(f"pool {pool.folder} holds no verdict of {selects!r}{hint(selects, [*judgments][1:])}")
    partial = [name for name, given in judgments.items() if name != selects and len(given) < len(candidates)]
    if judge is None and partial:
        print(f"note: {selects!r} counts as the judge that selects; if {partial[0]!r} does, add --judge {partial[0]}")
    return Judged(candidates, selects, judgments, threshold)


def _refuse_imported(pool: Pool) -> None:
    """Refuse a pool of images from elsewhere: the card would call them the model's own."""
    if any(IMPORTED in pool.recipe(number) for number in pool.rounds):
        raise ValueError(f"pool {pool.folder} holds imported images, not samples of the model; publish their source")


def recorded_judge(pool: Pool) -> str:
    """Return the name of the judge that selects, as the first round records it.

    Raises:
        ValueError: It records none.
    """
    recipe = pool.recipe(0)
    if SELECTS in recipe:
        return str(recipe[SELECTS])
    if not recipe.get("judges"):
        raise ValueError(f"pool {pool.folder} does not say who judged it; export one that unigap fit or predict drew")
    return str(recipe["judges"][0]["name"])


def pool_facts(pool: Pool, judged: Judged, name: str, license: str, base: str, exact_likelihood: bool) -> PoolFacts:
    """Return the facts of a pool for its card."""
    rounds = []
    for number, prompts in pool.prompts().items():
        candidates = [candidate for candidate in judged.candidates if candidate.round == number]
        verdicts = [judged.accepted(candidate) for candidate in candidates]
        rounds.append(RoundFacts(len(prompts), len(candidates), verdicts.count(True), verdicts.count(None)))
    return PoolFacts(
        name=name,
        license=license,
        base=base,
        judge=judged.judge,
        external=judged.external,
        threshold=judged.threshold,
        rounds=rounds,
        figures=figures_of(judged),
        sampling={
            key: value for key, value in flat(pool.recipe(0)).items() if key not in ("weights", "judges", SELECTS)
        },
        sha256=str(pool.state()["sha256"]),
        exact_likelihood=exact_likelihood,
        drawings=judged.drawings,
        shape=pool.format.shape if pool.format else None,
    )


def figures_of(judged: Judged) -> Estimates:
    """Compute the card's figures from the verdicts, clustered by prompt; the first external judge is the truth."""
    own = judged.judgments[judged.judge]
    truth = judged.judgments[judged.external[0]] if judged.external else {}
    by_own = [c for c in judged.candidates if c.id in own]
    by_both = [c for c in by_own if c.id in truth] or by_own
    prompt_S = torch.tensor(prompt_numbers(c.prompt for c in by_both))
    own_S = torch.tensor([own[c.id].logit for c in by_both])
    figures = {"yes_rate": scores.yes_rate(own_S, prompt_S, judged.threshold)}
    if judged.judge == "self":
        figures["non_unification"] = scores.non_unification_score(own_S, prompt_S, judged.threshold)
    if truth:
        right_S = torch.tensor([truth[c.id].logit > 0 for c in by_both])
        figures["generation"] = scores.generation_accuracy(right_S, prompt_S)
        figures["judge_precision"] = scores.judge_precision(own_S, right_S, prompt_S, judged.threshold)
    return figures


def write_parquet(model: UnifiedModel, judged: Judged, folder: Path) -> None:
    """Write the rows as ``train-*.parquet``, with one batch of images in memory at a time."""
    schema, count = schema_of(list(judged.judgments), judged.drawings), len(judged.candidates)
    files = range(0, count, ROWS_PER_FILE)
    make_folder(folder)
    with tasks.task("exporting", "export", count, "image") as task:
        for number, start in enumerate(files):
            path = folder / f"train-{number:05d}-of-{len(files):05d}.parquet"
            with pq.ParquetWriter(path, schema, compression="zstd") as writer:
                for rows in rows_of(model, judged, judged.candidates[start : start + ROWS_PER_FILE]):
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    task.advance(len(rows))


def rows_of(model: UnifiedModel, judged: Judged, candidates: Sequence[Candidate]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows of candidates, decoded in batches that fit into memory."""
    device = next(model.parameters()).device

    def rows(batch: slice) -> list[dict[str, Any]]:
        pixels_BCHW = model.decode(stack_drawings(candidates[batch]).to(device))
        pairs = zip(candidates[batch], pixels_BCHW, strict=True)
        return [judged.row(candidate, to_png(pixels_CHW)) for candidate, pixels_CHW in pairs]

    size = min(ROWS_AT_ONCE, items_that_fit(model, model.drawing_bytes(SamplingRecipe())))
    yield from in_fitting_batches(rows, len(candidates), size, "one image cannot be decoded; free memory")


def schema_of(judges: Sequence[str], drawings: str) -> pa.Schema:
    """Return the columns, with the metadata by which ``datasets`` recognises images."""
    from datasets import Features, Image, List, Value

    return Features(
        {
            "image": Image(),
            **{name: Value("string") for name in TEXTS},
            **{name: Value("int64") for name in NUMBERS},
            "accepted": Value("bool"),
            "verdicts": {name: Value("float64") for name in judges},
            "logp": Value("float64"),
            **({drawings: List(Value("int32" if drawings == "codes" else "float16"))} if drawings else {}),
        }
    ).arrow_schema
