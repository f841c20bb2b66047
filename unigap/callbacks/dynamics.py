"""Learning dynamics during training: first-order predictions, measured changes, and the coupling of the branches."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from theory import Gram, Source, StepProbe, StepReport, gram
from unigap.callbacks.dynamics_coupling import coupling_by_part, coupling_tests, layer_of, own_cosine_by_group
from unigap.callbacks.dynamics_log import keep_rows, log_figures, show_picture
from unigap.callbacks.dynamics_probes import GROUPS, WatchedImages, paired_sources, pick_probes
from unigap.loop.ranks import ranks_of
from unigap.loop.selection import threshold_logit
from unigap.models.base import evaluating
from unigap.report.plots import dynamics_plots as plots
from unigap.seeds import seed_of_part
from unigap.stages import ImproveStage
from unigap.stages.sharded import refuse_sharded

HEADS = ("generation", "understanding")


class Dynamics(Callback):
    """Measure learning dynamics on a fixed set of the model's own images; training is not affected.

    The images (probes) are true accepts, false accepts, true rejects and false rejects of the first round, by the
    selecting judge and the external judge. Every ``step_every`` steps the first-order prediction along the optimizer's
    actual step (for SGD, Adam and AdamW split into current gradient, momentum and weight decay) is compared with the
    measured change, for the likelihood of the images (generation) and the log-odds of yes (understanding). Before the
    first step and every ``gram_every`` steps the kernel between the two is computed, with its permutation null. Numbers
    go to every logger; plots go to W&B and TensorBoard, and into ``folder`` as PNG files together with
    ``dynamics.json``.

    Args:
        folder: Folder for plots and rows; null is ``dynamics`` in the run folder.
        per_group: Maximum number of probes in each of the four groups.
        step_every: Steps between two predictions; 0 turns them off.
        gram_every: Steps between two kernels; 0 computes only the first.
        permutations: Number of random re-pairings for a null distribution.
        seed: Seed that samples the probes; null follows the run's seed.
    """

    def __init__(
        self,
        folder: str | None = None,
        per_group: int = 8,
        step_every: int = 20,
        gram_every: int = 100,
        permutations: int = 500,
        seed: int | None = None,
    ) -> None:
        for name, value, least in (
            ("per_group", per_group, 1),
            ("step_every", step_every, 0),
            ("gram_every", gram_every, 0),
            ("permutations", permutations, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        self.folder, self.per_group, self.permutations = Path(folder or "dynamics"), per_group, permutations
        self.seed = seed_of_part("dynamics", seed)
        self.step_every, self.gram_every = step_every, gram_every
        self.rows: list[dict[str, Any]] = []
        self._probes: WatchedImages | None = None
        self._sources: list[Source] = []
        self._watch: StepProbe | None = None
        self._exact = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse runs with sharded gradients, and runs without an external judge."""
        refuse_sharded(trainer, "Dynamics")
        if stage == "fit" and isinstance(pl_module, ImproveStage) and pl_module.external is None:
            raise ValueError(
                "Dynamics groups images by the external judge's verdict and there is none; set "
                "model.init_args.external, or remove the callback"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pick the probes from the first round of the pool, and compute the first kernel."""
        if not isinstance(pl_module, ImproveStage):
            return
        with ranks_of(trainer).together():  # the others wait here for as long as it takes
            if trainer.is_global_zero:
                self._begin(trainer, pl_module)

    def _begin(self, trainer: Trainer, pl_module: ImproveStage) -> None:
        self._exact = pl_module.model.exact_likelihood
        self._probes = _probes_of_first_round(pl_module, self.per_group, self.seed)
        self._sources = paired_sources(pl_module.model, self._probes.candidates, pl_module.own_judge.questions)
        if not self.rows:
            names = [candidate.id for candidate in self._probes.candidates]
            self.rows.append({"kind": "probes", "step": 0, "ids": names, "groups": list(self._probes.groups)})
            self._measure_kernel(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take a snapshot if this step is measured."""
        if self._probes is None or not self.step_every or (trainer.global_step + 1) % self.step_every:
            return
        assert isinstance(pl_module, ImproveStage)
        # fused attention has no forward mode
        self._watch = StepProbe(pl_module.model, optimizer, self._sources, method="reverse")
        self._watch.before()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare prediction and measurement, and compute the kernel, at the steps that ask for it."""
        intervals = (self.step_every, self.gram_every)
        if not isinstance(pl_module, ImproveStage) or not any(n and trainer.global_step % n == 0 for n in intervals):
            return
        with ranks_of(trainer).together():
            if self._probes is not None:
                self._measure(trainer, pl_module)

    def _measure(self, trainer: Trainer, stage: ImproveStage) -> None:
        if self._watch is not None:
            report, self._watch = self._watch.after(), None
            self._record_step(trainer, report)
        step, last = trainer.global_step, max(row["step"] for row in self.rows if row["kind"] == "kernel")
        if self.gram_every and step % self.gram_every == 0 and step > last:
            self._measure_kernel(trainer, stage)

    def _record_step(self, trainer: Trainer, report: StepReport) -> None:
        assert self._probes is not None
        heads = {head: report.of(number) for number, head in enumerate(HEADS)}
        figures = {f"step_norm/{part}": length for part, length in report.step_norm.items()}
        for head, seen in heads.items():
            if seen.predicted.any() or seen.measured.any():  # a head that no trained weight reaches has no fit
                figures |= {f"fit/{head}/{name}": value for name, value in dataclasses.asdict(seen.fit()).items()}
            figures |= {f"part/{head}/{name}": float(part.abs().mean()) for name, part in seen.parts.items()}
            for group in GROUPS:
                members = self._probes.members(group)
                if members:
                    figures[f"change/{head}/{group.replace(' ', '_')}"] = float(seen.measured[members].mean())
        predicted = {head: seen.predicted.cpu() for head, seen in heads.items()}
        measured = {head: seen.measured.cpu() for head, seen in heads.items()}
        lists = {
            head: {"predicted": predicted[head].tolist(), "measured": measured[head].tolist()}
            | {part: change.tolist() for part, change in seen.parts.items()}
            for head, seen in heads.items()
        }
        self._record(trainer, "step", figures, lists)
        title = f"step {trainer.global_step}"
        self._show(trainer, "prediction", plots.prediction_plot(predicted, measured, self._probes.groups, title))

    def _measure_kernel(self, trainer: Trainer, stage: ImproveStage) -> None:
        assert self._probes is not None
        with evaluating(stage.model):
            taken = gram(stage.model, self._sources, per_module=True).regrouped(layer_of)
        taken = _on_cpu(taken)
        groups = {group: self._probes.members(group) for group in GROUPS}
        tests = coupling_tests(taken, self.permutations)
        tests |= {
            f"own_cosine/{group.replace(' ', '_')}": tested
            for group, tested in own_cosine_by_group(taken, groups, self.permutations).items()
        }
        figures: dict[str, float] = {}
        for name, tested in tests.items():
            figures |= {f"{name}/value": tested.value, f"{name}/null": tested.null_mean, f"{name}/p": tested.p_value}
        parts = coupling_by_part(taken)
        figures |= {f"part/{name.replace(' ', '_')}": tested.value for name, tested in parts.items()}
        n = len(self._probes.groups)
        values = {"generation": taken.values[:n].tolist(), "understanding": taken.values[n:].tolist()}
        change = self._since_start(values)
        sign = 2.0 * self._probes.right_P.double() - 1.0
        towards = torch.stack([sign * change[head] for head in HEADS])
        figures |= {
            "co_improve": float((towards > 0).all(0).double().mean()),
            "co_degrade": float((towards < 0).all(0).double().mean()),
        }
        self._record(trainer, "kernel", figures, values)
        nulls = {name: (tested.null_mean, tested.null_std) for name, tested in parts.items()}
        self._show(trainer, "coupling", plots.coupling_plot({name: t.value for name, t in parts.items()}, nulls))
        self._show(trainer, "kernel", plots.heatmap(taken.cosines(), taken.sizes, HEADS))
        if trainer.global_step:
            changes = (change["generation"], change["understanding"])
            self._show(trainer, "quadrants", plots.quadrant_plot(*changes, self._probes.right_P, self._probes.groups))

    def _since_start(self, values: dict[str, list[float]]) -> dict[str, torch.Tensor]:
        first = next((row for row in self.rows if row["kind"] == "kernel"), values)
        return {
            head: torch.tensor(values[head], dtype=torch.float64) - torch.tensor(first[head], dtype=torch.float64)
            for head in HEADS
        }

    def _record(self, trainer: Trainer, kind: str, figures: dict[str, float], values: dict[str, Any]) -> None:
        log_figures(
            trainer.loggers, {f"dynamics/{name}": value for name, value in figures.items()}, trainer.global_step
        )
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        if not self._exact:
            finite["likelihood/estimate"] = 1.0
        self.rows.append({"kind": kind, "step": trainer.global_step, "figures": finite, **values})
        keep_rows(self.folder, self.rows)

    def _show(self, trainer: Trainer, name: str, picture: Figure) -> None:
        show_picture(trainer.loggers, self.folder, name, picture, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, so that a resumed run measures from the same start."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows."""
        self.rows = state_dict["rows"]


def _probes_of_first_round(stage: ImproveStage, per_group: int, seed: int) -> WatchedImages:
    pool = stage.pool_data.open_pool(stage.model.drawing_digest(), create=False)
    cut = threshold_logit(stage.objective.threshold)
    assert stage.external is not None
    accepted = {name: logit >= cut for name, logit in pool.logits(stage.judge.name, upto=0).items()}
    right = {name: logit > 0 for name, logit in pool.logits(stage.external.name, upto=0).items()}
    judged = [c for c in pool.candidates(upto=0) if c.id in accepted and c.id in right]
    return pick_probes(judged, accepted, right, per_group, seed)


def _on_cpu(taken: Gram) -> Gram:
    parts = {name: part.cpu() for name, part in taken.parts.items()}
    return dataclasses.replace(taken, K=taken.K.cpu(), values=taken.values.cpu(), parts=parts)
