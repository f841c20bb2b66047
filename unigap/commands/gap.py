"""``unigap gap``: the gap of a checkpoint in one table."""

from __future__ import annotations

import json
from pathlib import Path

from tqdm import tqdm

from unigap.evaluation.gap import exam_scores, gap_by, gap_scores, measure, sit_exam
from unigap.judges import OracleJudge, SelfJudge
from unigap.metrics.gap_table import print_gap
from unigap.metrics.intervals import Estimate
from unigap.models.base import UnifiedModel
from unigap.prompts import load_prompts
from unigap.rounds import RoundPlan
from unigap.shapes.exam import shapes_exam
from unigap.storage.manifest import write_durable

EXAM_PICTURES = 600


def measure_checkpoint(
    model: UnifiedModel, prompts: str, split: str, per_cell: int, plan: RoundPlan, out: str | None
) -> None:
    """Draws, judges, prints the table, and writes the figures as JSON where asked."""
    asked = load_prompts(prompts, split, per_cell)
    own = SelfJudge()
    with tqdm(total=len(asked) * plan.candidates, unit="image", desc="gap") as bar:
        verdicts = measure(model, asked, plan, own, OracleJudge(), bar.update)
    figures: dict[str, dict[str, Estimate]] = {name: {"all": value} for name, value in gap_scores(verdicts).items()}
    for attribute in ("category", "difficulty"):
        for group, found in gap_by(verdicts, attribute).items():
            for name, estimate in found.items():
                figures[name][group] = estimate
    if prompts == "shapes":
        exam = shapes_exam(split, EXAM_PICTURES, plan.sampling_seed)
        figures |= {name: {"all": value} for name, value in exam_scores(exam, sit_exam(model, exam, own)).items()}
    print_gap(figures)
    if out:
        rows = {name: {group: e.to_dict() for group, e in found.items()} for name, found in figures.items()}
        write_durable(Path(out), json.dumps(rows, indent=1).encode())
