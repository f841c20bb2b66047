"""``unigap evidence theory``: measures the five questions about learning dynamics and writes the page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from unigap.console.quiet import quiet_libraries
from unigap.evidence.arms import Result, run_arms
from unigap.evidence.corrections import corrections
from unigap.evidence.coupling import couplings
from unigap.evidence.improvement import improve
from unigap.evidence.one_step import one_step
from unigap.evidence.shared_tokens import shared_coupling, teach_shared
from unigap.evidence.theory_page import write_page
from unigap.evidence.theory_plan import TheoryPlan, seed_folder


@quiet_libraries()
def measure_theory(plan: TheoryPlan, out: Path, work: Path) -> Path:
    """Measures every arm that is not in ``work`` yet and writes the page, its figures and its numbers to ``out``.

    Returns:
        The page.

    Raises:
        ValueError: When ``work`` holds arms of another plan or other weights.
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
    return write_page(plan, run_arms(work, plan.recipe(), arms), out)
