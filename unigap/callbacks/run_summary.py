"""Measures the gap before and after training and leaves what ``unigap report`` makes its page of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from unigap.callbacks.regrow import Regrow
from unigap.evaluation.gap import EVAL_ROUND, Verdicts, measure, rejudge, sit_exam
from unigap.evaluation.run_summary import Look, run_figures, versions, write_gallery, write_rejudged
from unigap.models.sharding import whole
from unigap.prompts import check_no_overlap, load_prompts
from unigap.records import Candidate
from unigap.rounds import RoundPlan
from unigap.sampling import Drawings
from unigap.seeds import seed_of_part
from unigap.shapes.exam import Exam, shapes_exam
from unigap.stages import ImproveStage
from unigap.storage.manifest import make_folder, write_durable

# Shape legend: S drawings, M image tokens, E exam pictures.


class RunSummary(Callback):
    """Draws for test prompts before the first step and after the last, and writes down what has changed.

    The run folder gets ``summary.json``, ``gallery.json``, ``rejudged.json`` and their pictures. Training takes the
    same course as without it.

    Args:
        folder: Where they lie; null is the run folder, empty measures nothing.
        prompts: Prompts to draw for, as in ``PoolData``; none of them may be trained on. Null measures nothing.
        split: Their split.
        per_cell: At most this many of them for each (category, difficulty).
        plan: How the drawings are made; null draws 4 a prompt.
        exam: Rendered pictures on which understanding is examined; only the embedded world has them.
        exam_seed: Which pictures; null follows the run's seed.
        gallery: Prompts that are shown before and after.
    """

    def __init__(
        self,
        folder: str | None = None,
        prompts: str | None = None,
        split: str = "test",
        per_cell: int = 20,
        plan: RoundPlan | None = None,
        exam: int = 600,
        exam_seed: int | None = None,
        gallery: int = 24,
    ) -> None:
        for name, value, least in (("per_cell", per_cell, 1), ("exam", exam, 0), ("gallery", gallery, 1)):
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        if folder and not prompts:
            raise ValueError(
                f"summary.folder {folder!r}: no prompts to measure on; give --summary.prompts, e.g. shapes"
            )
        self.folder, self.plan, self.gallery = folder, (plan or RoundPlan(4)).seeded("test"), gallery
        self.source, self.split, self.per_cell, self.pictures = prompts or "", split, per_cell, exam
        self.exam_seed = seed_of_part("test probe set", exam_seed)
        self.model = ""
        self.recipe: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.result: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._began: float | None = None

    def describe(self, model: str, recipe: dict[str, Any]) -> None:
        """Says what the run is, for the report.

        Args:
            model: Name or folder of the model it begins with.
            recipe: Settings by name, as plain JSON.
        """
        self.model, self.recipe = model, recipe

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads what is asked, and refuses prompts that are trained on."""
        if stage != "fit" or not self.folder or not isinstance(pl_module, ImproveStage):
            return
        self.prompts = load_prompts(self.source, self.split, self.per_cell)
        check_no_overlap(pl_module.pool_data.prompts, self.prompts)
        self.exam: Exam | None = None
        if self.source == "shapes" and self.pictures:
            self.exam = shapes_exam(self.split, self.pictures, self.exam_seed)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the model as it is before training; a resumed run keeps the start it had."""
        if not self.folder or not isinstance(pl_module, ImproveStage):
            return
        key = self._key()
        if self._before and self._before["key"] != key:
            raise ValueError("RunSummary: this run began with other prompts or another plan; resume it with the same")
        if not self._before:
            if trainer.global_step:
                raise ValueError("RunSummary: this run began unmeasured; resume it with an empty folder for it")
            self._before = {"key": key, "command": shlex.join(["unigap", *sys.argv[1:]])}
            with self._working(trainer, pl_module, "gap_before") as at_work:
                if at_work:
                    self._before |= _kept(self._look(trainer, pl_module, "gap before"))
        self._began = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the trained model and writes the files."""
        if not self.folder or not isinstance(pl_module, ImproveStage):
            return
        self.seconds = self._seconds_so_far()
        with self._working(trainer, pl_module, "gap_after") as at_work:
            if not at_work:
                return
            after = self._look(trainer, pl_module, "gap after")
            before = self._look_before(pl_module)
            again_S = rejudge(pl_module.model, before.verdicts, pl_module.own_judge)
        self._write(trainer, pl_module, before, after, again_S)

    @contextmanager
    def _working(self, trainer: Trainer, stage: ImproveStage, phase: str) -> Iterator[bool]:
        """Times the body and gives it whole weights; says whether this is the process that measures."""
        start = time.perf_counter()
        with trainer.precision_plugin.forward_context(), whole(stage.model):
            yield trainer.is_global_zero
        self.seconds[phase] = round(time.perf_counter() - start, 2)

    def _look(self, trainer: Trainer, stage: ImproveStage, title: str) -> Look:
        total, quiet = len(self.prompts) * self.plan.candidates, not trainer.progress_bar_callback
        with tqdm(total=total, unit="image", desc=title, disable=quiet) as bar:
            verdicts = measure(stage.model, self.prompts, self.plan, stage.own_judge, stage.external, bar.update)
        return Look(verdicts, sit_exam(stage.model, self.exam, stage.own_judge) if self.exam else None)

    def _look_before(self, stage: ImproveStage) -> Look:
        """The look of the start, its pictures decoded anew: what decodes them is frozen."""
        kept, n = self._before, self.plan.candidates
        candidates = [
            Candidate(self.prompts[s // n], EVAL_ROUND, s % n, seed, codes_M.numpy(), logp)
            for s, (seed, codes_M, logp) in enumerate(zip(kept["seeds"], kept["codes_SM"], kept["logps"], strict=True))
        ]
        codes_SM = kept["codes_SM"].long().to(stage.device)
        pixels = [stage.model.decode(part).cpu() for part in codes_SM.split(self.plan.images_per_batch)]
        prompt_S = torch.arange(len(self.prompts)).repeat_interleave(n)
        drawings = Drawings(candidates, torch.cat(pixels))
        return Look(Verdicts(self.prompts, drawings, prompt_S, kept["own_S"], kept["right_S"]), kept["answers_E"])

    def _write(self, trainer: Trainer, stage: ImproveStage, before: Look, after: Look, again_S: torch.Tensor) -> None:
        folder = Path(self.folder or "")
        make_folder(folder)
        self.result = {
            "seed": stage.pool_data.seed,
            "model": self.model or type(stage.model).__name__,
            **run_figures(before, after, again_S, self.exam),
            "rounds": _rounds(trainer),
            "wall_seconds": self.seconds,
            "command": self._before["command"],
            "versions": versions(),
            "recipe": self.recipe,
        }
        write_gallery(folder, before.verdicts, after.verdicts, self.gallery)
        write_rejudged(folder, before.verdicts, again_S)
        # last: where it lies, the rest lies too
        write_durable(folder / "summary.json", json.dumps(self.result, indent=1).encode())

    def _key(self) -> str:
        plan = dataclasses.replace(self.plan, images_per_batch=1)  # which decides nothing but speed
        asked = ([prompt.text for prompt in self.prompts], plan, self.pictures, self.exam_seed)
        return hashlib.sha256(repr(asked).encode()).hexdigest()

    def _seconds_so_far(self) -> dict[str, float]:
        if self._began is None:
            return self.seconds
        trained = self.seconds.get("self_improvement", 0.0) + time.perf_counter() - self._began
        return self.seconds | {"self_improvement": round(trained, 2)}

    def state_dict(self) -> dict[str, Any]:
        """What was measured at the start, and the time taken since."""
        return {"before": self._before, "seconds": self._seconds_so_far()} if self._before else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues with the same start."""
        self._before, self.seconds = state_dict["before"], state_dict["seconds"]


def _rounds(trainer: Trainer) -> list[dict[str, int]]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [row for callback in callbacks if isinstance(callback, Regrow) for row in callback.counts]


def _kept(look: Look) -> dict[str, Any]:
    """A look as tensors and plain values, small enough to travel in every checkpoint."""
    verdicts = look.verdicts
    drawn = verdicts.drawings.candidates
    return {
        "codes_SM": torch.stack([torch.from_numpy(candidate.codes) for candidate in drawn]),
        "seeds": [candidate.seed for candidate in drawn],
        "logps": [candidate.logp for candidate in drawn],
        "own_S": verdicts.own_S,
        "right_S": verdicts.right_S,
        "answers_E": look.answers_E,
    }
