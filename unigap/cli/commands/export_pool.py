"""A pool as a data set for the Hugging Face hub: Parquet files with pictures and every verdict, and a card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from unigap.cli.commands.model_choice import ModelChoice
from unigap.console.mistakes import hint
from unigap.files.durable import check_empty_folder, make_folder, whole_folder, write_durable
from unigap.files.images import to_png
from unigap.files.outputs import refuse_inside_pool
from unigap.loop.round import SELECTS
from unigap.loop.sampling import codes_of
from unigap.loop.selection import threshold_logit
from unigap.metrics import scores
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.engine.memory import in_fitting_batches, items_that_fit
from unigap.pool import Pool
from unigap.prompt_sets.loading import prompt_numbers
from unigap.records import Candidate, Judgment
from unigap.report.cards import PoolFacts, RoundFacts, check_license, pool_card
from unigap.report.run_folder.contents import Estimates
from unigap.report.run_folder.fit_folder import flat

ROWS_PER_FILE = 2_000
"""Images of 384 x 384 pixels in one Parquet file, about the half gigabyte the hub recommends."""
ROWS_AT_ONCE = 100
"""Rows of one row group: what the hub's viewer reads for a page."""
TEXTS = ("prompt", "category", "difficulty", "split", "prompt_id", "candidate_id")
NUMBERS = ("round", "index", "seed")
NO_SAMPLING = ("weights", "judges", SELECTS)
"""Keys of a recipe that say nothing of how images were drawn."""


@dataclass(frozen=True)
class Judged:
    """What a pool holds, ready to be told.

    Attributes:
        candidates: The images, as image tokens.
        judge: The judge that selects.
        said: Judgments by judge and candidate id; the judge that selects comes first, and may not have judged all.
        threshold: Least probability of yes that counts as accepted.
    """

    candidates: Sequence[Candidate]
    judge: str
    said: Mapping[str, Mapping[str, Judgment]]
    threshold: float

    @property
    def external(self) -> list[str]:
        """The judges that only measure."""
        return [name for name in self.said if name != self.judge]

    def accepted(self, candidate: Candidate) -> bool | None:
        """Whether the judge that selects says yes; None where it has not judged the candidate."""
        judgment = self.said[self.judge].get(candidate.id)
        return None if judgment is None else judgment.logit >= threshold_logit(self.threshold)

    def row(self, candidate: Candidate, png: bytes) -> dict[str, Any]:
        """A candidate as a row of the data set."""
        prompt = candidate.prompt
        verdicts = {name: said[candidate.id].p_yes for name, said in self.said.items() if candidate.id in said}
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
            "codes": candidate.codes.tolist(),
        }


def export_pool(
    folder: str, out: str, license: str, choice: ModelChoice, threshold: float, judge: str | None = None
) -> None:
    """Writes a pool as a data set with pictures, ready for ``push_to_hub`` and ``load_dataset``.

    Args:
        folder: The pool.
        out: Folder to write, all or nothing.
        license: Licence of the data, as the hub writes it.
        choice: The model whose image tokens the pool holds; it turns them into pictures.
        threshold: Least probability of yes that counts as accepted, in (0, 1).
        judge: Judge that selects; None takes the one that the pool records.

    Raises:
        ValueError: The pool is damaged, empty or another model's, ``out`` is not empty, or an option is wrong.
    """
    check_license(license)
    check_empty_folder(Path(out))
    refuse_inside_pool(Path(out), "--out")
    threshold_logit(threshold)
    Pool.open(folder)  # a wrong folder shows at once, not after the model is loaded
    model, base = choice.load_for_pool(folder)
    pool = Pool.open(folder, model.codebook_digest())
    judged = read_judged(pool, threshold, judge)
    card = pool_card(pool_facts(pool, judged, Path(out).name, license, base, model.exact_likelihood))
    with whole_folder(Path(out)) as aside:
        write_parquet(model, judged, aside / "data")
        write_durable(aside / "README.md", card.encode())


