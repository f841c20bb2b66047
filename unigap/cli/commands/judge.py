"""``unigap judge``: drawings out of a pool for people to judge, their verdicts into it, and how far judges agree."""

from __future__ import annotations

import csv
import io
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from unigap.files.durable import check_empty_folder, whole_folder, write_durable
from unigap.files.images import to_image
from unigap.files.outputs import refuse_inside_pool
from unigap.judges.base import CERTAIN
from unigap.judges.human import NAME, HumanJudge, Ties, safe_cell
from unigap.loop.sampling import codes_of
from unigap.metrics.agreement import cohen_kappa, fleiss_kappa, raw_agreement
from unigap.metrics.intervals import Estimate
from unigap.metrics.scores import share
from unigap.models.base import UnifiedModel
from unigap.pool import Pool
from unigap.prompt_sets.same_text import prompt_numbers
from unigap.records import Candidate

SHEET = "verdicts.csv"
LEAST_SIDE = 256
"""People see no less than so many pixels a side; smaller drawings are enlarged by a whole number."""
AT_ONCE = 64
MASS = "P(yes or no): the rest of the probability is on answers that are neither"


def export_drawings(
    model: UnifiedModel, pool: str, folder: str, n: int, seed: int, blind: bool, shown: str = "self"
) -> Path:
    """Writes drawings of a pool that people have not judged yet, and a sheet to fill in, in a random order.

    Args:
        model: The model whose drawings they are.
        pool: Folder of the pool.
        folder: Where to; an empty folder, or one that does not exist yet.
        n: How many; all where there are fewer.
        seed: Which ones.
        blind: Keep from the sheet what the judge ``shown`` said.
        shown: The judge whose probability of yes a sheet that is not blind holds.

    Returns:
        The sheet.

    Raises:
        ValueError: The pool is another model's, empty or judged by people in full, ``folder`` is not empty, or the
            judge said nothing.
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    out = Path(folder)
    check_empty_folder(out)
    refuse_inside_pool(out, "--out")
    source = Pool.open(pool, model.codebook_digest())
    drawn = sorted(source.candidates(), key=lambda candidate: candidate.id)
    if not drawn:
        raise ValueError(f"pool {pool!r} holds no drawing yet; draw some with unigap predict")
    judged = {judgment.candidate_id for judgment in source.judgments(NAME)}
    open_yet = [candidate for candidate in drawn if candidate.id not in judged]
    if not open_yet:
        raise ValueError(f"pool {pool!r}: all {len(drawn)} drawings are judged by {NAME!r} already; draw more")
    p_yes = {} if blind else {judgment.candidate_id: judgment.p_yes for judgment in source.judgments(shown)}
    if not blind and not p_yes:
        raise ValueError(f"pool {pool!r} holds no word of {shown!r}; leave the sheet blind")
    chosen = random.Random(f"judge/{seed}").sample(open_yet, min(n, len(open_yet)))
    with whole_folder(out) as aside:
        rows = _write_images(aside, _images(model, chosen), chosen)
        if not blind:
            rows = [row | {"p_yes": f"{p_yes[candidate.id]:.3f}"} for row, candidate in zip(rows, chosen, strict=True)]
        write_durable(aside / SHEET, _sheet(rows))
    return out / SHEET


def _write_images(folder: Path, images: Iterator[Image.Image], candidates: Sequence[Candidate]) -> list[dict[str, str]]:
    """Writes each image, and returns its row of the sheet."""
    rows = []
    for number, (candidate, image) in enumerate(
        zip(candidates, tqdm(images, total=len(candidates), unit="image", desc="export"), strict=True)
    ):
        name = f"{number:05d}.png"
        image.save(folder / name)
        row = {"image": name, "prompt": safe_cell(candidate.prompt.text), "verdict": "", "rater": ""}
        rows.append(row | {"candidate_id": safe_cell(candidate.id)})
    return rows


def _images(model: UnifiedModel, candidates: Sequence[Candidate]) -> Iterator[Image.Image]:
    device = next(model.parameters()).device
    for start in range(0, len(candidates), AT_ONCE):
        for pixels_CHW in model.decode(codes_of(candidates[start : start + AT_ONCE]).to(device)):
            image = to_image(pixels_CHW)
            factor = -(-LEAST_SIDE // min(image.size))
            yield image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _sheet(rows: Sequence[Mapping[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def import_verdicts(pool: str, sheet: str, name: str, ties: Ties) -> int:
    """Stores people's verdicts beside the judgments of a pool, under a name of their own.

    Returns:
        How many drawings they are about.

    Raises:
        ValueError: The sheet cannot be read, or the pool does not take it, see ``HumanJudge`` and ``Pool.annotate``.
    """
    verdicts = HumanJudge(sheet, ties).verdicts
    Pool.open(pool).annotate(name, {candidate: CERTAIN if right else -CERTAIN for candidate, right in verdicts.items()})
    return len(verdicts)


def print_agreement(pool: str, judges: Sequence[str]) -> None:
    """Prints how often each judge of a pool says yes and how far they agree, with 95 % intervals by prompt.

    Args:
        pool: Folder of the pool.
        judges: Their names; none takes all.

    Raises:
        ValueError: A judge said nothing in the pool, or fewer than two are left.
    """
    source = Pool.open(pool)
    said: dict[str, dict[str, bool]] = {}
    masses: dict[str, list[float]] = {}
    for judgment in source.judgments():
        said.setdefault(judgment.judge, {})[judgment.candidate_id] = judgment.logit >= 0
        if judgment.mass is not None:
            masses.setdefault(judgment.judge, []).append(judgment.mass)
    strangers = [name for name in judges if name not in said]
    if strangers:
        raise ValueError(f"pool {pool!r} holds no word of {strangers[0]!r}; choose one of: {', '.join(sorted(said))}")
    names = list(dict.fromkeys(judges)) or sorted(said)
    if len(names) < 2:
        raise ValueError(f"agreement takes two judges or more, pool {pool!r} gives {', '.join(names) or 'none'}")
    drawn = source.candidates()
    cluster = dict(zip((c.id for c in drawn), prompt_numbers(c.prompt for c in drawn), strict=True))
    chosen, console = {name: said[name] for name in names}, Console(markup=False)
    console.print(_yes_rates(chosen, cluster, masses))
    console.print(_pairs(chosen, cluster))


Said = Mapping[str, Mapping[str, bool]]


def _yes_rates(said: Said, cluster: Mapping[str, int], masses: Mapping[str, Sequence[float]]) -> Table:
    table = Table(title="What each judge says", caption=MASS if masses else None)
    for column in ("judge", "drawings", "yes, in %", *(["P(yes or no), in %"] if masses else [])):
        table.add_column(column, justify="left" if column == "judge" else "right")
    for name in said:
        verdict_SJ, cluster_S = _columns({name: said[name]}, cluster)
        rate = share(verdict_SJ[:, 0], torch.ones(len(cluster_S), dtype=torch.bool), cluster_S)
        mass = f"{100 * mean(masses[name]):.3g}" if name in masses else ""
        table.add_row(name, str(rate.n), _shown(rate, 100, 1), *([mass] if masses else []))
    return table


def _pairs(said: Said, cluster: Mapping[str, int]) -> Table:
    table = Table(title="Agreement, with 95 % intervals")
    for column in ("judges", "drawings", "agree, in %", "kappa"):
        table.add_column(column, justify="left" if column == "judges" else "right")
    for pair in itertools.combinations(said, 2):
        verdict_SJ, cluster_S = _columns({name: said[name] for name in pair}, cluster)
        kappa = cohen_kappa(verdict_SJ[:, 0], verdict_SJ[:, 1], cluster_S) if len(cluster_S) else None
        _add(table, " / ".join(pair), verdict_SJ, cluster_S, kappa)
    if len(said) > 2:
        verdict_SJ, cluster_S = _columns(said, cluster)
        _add(table, "all", verdict_SJ, cluster_S, fleiss_kappa(verdict_SJ, cluster_S) if len(cluster_S) else None)
    return table


def _add(table: Table, title: str, verdict_SJ: torch.Tensor, cluster_S: torch.Tensor, kappa: Estimate | None) -> None:
    if kappa is None:
        table.add_row(title, "0", "none in common", "")
    else:
        agree = raw_agreement(verdict_SJ, cluster_S)
        table.add_row(title, str(agree.n), _shown(agree, 100, 1), _shown(kappa, 1, 2))


def _columns(said: Said, cluster: Mapping[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Verdicts (S, J) on the drawings that all judged, and the numbers of their prompts (S,)."""
    common = [name for name in cluster if all(name in verdicts for verdicts in said.values())]
    rows = [[verdicts[name] for verdicts in said.values()] for name in common]
    return torch.tensor(rows, dtype=torch.bool).view(-1, len(said)), torch.tensor([cluster[name] for name in common])


def _shown(estimate: Estimate, scale: float, digits: int) -> str:
    if estimate.n == 0:
        return "undefined"
    value, low, high = (f"{scale * end:.{digits}f}" for end in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]" if estimate.low == estimate.low else value
