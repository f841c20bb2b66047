"""``python -m evidence architectures``: runs the arms of every architecture that are missing, and writes the page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from evidence.architectures.page import write_page
from evidence.architectures.plan import ARMS, ArchitecturesPlan
from evidence.arms import run_arms
from evidence.claims.plan import run_name
from evidence.claims.run import base, measure_base, run_arm
from evidence.claims.setting import Setting
from evidence.coupling import coupling_of
from evidence.results_file import Result
from unigap.callbacks.dynamics_probes import paired_sources, pick_probes
from unigap.console.quiet import quiet_libraries
from unigap.judges import SelfJudge


def architectures_evidence(plan: ArchitecturesPlan, jobs: int, out: Path) -> list[Path]:
    """Measure what ``out/architectures.parquet`` does not hold yet and write the page of all of it.

    Args:
        plan: Which models, and the sizes of the experiment.
        jobs: Arms run at once, each on one thread.
        out: Folder of the page, its figure, its numbers and the results.

    Raises:
        ValueError: When a checkpoint is missing, or the file holds results of another plan or other weights.
    """
    settings = {name: setting.with_model_defaults() for name, setting in plan.settings().items()}
    recipe = {name: setting.recipe() for name, setting in settings.items()} | {"probes": plan.probes}
    arms: dict[str, partial[Result]] = {}
    for seed in range(plan.seeds):
        for name, setting in settings.items():
            arms[run_name(f"{name}, base", seed)] = partial(measure_base, setting, "standard", seed)
            arms[run_name(f"{name}, coupling", seed)] = partial(coupling, setting, plan.probes, seed)
            for arm in ARMS:
                arms[run_name(f"{name}, {arm}", seed)] = partial(run_arm, setting, ARMS[arm], seed)
    return write_page(plan, settings, run_arms(out / "architectures.parquet", recipe, arms, jobs), out)


@quiet_libraries()
def coupling(setting: Setting, per_group: int, seed: int) -> Result:
    """Coupling of the branches on what the model draws before any arm, by part of the network and group of drawings."""
    seen, _ = base(setting, "standard", seed)
    drawn = seen.sampled.candidates
    accepted = {candidate.id: yes for candidate, yes in zip(drawn, (seen.own_S >= 0).tolist(), strict=True)}
    right = {candidate.id: true for candidate, true in zip(drawn, seen.truth_S.tolist(), strict=True)}
    probes = pick_probes(drawn, accepted, right, per_group, seed)
    model = setting.open()
    found = coupling_of(model, paired_sources(model, probes.candidates, SelfJudge().questions), probes)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return found | {"parameters": parameters, "trained": trained}
