"""Objectives: training rows, batch and loss of a stage. One objective a file."""

from typing import Any

from unigap.objectives.base import Objective, Row, RowBatch, StepResult
from unigap.objectives.dpo import DPO, PairBatch
from unigap.objectives.joint import Claims, ClaimSource, Joint, Replay, SwapNegatives
from unigap.objectives.kl_to_base import HeldBatch, HeldRow, KLToBase
from unigap.objectives.sft import SFT
from unigap.world import class_of_worlds

__all__ = [
    "DPO",
    "SFT",
    "ClaimSource",
    "Claims",
    "HeldBatch",
    "HeldRow",
    "Joint",
    "KLToBase",
    "Objective",
    "PairBatch",
    "Replay",
    "Row",
    "RowBatch",
    "StepResult",
    "SwapNegatives",
]


def __getattr__(name: str) -> Any:
    return class_of_worlds(__name__, name)
