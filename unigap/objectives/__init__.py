"""What a stage learns from the pool, one objective a file."""

from unigap.objectives.base import Objective, Row, RowBatch, StepResult
from unigap.objectives.dpo import DPO
from unigap.objectives.joint import Joint, Quiz, QuizSource, Replay, SwapNegatives
from unigap.objectives.sft import SFT

__all__ = [
    "DPO",
    "SFT",
    "Joint",
    "Objective",
    "Quiz",
    "QuizSource",
    "Replay",
    "Row",
    "RowBatch",
    "StepResult",
    "SwapNegatives",
]
