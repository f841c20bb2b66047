"""The training stages, one LightningModule a file."""

from typing import Any

from unigap.loop.schedule import RedrawSchedule
from unigap.stages.base import ImproveStage
from unigap.stages.curriculum import CurriculumStage
from unigap.stages.dpo import DPOStage
from unigap.stages.grpo import GRPOStage
from unigap.stages.lr_schedule import Constant, Cosine, LRSchedule, WarmupStableDecay
from unigap.stages.sft import SFTStage
from unigap.world import class_of_worlds

__all__ = [
    "Constant",
    "Cosine",
    "CurriculumStage",
    "DPOStage",
    "GRPOStage",
    "ImproveStage",
    "LRSchedule",
    "RedrawSchedule",
    "SFTStage",
    "WarmupStableDecay",
]


def __getattr__(name: str) -> Any:
    return class_of_worlds(__name__, name)
