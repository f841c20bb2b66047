"""Learning dynamics during training: what first order predicts, what happens, and how the two branches are coupled."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from theory import Gram, Source, StepProbe, StepReport, alignment, gram
from unigap.callbacks.dynamics_coupling import coupling_by_part, layer_of, own_cosine_by_group
from unigap.callbacks.dynamics_log import keep_rows, log_figures, show_picture
from unigap.callbacks.dynamics_probes import GROUPS, WatchedImages, paired_sources, pick_probes
from unigap.loop.selection import threshold_logit
from unigap.models.base import evaluating
from unigap.report.plots import dynamics_plots as plots
from unigap.seeds import seed_of_part
from unigap.stages import ImproveStage
from unigap.stages.base import refuse_sharded

HEADS = ("generation", "understanding")


class Dynamics(Callback):
    """Watches a fixed set of the model's own drawings while it trains, and changes nothing by watching.

    The set holds true accepts, false accepts, true rejects and false rejects of the first round, by the judge that
    selects and the external one. Around every ``step_every``-th step the first-order prediction along the optimizer's
    real step (for SGD, Adam and AdamW split into current gradient, momentum and weight decay) is compared with the
    change measured, for the likelihood of the images (generation) and the log-odds of yes (understanding). Before the
    first step and after every ``gram_every``-th the kernel between the two is taken, with its permutation null. Numbers
    go to every logger; pictures to W&B and TensorBoard, and as PNG files beside ``dynamics.json`` into ``folder``.

    Args:
        folder: Where pictures and rows are kept; null is ``dynamics`` in the run folder.
        per_group: Most probes of each of the four groups.
        step_every: Steps between two predictions; 0 makes none.
        gram_every: Steps between two kernels; 0 takes only the first.
        permutations: Random re-pairings that make a null.
        seed: Draws the probes; null follows the run's seed.
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
        """Refuses runs in which no process holds the gradient of a whole weight."""
        refuse_sharded(trainer, "Dynamics")
        if stage == "fit" and isinstance(pl_module, ImproveStage) and pl_module.external is None:
            raise ValueError(
                "Dynamics groups images by the external judge's verdict and there is none; set "
                "model.init_args.external, or remove the callback"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Picks the probes from the first round, which is in the pool by now, and takes the first kernel."""
        if not isinstance(pl_module, ImproveStage) or not trainer.is_global_zero:
            return
        self._exact = pl_module.model.exact_likelihood
        self._probes = _probes_of_first_round(pl_module, self.per_group, self.seed)
        self._sources = paired_sources(pl_module.model, self._probes.candidates, pl_module.own_judge.questions)
        if not self.rows:
            names = [candidate.id for candidate in self._probes.candidates]
            self.rows.append({"kind": "probes", "step": 0, "ids": names, "groups": list(self._probes.groups)})
            self._look_at_kernel(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Takes a snapshot where this step is watched."""
        if self._probes is None or not self.step_every or (trainer.global_step + 1) % self.step_every:
            return
        assert isinstance(pl_module, ImproveStage)
        # fused attention has no forward mode
        self._watch = StepProbe(pl_module.model, optimizer, self._sources, method="reverse")
        self._watch.before()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compares prediction and measurement, and takes the kernel, where it is time."""
        if self._probes is None:
            return
        assert isinstance(pl_module, ImproveStage)
        if self._watch is not None:
            report, self._watch = self._watch.after(), None
            self._note_step(trainer, report)
        step, last = trainer.global_step, max(row["step"] for row in self.rows if row["kind"] == "kernel")
        if self.gram_every and step % self.gram_every == 0 and step > last:
            self._look_at_kernel(trainer, pl_module)

    def _note_step(self, trainer: Trainer, report: StepReport) -> None:
        assert self._probes is not None
        heads = {head: report.of(number) for number, head in enumerate(HEADS)}
        figures = {f"step_norm/{part}": length for part, length in report.step_norm.items()}
        for head, seen in heads.items():
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
        self._note(trainer, "step", figures, lists)
        title = f"step {trainer.global_step}"
        self._show(trainer, "prediction", plots.prediction_plot(predicted, measured, self._probes.groups, title))

    def _look_at_kernel(self, trainer: Trainer, stage: ImproveStage) -> None:
        assert self._probes is not None
        with evaluating(stage.model):
            taken = gram(stage.model, self._sources, per_module=True).regrouped(layer_of)
        taken = _on_cpu(taken)
        groups = {group: self._probes.members(group) for group in GROUPS}
        tests = dict(vars(alignment(taken, self.permutations)))
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
        self._note(trainer, "kernel", figures, values)
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

    def _note(self, trainer: Trainer, kind: str, figures: dict[str, float], values: dict[str, Any]) -> None:
        log_figures(
            trainer.loggers, {f"dynamics/{name}": value for name, value in figures.items()}, trainer.global_step
        )
        told = {name: value for name, value in figures.items() if math.isfinite(value)}
        if not self._exact:
            told["likelihood/estimate"] = 1.0
        self.rows.append({"kind": kind, "step": trainer.global_step, "figures": told, **values})
        keep_rows(self.folder, self.rows)

    def _show(self, trainer: Trainer, name: str, picture: Figure) -> None:
        show_picture(trainer.loggers, self.folder, name, picture, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, so that a resumed run measures from the same start."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the rows."""
        self.rows = state_dict["rows"]


def _probes_of_first_round(stage: ImproveStage, per_group: int, seed: int) -> WatchedImages:
    pool = stage.pool_data.open_pool(stage.model.codebook_digest(), create=False)
    bar = threshold_logit(stage.objective.threshold)
    assert stage.external is not None
    accepted = {name: logit >= bar for name, logit in pool.logits(stage.judge.name, upto=0).items()}
    right = {name: logit > 0 for name, logit in pool.logits(stage.external.name, upto=0).items()}
    judged = [c for c in pool.candidates(upto=0) if c.id in accepted and c.id in right]
    return pick_probes(judged, accepted, right, per_group, seed)


def _on_cpu(taken: Gram) -> Gram:
    parts = {name: part.cpu() for name, part in taken.parts.items()}
    return dataclasses.replace(taken, K=taken.K.cpu(), values=taken.values.cpu(), parts=parts)
