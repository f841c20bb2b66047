"""``python -m evidence theory``: measure the arms of the theory experiment and write its page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from evidence.arms import run_arms
from evidence.corrections import corrections
from evidence.coupling import couplings
from evidence.improvement import improve
from evidence.one_step import one_step
from evidence.results_file import Result, ResultsFile
from evidence.shared_tokens import shared_coupling, teach_shared
from evidence.theory_page import write_page
from evidence.theory_plan import TheoryPlan, seed_folder
from unigap.console.quiet import quiet_libraries


@quiet_libraries()
def measure_theory(plan: TheoryPlan, out: Path, work: Path) -> Path:
    """Measure every arm that ``out/theory.parquet`` does not hold, and write the page and its figures to ``out``.

    Args:
        plan: The sizes of the experiment.
        out: Folder of the page and of the results.
        work: Folder of the pools and weights that later arms read.

    Returns:
        The page.

    Raises:
        ValueError: The file holds results of another plan or other weights, or a missing arm needs a pool that is gone.
    """
    arms: dict[str, Callable[[], Result]] = {}
    for seed in plan.seeds:
        folder = seed_folder(work, seed)
        for name, measure in (
            ("improve", improve),
            ("one-step", one_step),
            ("coupling", couplings),
            ("corrections", corrections),
        ):
            arms[f"{name}-{seed}"] = partial(measure, plan, seed, folder)
    arms["shared"] = partial(teach_shared, plan, work)
    for seed in plan.seeds:
        arms[f"shared-{seed}"] = partial(shared_coupling, plan, seed, work)
    file = ResultsFile(out / "theory.parquet")
    _check_pools(file.results(), arms, plan, work)
    return write_page(plan, run_arms(file.path, plan.recipe(), arms), out)


def _check_pools(kept: Mapping[str, Result], arms: Iterable[str], plan: TheoryPlan, work: Path) -> None:
    """Check that ``work`` holds the files of stored arms, if any arm is still to be measured."""
    left = {f"improve-{seed}": seed_folder(work, seed) for seed in plan.seeds} | {"shared": work / "shared.safetensors"}
    gone = [name for name, path in left.items() if name in kept and not path.exists()]
    missing = [name for name in arms if name not in kept]
    if missing and gone:
        raise ValueError(
            f"{missing[0]} is not measured yet and needs what {gone[0]} left in {left[gone[0]]}, which is missing; "
            "name its folder with --work, or measure everything again with another --out"
        )
