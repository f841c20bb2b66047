"""``python -m evidence coverage``: how often the intervals of the claims hold the true value, by simulation.

Shapes: K seeds, P prompts, N images a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from evidence.claims.readings import Resampling
from evidence.statistics import over_seeds
from unigap.files.durable import make_folder, write_durable
from unigap.files.markdown import table
from unigap.metrics.intervals import Estimate

PROMPTS, IMAGES = 338, 4
PROMPT_SPREAD = 1.5
"""Standard deviation of a prompt's log-odds of a right image: some prompts are easy, others hard."""
RUN_SPREADS = (0.0, 1.0, 2.6, 5.0)
"""Standard deviations of generation accuracy between runs of an arm, in points."""
POINTS_PER_LOGIT = 17.0
"""Points of generation accuracy for one unit of log-odds, near one half and at ``PROMPT_SPREAD``."""
MANY = 400_000


@dataclass(frozen=True)
class Coverage:
    """Shares of simulations whose 95 % interval holds the true value.

    Attributes:
        prompts_alone: Of one run, with a bootstrap of prompts, as in the summary of a run.
        bootstrap: Of K runs, with a bootstrap of prompts and seeds.
        student: Of K runs, with Student's t over seeds.
        wider: Of K runs, with the wider of the two, as in the claims.
    """

    prompts_alone: float
    bootstrap: float
    student: float
    wider: float


def simulate(seeds: int, run_spread: float, repeats: int, seed: int = 0) -> Coverage:
    """Simulate runs with random prompts and random effects of the run, and count the intervals that hold the truth.

    Args:
        seeds: K.
        run_spread: Standard deviation between runs, in points.
        repeats: Number of simulations.
        seed: Seed of the simulations.
    """
    rng = torch.Generator().manual_seed(seed)
    run_sd = run_spread / POINTS_PER_LOGIT
    truth = torch.sigmoid(_normal(rng, MANY) * PROMPT_SPREAD + _normal(rng, MANY) * run_sd).mean().item()
    one, several = Resampling(1, PROMPTS), Resampling(seeds, PROMPTS)
    held = torch.zeros(4)
    for _ in range(repeats):
        logit_KP = _normal(rng, 1, PROMPTS) * PROMPT_SPREAD + _normal(rng, seeds, 1) * run_sd
        chance_KPN = torch.sigmoid(logit_KP)[..., None].expand(-1, -1, IMAGES)
        hit_KPN = torch.bernoulli(chance_KPN, generator=rng)
        ones_KPN = torch.ones_like(hit_KPN)
        found = several.ratio(hit_KPN, ones_KPN)
        intervals = (
            one.ratio(hit_KPN[:1], ones_KPN[:1]).estimate(),
            found.pooled.estimate(),
            over_seeds(found.seed_K.tolist()),
            found.estimate(),
        )
        held += torch.tensor([_holds(interval, truth) for interval in intervals])
    return Coverage(*(held / repeats).tolist())


def _normal(rng: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def _holds(interval: Estimate, truth: float) -> float:
    return float(interval.low <= truth <= interval.high)


def coverage_page(repeats: int, out: Path) -> list[Path]:
    """Write ``coverage.md``.

    Args:
        repeats: Simulations of each row.
        out: Folder of the page.
    """
    rows = []
    for seeds in (3, 5):
        for spread in RUN_SPREADS:
            found = simulate(seeds, spread, repeats)
            shares = (found.prompts_alone, found.bootstrap, found.student, found.wider)
            rows.append([str(seeds), f"{spread:g}", *(f"{100 * share:.1f}" for share in shares)])
    header = ("seeds", "spread of runs, points", "prompts alone, one run", "bootstrap", "Student's t", "wider of both")
    text = (
        "# How often do the intervals hold the true value?\n\n"
        f"Written by `python -m evidence coverage`: {repeats:,} simulations a row of generation accuracy on {PROMPTS} "
        f"prompts, {IMAGES} images each. Prompts differ in difficulty, runs by the stated standard deviation. The "
        "columns are the percentage of nominal 95 % intervals that hold the true value.\n\n"
        + table(header, rows)
        + "\n\nThe pages of claims use the last column. The summary of a single run, as in `unigap demo`, resamples "
        "prompts alone: it does not contain how runs with other seeds differ.\n"
    )
    make_folder(out)
    write_durable(out / "coverage.md", text.encode())
    return [out / "coverage.md"]
