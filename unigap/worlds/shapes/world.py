"""The embedded world, as the rest of the package uses it."""

from __future__ import annotations

from unigap.world import World
from unigap.worlds.shapes.contradictions import Contradictions
from unigap.worlds.shapes.judge import OracleJudge
from unigap.worlds.shapes.negatives import ShapesNegatives
from unigap.worlds.shapes.pairs import ShapesPairs
from unigap.worlds.shapes.pretrain_stage import PretrainStage
from unigap.worlds.shapes.prompt_sets import SPLITS, prompts
from unigap.worlds.shapes.questions import GrammarQuestions
from unigap.worlds.shapes.quiz import ShapesQuiz

WORLD = World(
    splits=tuple(SPLITS),
    prompts=prompts,
    external=OracleJudge,
    probe_source=ShapesPairs,
    quiz=ShapesQuiz,
    classes={
        "unigap.evaluation.probe_sources": (ShapesPairs,),
        "unigap.evaluation.quizzes": (ShapesQuiz,),
        "unigap.judges": (GrammarQuestions, OracleJudge),
        "unigap.objectives.negatives": (ShapesNegatives,),
        "unigap.objectives": (Contradictions,),
        "unigap.stages": (PretrainStage,),
    },
)
