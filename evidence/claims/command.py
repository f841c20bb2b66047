"""``python -m evidence claims``: list the arms, run the missing ones, write the page and its numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from evidence.arms import run_arms
from evidence.claims.arm import Arm
from evidence.claims.listing import listing
from evidence.claims.page import write_page
from evidence.claims.plan import CLAIMS, Claim, base_name, run_name, seeds_of
from evidence.claims.readings import Measured, gather
from evidence.claims.recipes import ARMS
from evidence.claims.run import measure_base, run_arm
from evidence.claims.setting import Setting
from evidence.results_file import Result, ResultsFile


def claims_evidence(setting: Setting, only: Sequence[str], seeds: int | None, jobs: int, out: Path) -> list[Path]:
    """Run the missing arms of the named claims and write the page from the results in ``out/claims.parquet``.

    Args:
        setting: The setting that all arms share.
        only: Names of claims; empty means all.
        seeds: Seeds of every arm; ``None`` takes the number of each claim.
        jobs: Number of arms run at once, each on one thread.
        out: Folder of the page and of the results.

    Raises:
        ValueError: A claim is unknown, or the file holds results of another setting or recipe.
    """
    claims = _claims(only)
    wanted = seeds_of(claims, seeds)
    setting = setting.with_model_defaults()
    sets = {ARMS[arm].prompts for arm in wanted}
    most = max(wanted.values())
    bases = {
        base_name(prompts, seed): partial(measure_base, setting, prompts, seed)
        for seed in range(most)
        for prompts in sorted(sets)
    }
    free = {arm: n for arm, n in wanted.items() if not ARMS[arm].steps_of}
    recipe = setting.recipe()
    file = ResultsFile(out / "claims.parquet")
    found = run_arms(file.path, recipe, {**bases, **_runs(setting, free, {})}, jobs)
    steps = {name: result["steps"] for name, result in found.items() if "steps" in result}
    tied = {arm: n for arm, n in wanted.items() if ARMS[arm].steps_of}
    found |= run_arms(file.path, recipe, _runs(setting, tied, steps), jobs)
    measured = {arm: _measured(found, arm, n, file) for arm, n in wanted.items()}
    return write_page(setting, claims, measured, found, out)


def list_claims(only: Sequence[str], seeds: int | None, jobs: int, out: Path) -> str:
    """Return a list of the arms of the named claims, which results exist, and how long the others take; run nothing.

    Args:
        only: Names of claims; empty means all.
        seeds: Seeds of every arm; ``None`` takes the number of each claim.
        jobs: Arms run at once.
        out: Folder of the page and of the results.

    Raises:
        ValueError: A claim is unknown.
    """
    claims = _claims(only)
    return listing(claims, seeds_of(claims, seeds), jobs, ResultsFile(out / "claims.parquet").results())


def _claims(only: Sequence[str]) -> dict[str, Claim]:
    unknown = sorted(set(only) - set(CLAIMS))
    if unknown:
        raise ValueError(f"unknown claim {unknown[0]!r}; choose from: {', '.join(CLAIMS)}")
    return {name: CLAIMS[name] for name in only or CLAIMS}


def _runs(setting: Setting, wanted: Mapping[str, int], steps: Mapping[str, int]) -> dict[str, partial[Result]]:
    runs: dict[str, partial[Result]] = {}
    # seed by seed, so that a part of the work is a smaller experiment
    for seed in range(max(wanted.values(), default=0)):
        for name, n in wanted.items():
            if seed < n:
                arm: Arm = ARMS[name]
                limit = steps[run_name(arm.steps_of, seed)] if arm.steps_of else -1
                runs[run_name(name, seed)] = partial(run_arm, setting, arm, seed, limit)
    return runs


def _measured(found: Mapping[str, Result], arm: str, seeds: int, file: ResultsFile) -> Measured:
    results = {name: found[name] for name in (run_name(arm, seed) for seed in range(seeds))}
    for name, result in results.items():
        if result["recipe"] != json.loads(json.dumps(ARMS[arm].recipe())):
            raise ValueError(
                f"{file.path}: {name} was run with another recipe of {arm!r}; "
                f"forget it with python -m evidence forget {file.path} {name}, then run again"
            )
    bases = [found[base_name(ARMS[arm].prompts, seed)] for seed in range(seeds)]
    return gather(bases, list(results.values()))
