"""Judges: log-odds that a generated image shows its prompt. One judge a file."""

from typing import Any

from unigap.judges.base import Judge, check_immediate, check_same_judge, immediate, judge_recipes
from unigap.judges.clip_score import ClipScoreJudge
from unigap.judges.controls import AlwaysYesJudge, FlippedJudge, InvertedJudge, RandomJudge
from unigap.judges.critique import CritiqueJudge
from unigap.judges.decomposed import DecomposedJudge
from unigap.judges.early_check import EarlyCheck, check_early
from unigap.judges.ensemble import EnsembleJudge
from unigap.judges.human import HumanJudge
from unigap.judges.mixture import MixtureJudge
from unigap.judges.openai_judge import OpenAIJudge
from unigap.judges.phrasings import PhrasingsJudge
from unigap.judges.prompt_questions import PromptQuestions
from unigap.judges.question_file import QuestionFile
from unigap.judges.questions import Question, QuestionSource
from unigap.judges.rubric import RubricJudge
from unigap.judges.self_judge import SelfJudge
from unigap.judges.stored import StoredJudge
from unigap.judges.vqa import VQAJudge
from unigap.world import class_of_worlds

__all__ = [
    "AlwaysYesJudge",
    "ClipScoreJudge",
    "CritiqueJudge",
    "DecomposedJudge",
    "EarlyCheck",
    "EnsembleJudge",
    "FlippedJudge",
    "HumanJudge",
    "InvertedJudge",
    "Judge",
    "MixtureJudge",
    "OpenAIJudge",
    "PhrasingsJudge",
    "PromptQuestions",
    "Question",
    "QuestionFile",
    "QuestionSource",
    "RandomJudge",
    "RubricJudge",
    "SelfJudge",
    "StoredJudge",
    "VQAJudge",
    "check_early",
    "check_immediate",
    "check_same_judge",
    "immediate",
    "judge_recipes",
]


def __getattr__(name: str) -> Any:
    return class_of_worlds(__name__, name)
