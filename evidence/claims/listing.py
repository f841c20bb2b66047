"""List the arms and seeds that the claims need, the results that exist, and how long the others take."""

from __future__ import annotations

from collections.abc import Mapping

from evidence.claims.plan import Claim, base_name, run_name
from evidence.claims.recipes import ARMS
from evidence.results_file import Result


def listing(claims: Mapping[str, Claim], wanted: Mapping[str, int], jobs: int, kept: Mapping[str, Result]) -> str:
    """Return one line for each arm, under the first claim that needs it, and a line for the remaining work.

    The time of a run is the mean over the finished runs of the arm, or over all finished runs if it has none.

    Args:
        claims: The claims, by name.
        wanted: Seeds of each arm.
        jobs: Arms run at once.
        kept: The stored results by name.
    """
    took = {name: result["seconds"] for name, result in kept.items()}
    left = dict(wanted)
    lines = []
    for name, claim in claims.items():
        needed = dict.fromkeys([*claim.arms, *(arm for pair in claim.contrasts for arm in pair)])
        needed |= dict.fromkeys(ARMS[arm].steps_of for arm in needed if ARMS[arm].steps_of)
        own = {arm: _runs(arm, left.pop(arm)) for arm in needed if arm in left}
        lines += [f"{name}: {claim.title} ({len(own)} arms, {len(needed) - len(own)} more from above)"]
        lines += [_line(arm, runs, took) for arm, runs in own.items()]
    sets = sorted({ARMS[arm].prompts for arm in wanted})
    bases = {prompts: [base_name(prompts, seed) for seed in range(max(wanted.values()))] for prompts in sets}
    lines += ["the base, before any arm", *(_line(prompts, runs, took) for prompts, runs in bases.items())]
    every = [run for arm, seeds in wanted.items() for run in _runs(arm, seeds)]
    every += [run for runs in bases.values() for run in runs]
    return "\n".join([*lines, _outlook(every, took, jobs)])


def _runs(arm: str, seeds: int) -> list[str]:
    return [run_name(arm, seed) for seed in range(seeds)]


def _line(arm: str, runs: list[str], took: Mapping[str, float]) -> str:
    there = [took[run] for run in runs if run in took]
    pace = f", {sum(there) / len(there):.0f} s each" if there else ""
    return f"  {arm}: {len(runs)} runs, {len(there)} there{pace}"


def _outlook(every: list[str], took: Mapping[str, float], jobs: int) -> str:
    missing = [run for run in every if run not in took]
    said = f"{len(every)} runs, {len(every) - len(missing)} there"
    if not missing:
        return f"{said}; nothing is left to run"
    if not took:
        return f"{said}; none to take the time of a run from yet"
    mean = sum(took.values()) / len(took)
    paces: dict[str, list[float]] = {}
    for run, seconds in took.items():
        paces.setdefault(_arm(run), []).append(seconds)
    seconds = sum(sum(own) / len(own) if (own := paces.get(_arm(run))) else mean for run in missing)
    return f"{said}; about {seconds / 60 / jobs:.0f} minutes for the others with {jobs} at once, by what those took"


def _arm(run: str) -> str:
    return run.rpartition("-seed-")[0]
