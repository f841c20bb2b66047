"""Judges: who says whether a drawing is what was asked, one a file."""

from unigap.judges.base import Judge, at_once, check_same_judge, judge_recipes
from unigap.judges.controls import AlwaysYesJudge, FlippedJudge, InvertedJudge, RandomJudge
from unigap.judges.decomposed import DecomposedJudge
from unigap.judges.ensemble import EnsembleJudge
from unigap.judges.human import HumanJudge
from unigap.judges.oracle import OracleJudge
from unigap.judges.prompt_questions import PromptQuestions
from unigap.judges.question_file import QuestionFile
from unigap.judges.questions import GrammarQuestions, Question, QuestionSource
from unigap.judges.self_judge import SelfJudge
from unigap.judges.vqa import VQAJudge

__all__ = [
    "AlwaysYesJudge",
    "DecomposedJudge",
    "EnsembleJudge",
    "FlippedJudge",
    "GrammarQuestions",
    "HumanJudge",
    "InvertedJudge",
    "Judge",
    "OracleJudge",
    "PromptQuestions",
    "Question",
    "QuestionFile",
    "QuestionSource",
    "RandomJudge",
    "SelfJudge",
    "VQAJudge",
    "at_once",
    "check_same_judge",
    "judge_recipes",
]
