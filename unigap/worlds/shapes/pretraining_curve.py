"""Curve of generation and judging during pretraining, for the model card: how the gap arises, and what is forgotten."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from unigap.evaluation.gap import gap_scores, judge_scores, measure
from unigap.files.durable import write_durable
from unigap.files.markdown import table
from unigap.judges import SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.models.base import SamplingRecipe, UnifiedModel, evaluating
from unigap.prompt_sets.loading import load_prompts
from unigap.worlds.shapes.judge import OracleJudge
from unigap.worlds.shapes.pretrain_stage import PretrainStage

CURVE = "pretraining_curve.json"
COLUMNS = {
    "generation": "generation",
    "non_unification": "non-unification",
    "weak_generation": "weak-generation share",
    "judge_precision": "precision of yes",
    "judge_auroc": "AUROC",
}
"""Columns of the table in the card: names of the figures and their headings."""


class PretrainingCurve(Callback):
    """Measure the gap on validation prompts during pretraining.

    Prompts and sampling seeds are the same each time. A model that already draws is measured before the first step too,
    as step 0. The rows are written to ``pretraining_curve.json`` in the run
    folder. At the end, that file is also written beside the weights, and a table of the rows and the largest fall of
    generation accuracy are added to the model card.

    Args:
        every_n_steps: Steps between two measurements after the tokenizer's phase; the last step is measured too.
        per_cell: Maximum number of validation prompts of each (category, difficulty); null takes all.
        candidates: Images sampled for each prompt.
    """

    def __init__(self, every_n_steps: int = 400, per_cell: int | None = 20, candidates: int = 8) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be >= 1, got {every_n_steps}")
        self.every_n_steps, self.candidates = every_n_steps, candidates
        self.prompts = load_prompts("shapes", "validation", per_cell)
        self.rows: list[dict[str, Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the run is a pretraining."""
        if not isinstance(pl_module, PretrainStage):
            raise ValueError("PretrainingCurve measures the pretraining of PretrainStage; remove it from other runs")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure a model that starts from a checkpoint."""
        assert isinstance(pl_module, PretrainStage)
        if not self.rows and not pl_module.lessons.tokenizer_steps:
            self._add(trainer, pl_module, 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure every ``every_n_steps`` steps of the language model and after the last step."""
        assert isinstance(pl_module, PretrainStage)
        lessons = pl_module.lessons
        step = batch_idx + 1 - lessons.tokenizer_steps
        if step < 1 or (step % self.every_n_steps and batch_idx + 1 < len(lessons)):
            return
        self._add(trainer, pl_module, step)

    def _add(self, trainer: Trainer, stage: PretrainStage, step: int) -> None:
        self.rows.append({"step": step, **self._figures(stage.model)})
        if trainer.is_global_zero:
            self._write(Path(trainer.default_root_dir))

    def _write(self, folder: Path) -> None:
        write_durable(folder / CURVE, json.dumps(self.rows, indent=1).encode())

    @torch.no_grad()
    def _figures(self, model: UnifiedModel) -> dict[str, dict[str, Any]]:
        plan = RoundPlan(self.candidates, SamplingRecipe(cfg=model.usual_cfg))
        with evaluating(model):
            verdicts = measure(model, self.prompts, plan, SelfJudge(), OracleJudge())
        judged = judge_scores(verdicts.own_S, verdicts.right_S, verdicts.prompt_S)
        return {name: estimate.to_dict() for name, estimate in (gap_scores(verdicts) | judged).items()}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the curve to the model card, which the stage writes at the end of training."""
        assert isinstance(pl_module, PretrainStage)
        if pl_module.out is None:
            return
        card = pl_module.out / "README.md"
        trained = bool(self.rows) and self.rows[-1]["step"] == pl_module.lessons.trunk_steps
        if trainer.is_global_zero and trained and card.exists():
            text = card.read_text(encoding="utf-8").rstrip("\n")
            write_durable(card, f"{text}\n\n{self._section()}".encode())
            self._write(pl_module.out)

    def _section(self) -> str:
        fall = largest_fall([100 * row["generation"]["value"] for row in self.rows])
        images = len(self.prompts) * self.candidates
        return "\n".join(
            [
                "## Pretraining curve",
                "",
                f"Measured on {len(self.prompts)} validation prompts, {images} images, with the same seeds each time, "
                "in percent. Steps count from the end of the tokenizer's phase. AUROC is that of the model's own judge "
                "on its own images.",
                "",
                curve_table(self.rows),
                "",
                f"Largest fall of generation accuracy below an earlier measurement: {fall:.1f} points.",
                "",
            ]
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, so that a resumed run continues the curve."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows."""
        self.rows = state_dict["rows"]


def curve_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the curve as a Markdown table, in percent; a dash where no image counts."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    lines = [[row["step"], *(percent(row[name]["value"]) for name in COLUMNS)] for row in rows]
    return table(["step", *COLUMNS.values()], lines)


def largest_fall(values: Sequence[float]) -> float:
    """Return how far a value is below the largest earlier one, at most; 0 if the values never fall.

    >>> largest_fall([10, 30, 25, 40, 38])
    5
    """
    best, fall = float("-inf"), 0.0
    for value in values:
        best = max(best, value)
        fall = max(fall, best - value)
    return fall
