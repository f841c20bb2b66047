"""The guard experiment: many small runs with clean and corrupted selection, each measured by the oracle too."""

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
from evidence.fit import COUNTED, Overrides, fit, spec
from evidence.guard_page import guard_page, guard_rows
from evidence.results_file import Result
from unigap.console.quiet import quiet_libraries
from unigap.evaluation.gap import Verdicts, measure
from unigap.files.durable import write_durable
from unigap.loop.plan import RoundPlan
from unigap.metrics.intervals import paired_difference
from unigap.models.janus import Janus
from unigap.prompt_sets.loading import load_prompts
from unigap.stages import SFTStage

SELF = spec("unigap.judges.SelfJudge")
ARMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "clean": lambda seed: SELF,
    "flipped-10": lambda seed: spec("unigap.judges.FlippedJudge", judge=SELF, share=0.1, seed=seed),
    "flipped-30": lambda seed: spec("unigap.judges.FlippedJudge", judge=SELF, share=0.3, seed=seed),
    "flipped-50": lambda seed: spec("unigap.judges.FlippedJudge", judge=SELF, share=0.5, seed=seed),
    "random": lambda seed: spec("unigap.judges.RandomJudge", seed=seed),
    "always-yes": lambda seed: spec("unigap.judges.AlwaysYesJudge"),
    "inverted": lambda seed: spec("unigap.judges.InvertedJudge", judge=SELF),
}
"""The selecting judge of each arm, given the seed of the run."""


@dataclasses.dataclass(frozen=True)
class GuardPlan:
    """The setting of the runs.

    Attributes:
        checkpoint: The initial model of all runs.
        seeds: Runs of each corrupted arm; the clean arm, which counts false alarms, has twice as many.
        epochs: Epochs of a run.
        lr: Learning rate, high enough that damage shows.
        per_cell: Training prompts for each (category, difficulty).
        candidates: Images sampled for each training prompt.
        batch_size: Rows in a step.
        pairs: Images of the guard with captions known to be true or false.
        drawn_per_cell: Validation prompts of the guard for each (category, difficulty).
        drawn_candidates: Images sampled for each validation prompt.
        test_per_cell: Test prompts for each (category, difficulty), on which the oracle measures real quality.
        test_candidates: Images sampled for each test prompt.
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
        """Return every (arm, seed), alternating the arms, so that the first ones are a smaller experiment."""
        seeds = {arm: self.seeds * (2 if arm == "clean" else 1) for arm in ARMS}
        return [
            (arm, self.first_seed + number) for number in range(2 * self.seeds) for arm in ARMS if number < seeds[arm]
        ]


class TruthLog(Callback):
    """Sample images for test prompts before training and at every validation, and log what the oracle accepts.

    Args:
        per_cell: Test prompts for each (category, difficulty).
        candidates: Images sampled for each of them.
    """

    def __init__(self, per_cell: int, candidates: int) -> None:
        self.prompts = load_prompts("shapes", "test", per_cell)
        self.plan = RoundPlan(candidates, seed=1_000_000)
        self.rows: list[dict[str, Any]] = []
        self._start: Verdicts | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the model before training."""
        self._measure(pl_module, 0)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the model after an epoch."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._measure(pl_module, trainer.current_epoch + 1)

    def _measure(self, module: LightningModule, epoch: int) -> None:
        assert isinstance(module, SFTStage)
        now = measure(module.model, self.prompts, self.plan, module.own_judge, module.external)
        start = self._start = self._start or now
        ones_S = torch.ones_like(now.own_S)
        change = paired_difference(
            (start.truth_S.double(), ones_S, start.prompt_S), (now.truth_S.double(), ones_S, now.prompt_S)
        )
        self.rows.append(
            {
                "epoch": epoch,
                "generation": now.truth_S.double().mean().item(),
                "generation_change": change.to_dict(),
                "non_unification": (now.own_S < 0).double().mean().item(),
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, which the evidence reads from the checkpoint."""
        return {"rows": self.rows}


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
def guarded_run(plan: GuardPlan, arm: str, seed: int) -> Result:
    """Train to the end with a guard that warns and does not act."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trained = fit("sft", Path(folder) / "run", _options(plan, arm, seed))
        (drawn,) = trained.rounds
    guard, truth = trained.callback_state("Guard")["history"], trained.callback_state("TruthLog")["rows"]
    seconds = round(time.perf_counter() - began, 1)
    return {"arm": arm, "seed": seed, "drawn": drawn, "guard": guard, "truth": truth, "seconds": seconds}


def _options(plan: GuardPlan, arm: str, seed: int) -> Overrides:
    pairs = spec("unigap.evaluation.probe_sources.ShapesPairs", seed=1 + seed)
    return COUNTED | {
        "seed_everything": seed,
        "model.init_args.model.init_args.checkpoint": plan.checkpoint,
        "model.init_args.judge": ARMS[arm](seed),
        "model.init_args.external": "unigap.judges.OracleJudge",
        "model.init_args.lr": plan.lr,
        "model.init_args.warmup_steps": 10,
        "model.init_args.eval_plan": {"candidates": plan.drawn_candidates, "seed": 0},
        "regrow.plan.candidates": plan.candidates,
        "data.init_args.per_cell": plan.per_cell,
        "data.init_args.batch_size": plan.batch_size,
        "data.init_args.eval_per_cell": plan.drawn_per_cell,
        "data.init_args.exam_pictures": 0,
        "trainer.max_epochs": plan.epochs,
        "trainer.callbacks": [
            spec("unigap.callbacks.Guard", action="warn", pairs=pairs, n=plan.pairs),
            spec("evidence.guard.TruthLog", per_cell=plan.test_per_cell, candidates=plan.test_candidates),
        ],
    }
