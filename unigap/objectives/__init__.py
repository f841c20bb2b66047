"""What a stage learns from the pool, one objective a file."""

from unigap.objectives.base import Objective, Row, RowBatch, StepResult
from unigap.objectives.contradictions import Contradictions
from unigap.objectives.dpo import DPO, PairBatch
from unigap.objectives.joint import Joint, Quiz, QuizSource, Replay, SwapNegatives
from unigap.objectives.kl_to_base import HeldBatch, HeldRow, KLToBase
from unigap.objectives.sft import SFT

__all__ = [
    "DPO",
    "SFT",
    "Contradictions",
    "HeldBatch",
    "HeldRow",
    "Joint",
    "KLToBase",
    "Objective",
    "PairBatch",
    "Quiz",
    "QuizSource",
    "Replay",
    "Row",
    "RowBatch",
    "StepResult",
    "SwapNegatives",
]