def read_judged(pool: Pool, threshold: float, judge: str | None = None) -> Judged:
    """Read everything in a pool.

    Args:
        pool: The pool.
        threshold: Least probability of yes that counts as accepted.
        judge: Judge that selects; None takes the one that the first round records.

    Raises:
        ValueError: The pool is damaged, holds no images, does not say who judged them, or holds nothing by ``judge``.
    """
    candidates = pool.candidates()
    if not candidates:
        raise ValueError(f"pool {pool.folder} holds no images; draw a round first")
    selects = judge or recorded_judge(pool)
    said: dict[str, dict[str, Judgment]] = {selects: {}}
    for judgment in pool.judgments():
        said.setdefault(judgment.judge, {})[judgment.candidate_id] = judgment
    if not said[selects]:
        raise ValueError(f"pool {pool.folder} holds no verdict of {selects!r}{hint(selects, [*said][1:])}")
    later = [name for name, rows in said.items() if name != selects and len(rows) < len(candidates)]
    if judge is None and later:
        print(f"note: {selects!r} counts as the judge that selects; if {later[0]!r} does, add --judge {later[0]}")
    return Judged(candidates, selects, said, threshold)


def recorded_judge(pool: Pool) -> str:
    """Name of the judge that selects, as the first round records it.

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
    """What the card says."""
    rounds = []
    for number, prompts in pool.prompts().items():
        drawn = [candidate for candidate in judged.candidates if candidate.round == number]
        verdicts = [judged.accepted(candidate) for candidate in drawn]
        rounds.append(RoundFacts(len(prompts), len(drawn), verdicts.count(True), verdicts.count(None)))
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
    )


def figures_of(judged: Judged) -> Estimates:
    """What the verdicts say of the images, clustered by prompt; the first external judge counts as the truth."""
    own, truth = judged.said[judged.judge], judged.said[judged.external[0]] if judged.external else {}
    seen = [c for c in judged.candidates if c.id in own]
    known = [c for c in seen if c.id in truth] or seen
    prompt_S = torch.tensor(prompt_numbers(c.prompt for c in known))
    own_S = torch.tensor([own[c.id].logit for c in known])
    found = {"yes_rate": scores.yes_rate(own_S, prompt_S, judged.threshold)}
    if judged.judge == "self":
        found["non_unification"] = scores.non_unification_score(own_S, prompt_S, judged.threshold)
    if truth:
        right_S = torch.tensor([truth[c.id].logit > 0 for c in known])
        found["generation"] = scores.generation_accuracy(right_S, prompt_S)
        found["judge_precision"] = scores.judge_precision(own_S, right_S, prompt_S, judged.threshold)
    return found


def write_parquet(model: UnifiedModel, judged: Judged, folder: Path) -> None:
    """Writes the rows as ``train-*.parquet``, a batch of pictures in memory at a time."""
    schema, count = schema_of(list(judged.said)), len(judged.candidates)
    files = range(0, count, ROWS_PER_FILE)
    make_folder(folder)
    with tqdm(total=count, unit="image", desc="export", leave=False) as bar:
        for number, start in enumerate(files):
            path = folder / f"train-{number:05d}-of-{len(files):05d}.parquet"
            with pq.ParquetWriter(path, schema, compression="zstd") as writer:
                for rows in rows_of(model, judged, judged.candidates[start : start + ROWS_PER_FILE]):
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    bar.update(len(rows))


def rows_of(model: UnifiedModel, judged: Judged, candidates: Sequence[Candidate]) -> Iterator[list[dict[str, Any]]]:
    """Rows of candidates, decoded in batches that fit."""
    device = next(model.parameters()).device

    def rows(batch: slice) -> list[dict[str, Any]]:
        pixels_BCHW = model.decode(codes_of(candidates[batch]).to(device))
        pairs = zip(candidates[batch], pixels_BCHW, strict=True)
        return [judged.row(candidate, to_png(pixels_CHW)) for candidate, pixels_CHW in pairs]

    size = min(ROWS_AT_ONCE, items_that_fit(model, model.drawing_bytes(SamplingRecipe())))
    yield from in_fitting_batches(rows, len(candidates), size, "one image cannot be decoded; free memory")


def schema_of(judges: Sequence[str]) -> pa.Schema:
    """The columns, with the types by which ``datasets`` knows the pictures again."""
    from datasets import Features, Image, List, Value

    return Features(
        {
            "image": Image(),
            **{name: Value("string") for name in TEXTS},
            **{name: Value("int64") for name in NUMBERS},
            "accepted": Value("bool"),
            "verdicts": {name: Value("float64") for name in judges},
            "logp": Value("float64"),
            "codes": List(Value("int32")),
        }
    ).arrow_schema
