"""Objectives: training rows, batch and loss of a stage. One objective a file."""

from typing import Any

from unigap.objectives.base import Objective, Row, RowBatch, StepResult
from unigap.objectives.dpo import DPO, PairBatch
from unigap.objectives.grpo import GRPO, RewardedBatch, RewardedRow
from unigap.objectives.joint import Claims, ClaimSource, Joint, Replay, SwapNegatives
from unigap.objectives.kl_to_base import HeldBatch, HeldRow, KLToBase
from unigap.objectives.nft import NFT
from unigap.objectives.rewards import JudgeReward, Reward
from unigap.objectives.sft import SFT
from unigap.world import class_of_worlds

__all__ = [
    "DPO",
    "GRPO",
    "NFT",
    "SFT",
    "ClaimSource",
    "Claims",
    "HeldBatch",
    "HeldRow",
    "Joint",
    "JudgeReward",
    "KLToBase",
    "Objective",
    "PairBatch",
    "Replay",
    "Reward",
    "RewardedBatch",
    "RewardedRow",
    "Row",
    "RowBatch",
    "StepResult",
    "SwapNegatives",
]


def __getattr__(name: str) -> Any:
    return class_of_worlds(__name__, name)
