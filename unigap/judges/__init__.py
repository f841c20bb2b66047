"""Judges: log-odds that a generated image shows its prompt. One judge a file."""

from typing import Any

from unigap.judges.base import Judge, at_once, check_same_judge, check_speaks_at_once, judge_recipes
from unigap.judges.controls import AlwaysYesJudge, FlippedJudge, InvertedJudge, RandomJudge
from unigap.judges.decomposed import DecomposedJudge
from unigap.judges.early_check import EarlyCheck, check_early
from unigap.judges.ensemble import EnsembleJudge
from unigap.judges.human import HumanJudge
from unigap.judges.prompt_questions import PromptQuestions
from unigap.judges.question_file import QuestionFile
from unigap.judges.questions import Question, QuestionSource
from unigap.judges.self_judge import SelfJudge
from unigap.judges.vqa import VQAJudge
from unigap.world import class_of_worlds

__all__ = [
    "AlwaysYesJudge",
    "DecomposedJudge",
    "EarlyCheck",
    "EnsembleJudge",
    "FlippedJudge",
    "HumanJudge",
    "InvertedJudge",
    "Judge",
    "PromptQuestions",
    "Question",
    "QuestionFile",
    "QuestionSource",
    "RandomJudge",
    "SelfJudge",
    "VQAJudge",
    "at_once",
    "check_early",
    "check_same_judge",
    "check_speaks_at_once",
    "judge_recipes",
]


def __getattr__(name: str) -> Any:
    return class_of_worlds(__name__, name)
