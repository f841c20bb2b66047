"""``unigap gap``: the gap of a checkpoint in one table."""

from __future__ import annotations

from tqdm import tqdm

from unigap.evaluation.gap import exam_scores, gap_by, gap_scores, measure, sit_exam
from unigap.judges import OracleJudge, SelfJudge
from unigap.metrics.gap_table import print_gap
from unigap.metrics.intervals import Estimate
from unigap.models.base import UnifiedModel
from unigap.output_files import write_figures
from unigap.prompts import load_prompts
from unigap.rounds import RoundPlan
from unigap.shapes.exam import shapes_exam

EXAM_PICTURES = 600


def measure_checkpoint(model: UnifiedModel, prompts: str, split: str, per_cell: int, plan: RoundPlan, out: str) -> None:
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
        exam = shapes_exam(split, EXAM_PICTURES, plan.seed)
        figures |= {name: {"all": value} for name, value in exam_scores(exam, sit_exam(model, exam, own)).items()}
    if out:  # before they are printed, so that a closed pipe loses nothing
        write_figures(out, {n: {group: e.to_dict() for group, e in found.items()} for n, found in figures.items()})
    print_gap(figures)
