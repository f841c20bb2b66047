"""Does the guard notice that selection is corrupted? Many small runs, clean and spoilt, with the truth beside them."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from evidence.arms import run_arms
from evidence.guard_page import guard_page, guard_rows
from unigap.callbacks import Guard, Regrow
from unigap.console.quiet import quiet_libraries
from unigap.data import PoolData
from unigap.evaluation.gap import Verdicts, measure
from unigap.evaluation.probe_sources import ShapesPairs
from unigap.files.durable import write_durable
from unigap.judges import AlwaysYesJudge, FlippedJudge, InvertedJudge, Judge, OracleJudge, RandomJudge, SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.metrics.intervals import paired_difference
from unigap.models.janus import Janus
from unigap.objectives import SFT
from unigap.prompt_sets.loading import load_prompts
from unigap.stages import SFTStage
from unigap.stages.quiet_trainer import quiet_trainer

ARMS: dict[str, Callable[[int], Judge]] = {
    "clean": lambda seed: SelfJudge(),
    "flipped-10": lambda seed: FlippedJudge(SelfJudge(), 0.1, seed),
    "flipped-30": lambda seed: FlippedJudge(SelfJudge(), 0.3, seed),
    "flipped-50": lambda seed: FlippedJudge(SelfJudge(), 0.5, seed),
    "random": lambda seed: RandomJudge(seed=seed),
    "always-yes": lambda seed: AlwaysYesJudge(),
    "inverted": lambda seed: InvertedJudge(SelfJudge()),
}
"""Who selects in each arm, given the seed of the run."""


@dataclasses.dataclass(frozen=True)
class GuardPlan:
    """The setting of the runs.

    Attributes:
        checkpoint: The model they all start from.
        seeds: Runs of each corrupted arm; the clean arm, on which false alarms are counted, has twice as many.
        epochs: Epochs of a run.
        lr: Learning rate, high enough that damage shows.
        per_cell: Training prompts for each (category, difficulty).
        candidates: Images drawn for each training prompt.
        batch_size: Rows a step.
        pairs: Known pairs the guard looks at.
        drawn_per_cell: Validation prompts for each (category, difficulty) whose drawings the guard looks at.
        drawn_candidates: Images drawn for each validation prompt.
        test_per_cell: Test prompts for each (category, difficulty), on which the oracle measures real quality.
        test_candidates: Images drawn for each test prompt.
        first_seed: Seed of the first run.
    """

    checkpoint: str = "shapes"
    seeds: int = 10
    epochs: int = 4
    lr: float = 3.0e-4
    per_cell: int = 12
    candidates: int = 4
    batch_size: int = 16
    pairs: int = 600
    drawn_per_cell: int = 24
    drawn_candidates: int = 6
    test_per_cell: int = 8
    test_candidates: int = 2
    first_seed: int = 10

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")

    def runs(self) -> list[tuple[str, int]]:
        """Every (arm, seed), the arms in turn, so that a part of them is a smaller experiment."""
        seeds = {arm: self.seeds * (2 if arm == "clean" else 1) for arm in ARMS}
        return [
            (arm, self.first_seed + number) for number in range(2 * self.seeds) for arm in ARMS if number < seeds[arm]
        ]


class TruthLog(Callback):
    """Draws for test prompts before training and at every validation, and has the oracle say what they are worth.

    Args:
        plan: The setting.
    """

    def __init__(self, plan: GuardPlan) -> None:
        self.prompts = load_prompts("shapes", "test", plan.test_per_cell)
        self.draws = RoundPlan(plan.test_candidates, seed=1_000_000)
        self.rows: list[dict[str, Any]] = []
        self._start: Verdicts | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the model before training."""
        self._look(pl_module, 0)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the model after an epoch."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._look(pl_module, trainer.current_epoch + 1)

    def _look(self, module: LightningModule, epoch: int) -> None:
        assert isinstance(module, SFTStage)
        found = measure(module.model, self.prompts, self.draws, module.own_judge, module.external)
        start = self._start = self._start or found
        ones_S = torch.ones_like(found.own_S)
        change = paired_difference(
            (start.truth_S.double(), ones_S, start.prompt_S), (found.truth_S.double(), ones_S, found.prompt_S)
        )
        self.rows.append(
            {
                "epoch": epoch,
                "generation": found.truth_S.double().mean().item(),
                "generation_change": change.to_dict(),
                "non_unification": (found.own_S < 0).double().mean().item(),
            }
        )


def guard_evidence(plan: GuardPlan, jobs: int, out: Path) -> list[Path]:
    """Make the runs that ``out/guard.parquet`` does not hold yet, and write ``guard.md`` and its figures.

    Args:
        plan: The setting.
        jobs: Runs made at once, each on one thread.
        out: Folder of the page and of the runs; more seeds are added to those that are there.

    Returns:
        The page, and its figures as JSON.

    Raises:
        ValueError: When the file holds runs of another setting.
    """
    settings = dataclasses.asdict(plan) | {"weights": Janus(plan.checkpoint).weights_digest()}
    recipe = {name: value for name, value in settings.items() if name != "seeds"}
    arms = {f"{arm}-seed-{seed}": functools.partial(guarded_run, plan, arm, seed) for arm, seed in plan.runs()}
    runs = list(run_arms(out / "guard.parquet", recipe, arms, jobs).values())
    page, figures = out / "guard.md", out / "guard.json"
    write_durable(page, guard_page(settings, runs).encode())
    write_durable(figures, json.dumps({"settings": settings, "rows": guard_rows(runs)}, indent=1).encode())
    return [page, figures]


@quiet_libraries()
def guarded_run(plan: GuardPlan, arm: str, seed: int) -> dict[str, Any]:
    """One run to its end, with a guard that only notes down what it would do."""
    began = time.perf_counter()
    # every other seed is given to its owner
    torch.manual_seed(seed)
    guard, truth = Guard("warn", ShapesPairs(seed=1 + seed), plan.pairs), TruthLog(plan)
    stage = SFTStage(
        Janus(plan.checkpoint),
        SFT(keep=4),
        judge=ARMS[arm](seed),
        external=OracleJudge(),
        lr=plan.lr,
        eval_plan=RoundPlan(plan.drawn_candidates, seed=0),
        warmup_steps=10,
    )
    regrow = Regrow(RoundPlan(plan.candidates, seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        data = PoolData(
            pool=f"{folder}/pool",
            batch_size=plan.batch_size,
            per_cell=plan.per_cell,
            eval_per_cell=plan.drawn_per_cell,
            exam_pictures=0,
            seed=seed,
        )
        quiet_trainer([regrow, guard, truth], max_epochs=plan.epochs).fit(stage, datamodule=data)
    (drawn,) = regrow.counts
    seconds = round(time.perf_counter() - began, 1)
    return {"arm": arm, "seed": seed, "drawn": drawn, "guard": guard.history, "truth": truth.rows, "seconds": seconds}
