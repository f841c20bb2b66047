"""Measure the gap before and after training, and write the files that ``unigap report`` reads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from unigap.callbacks.regrow import Regrow
from unigap.callbacks.run_checkpoint import run_checkpoint
from unigap.console.stop_signal import Stopped
from unigap.evaluation.gap import EVAL_ROUND, Verdicts, measure, probe_logits, rejudge
from unigap.evaluation.probe_set import ProbeSet
from unigap.files.durable import digest
from unigap.files.seals import write_sealed
from unigap.loop.plan import RoundPlan
from unigap.loop.ranks import ranks_of
from unigap.loop.sampling import SampledBatch, stack_drawings
from unigap.models.engine.sharding import whole
from unigap.prompt_sets.contamination import check_no_overlap
from unigap.prompt_sets.loading import load_prompts
from unigap.records import Candidate
from unigap.report.run_folder.measured import AFTER_TRAINING
from unigap.report.run_folder.writing import (
    Measurement,
    run_figures,
    samples_of,
    versions,
    write_gallery,
    write_rejudged,
)
from unigap.seeds import seed_of_part
from unigap.stages import ImproveStage
from unigap.world import find_world

# Shape legend: S samples, E statements of the probe set.

RESUMING = ("--resume", "--ckpt_path")
BEFORE, AFTER = "gap_before", "gap_after"


class RunSummary(Callback):
    """Sample images for test prompts before the first step and after the last, and write what has changed.

    Writes ``summary.json``, ``gallery.json``, ``rejudged.json`` and their images into the run folder. Training is not
    affected.

    Args:
        folder: Folder of the files; empty measures nothing. Null is the run folder if ``prompts`` are given, and
            measures nothing otherwise.
        prompts: Test prompts, as in ``PoolData``; none of them may be trained on. Null takes the evaluation prompts
            of the run if a ``folder`` is given.
        split: Split of the prompts.
        per_cell: Maximum number of prompts for each (category, difficulty).
        plan: Sampling plan; null samples 4 images a prompt.
        exam: Number of images in the probe set for understanding, if the prompts are a world's.
        exam_seed: Seed of the probe set; null follows the run's seed.
        gallery: Number of prompts shown before and after training.
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
        self.folder, self.plan, self.gallery = folder, (plan or RoundPlan(4)).seeded("test"), gallery
        self.source, self.split, self.per_cell, self.pictures = prompts or "", split, per_cell, exam
        self.exam_seed = seed_of_part("test probe set", exam_seed)
        self.command: Sequence[str] = ()
        self.model = ""
        self.recipe: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.result: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._began: float | None = None

    def describe(self, model: str, recipe: dict[str, Any]) -> None:
        """Set the model and the recipe that the report names.

        Args:
            model: Name or folder of the initial model.
            recipe: Settings by name, as plain JSON.
        """
        self.model, self.recipe = model, recipe

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load prompts and probe set, and refuse prompts that are trained on."""
        if stage != "fit" or not self.folder or not isinstance(pl_module, ImproveStage):
            return
        source = self.source or pl_module.pool_data.eval_source
        self.prompts = load_prompts(source, self.split, self.per_cell)
        check_no_overlap(pl_module.pool_data.prompts, self.prompts)
        self.probe_set: ProbeSet | None = None
        world = find_world(source)
        if world and self.pictures:
            self.probe_set = world.probe_source(self.split, self.exam_seed).load(self.pictures)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the model before training; a resumed run keeps its first figures."""
        if not self._measures(trainer) or not isinstance(pl_module, ImproveStage):
            return
        key = self._key()
        if self._before and self._before["key"] != key:
            raise ValueError("RunSummary: this run began with other prompts or another plan; resume it with the same")
        if not self._before:
            if trainer.global_step:
                raise ValueError("RunSummary: this run began unmeasured; resume it with an empty folder for it")
            before: dict[str, Any] = {"key": key}
            with self._working(trainer, pl_module, BEFORE) as at_work:
                if at_work:
                    before |= _kept(self._measure(trainer, pl_module, "gap before"))
            self._before = before
        self._began = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the trained model and write the files."""
        if not self._measures(trainer) or not isinstance(pl_module, ImproveStage):
            return
        self.seconds = self._seconds_so_far()
        with self._working(trainer, pl_module, AFTER) as at_work:
            if not at_work:
                return
            after = self._measure(trainer, pl_module, "gap after")
            before = self._restore_before(pl_module)
            again_S = rejudge(pl_module.model, before.verdicts, pl_module.own_judge)
            weights = pl_module.model.weights_digest()
        self._write(trainer, pl_module, before, after, again_S, weights)

    @contextmanager
    def _working(self, trainer: Trainer, stage: ImproveStage, phase: str) -> Iterator[bool]:
        """Time the body and gather whole weights for it; yield whether this process measures."""
        start, checkpoint = time.perf_counter(), run_checkpoint(trainer)
        stopped: Stopped | None = None
        with ranks_of(trainer).together():  # the others wait here for as long as it takes
            try:
                with trainer.precision_plugin.forward_context(), whole(stage.model):
                    yield trainer.is_global_zero
            except Stopped as asked:
                stopped = asked
        if checkpoint and phase == BEFORE:  # one process measures; the others would train without it
            checkpoint.obey(trainer)
        elif checkpoint:
            checkpoint.stop.check()
        if stopped:
            raise stopped
        self.seconds[phase] = round(time.perf_counter() - start, 2)

    def _measure(self, trainer: Trainer, stage: ImproveStage, title: str) -> Measurement:
        checkpoint = run_checkpoint(trainer)

        def stop_if_asked(images: int) -> None:
            if checkpoint:
                checkpoint.stop.check()

        judges = (stage.own_judge, stage.external)
        verdicts = measure(stage.model, self.prompts, self.plan, *judges, stop_if_asked, title)
        probed = probe_logits(stage.model, self.probe_set, stage.own_judge) if self.probe_set else None
        return Measurement(verdicts, probed)

    def _restore_before(self, stage: ImproveStage) -> Measurement:
        """Restore the measurement before training; its images are decoded again, because the decoder is frozen."""
        kept, n = self._before, self.plan.candidates
        rows = zip(kept["seeds"], kept["drawings_S"].numpy(), kept["logps"], strict=True)
        candidates = [
            Candidate(self.prompts[s // n], EVAL_ROUND, s % n, seed, drawing, logp)
            for s, (seed, drawing, logp) in enumerate(rows)
        ]
        parts = torch.split(stack_drawings(candidates).to(stage.device), self.plan.images_per_batch)
        pixels = [stage.model.decode(part).cpu() for part in parts]
        prompt_S = torch.arange(len(self.prompts)).repeat_interleave(n)
        sampled = SampledBatch(candidates, torch.cat(pixels))
        return Measurement(Verdicts(self.prompts, sampled, prompt_S, kept["own_S"], kept["right_S"]), kept["answers_E"])

    def _measured_on(self, stage: ImproveStage, weights: str) -> dict[str, Any]:
        """Return what the figures were measured on, so that only like is compared with like."""
        return {
            "figures": AFTER_TRAINING,
            "prompts": self.source,
            "split": self.split,
            "per_cell": self.per_cell,
            "prompts_sha256": digest("\n".join(prompt.text for prompt in self.prompts).encode()),
            "candidates": self.plan.candidates,
            "sampling": dataclasses.asdict(self.plan.sampling),
            "seed": self.plan.seed,
            "judge": stage.own_judge.recipe,
            "external": stage.external.recipe if stage.external else None,
            "exam": self.pictures if self.probe_set else 0,
            "weights": weights,
        }

    def _write(
        self,
        trainer: Trainer,
        stage: ImproveStage,
        before: Measurement,
        after: Measurement,
        again_S: torch.Tensor,
        weights: str,
    ) -> None:
        folder = Path(self.folder or "")
        self.result = {
            "seed": stage.pool_data.seed,
            "model": self.model or type(stage.model).__name__,
            **run_figures(before, after, again_S, self.probe_set),
            "steps": trainer.global_step,
            "rounds": _rounds(trainer),
            "wall_seconds": self.seconds,
            "command": command_of(self.command),
            "versions": versions(),
            "recipe": self.recipe,
            "measured_on": self._measured_on(stage, weights),
            "samples": dataclasses.asdict(samples_of(before, after, again_S, self.probe_set)),
        }
        write_gallery(folder, before.verdicts, after.verdicts, self.gallery)
        write_rejudged(folder, before.verdicts, again_S)
        # written last, so that a summary implies the other files
        write_sealed(folder / "summary.json", json.dumps(self.result, indent=1).encode())

    def _measures(self, trainer: Trainer) -> bool:
        """Return whether anything is measured: not without a folder, and not under ``fast_dev_run``."""
        return bool(self.folder) and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _key(self) -> str:
        plan = dataclasses.replace(self.plan, images_per_batch=1)  # affects speed only
        measured = ([prompt.text for prompt in self.prompts], plan, self.pictures, self.exam_seed)
        return hashlib.sha256(repr(measured).encode()).hexdigest()

    def _seconds_so_far(self) -> dict[str, float]:
        if self._began is None:
            return self.seconds
        trained = self.seconds.get("self_improvement", 0.0) + time.perf_counter() - self._began
        return self.seconds | {"self_improvement": round(trained, 2)}

    def state_dict(self) -> dict[str, Any]:
        """Return the first measurement, and the time taken since."""
        return {"before": self._before, "seconds": self._seconds_so_far()} if self._before else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the first measurement."""
        if "codes_SM" in state_dict["before"]:
            raise ValueError(
                "RunSummary: this run began with an earlier version, whose images before training are lost"
            )
        self._before, self.seconds = state_dict["before"], state_dict["seconds"]


def command_of(words: Sequence[str]) -> str:
    """Return the command that repeats a run, without the options that resume it.

    >>> command_of(["fit", "--config", "sft.yaml", "--resume", "must", "--data.seed", "3"])
    'unigap fit --config sft.yaml --data.seed 3'
    """
    kept, skip = ["unigap"], False
    for word in words:
        option = word.partition("=")[0]
        if not skip and option not in RESUMING:
            kept.append(word)
        skip = word in RESUMING
    return shlex.join(kept)


def _rounds(trainer: Trainer) -> list[dict[str, int]]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [row for callback in callbacks if isinstance(callback, Regrow) for row in callback.counts]


def _kept(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement as tensors and plain values, small enough for every checkpoint."""
    verdicts = measurement.verdicts
    drawn = verdicts.sampled.candidates
    return {
        "drawings_S": torch.from_numpy(np.stack([candidate.drawing for candidate in drawn])),
        "seeds": [candidate.seed for candidate in drawn],
        "logps": [candidate.logp for candidate in drawn],
        "own_S": verdicts.own_S,
        "right_S": verdicts.right_S,
        "answers_E": measurement.answers_E,
    }
