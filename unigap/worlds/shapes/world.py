"""The embedded world, as the rest of the package uses it. Its classes are imported when they are asked for."""

from __future__ import annotations

from typing import Any

from unigap.world import World, imported
from unigap.worlds.shapes.prompt_sets import SPLITS, prompts

HERE = "unigap.worlds.shapes"


def pretraining(model: Any, lr: float, steps: int, seed: int) -> tuple[Any, Any]:
    """Return the stage and the data of recall, which goes on with the last phase of pretraining."""
    stage = imported(f"{HERE}.pretrain_stage.PretrainStage")(model=model, trunk_lr=lr, out="")
    return stage, imported(f"{HERE}.lesson_data.ShapesLessons")(tokenizer_steps=0, trunk_steps=steps, seed=seed)


WORLD = World(
    splits=tuple(SPLITS),
    prompts=prompts,
    external=lambda: imported(f"{HERE}.judge.OracleJudge")(),
    probe_source=lambda split, seed: imported(f"{HERE}.pairs.ShapesPairs")(split, seed),
    quiz=lambda: imported(f"{HERE}.quiz.ShapesQuiz")(),
    pretraining=pretraining,
    classes={
        "unigap.evaluation.probe_sources": (f"{HERE}.pairs.ShapesPairs",),
        "unigap.evaluation.quizzes": (f"{HERE}.quiz.ShapesQuiz",),
        "unigap.judges": (f"{HERE}.questions.GrammarQuestions", f"{HERE}.judge.OracleJudge"),
        "unigap.objectives.negatives": (f"{HERE}.negatives.ShapesNegatives",),
        "unigap.objectives": (f"{HERE}.contradictions.Contradictions",),
        "unigap.stages": (f"{HERE}.pretrain_stage.PretrainStage",),
    },
)
