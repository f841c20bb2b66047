"""The embedded world as the rest of the package sees it."""

from __future__ import annotations

from unigap.shapes.contradictions import Contradictions
from unigap.shapes.exam import shapes_exam
from unigap.shapes.judge import OracleJudge
from unigap.shapes.negatives import ShapesNegatives
from unigap.shapes.pairs import ShapesPairs
from unigap.shapes.pretrain_stage import PretrainStage
from unigap.shapes.prompt_sets import SPLITS, prompts
from unigap.shapes.questions import GrammarQuestions
from unigap.shapes.quiz import ShapesQuiz
from unigap.world import World

WORLD = World(
    splits=tuple(SPLITS),
    prompts=prompts,
    external=OracleJudge,
    known_pairs=ShapesPairs,
    exam=shapes_exam,
    quiz=ShapesQuiz,
    classes={
        "unigap.evaluation.known_pairs": (ShapesPairs,),
        "unigap.evaluation.quizzes": (ShapesQuiz,),
        "unigap.judges": (GrammarQuestions, OracleJudge),
        "unigap.negatives": (ShapesNegatives,),
        "unigap.objectives": (Contradictions,),
        "unigap.stages": (PretrainStage,),
    },
)
