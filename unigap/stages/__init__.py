"""The training stages, one LightningModule a file."""

from unigap.stages.base import ImproveStage
from unigap.stages.curriculum import CurriculumStage, RedrawSchedule
from unigap.stages.dpo import DPOStage
from unigap.stages.pretrain import PretrainStage
from unigap.stages.sft import SFTStage

__all__ = ["CurriculumStage", "DPOStage", "ImproveStage", "PretrainStage", "RedrawSchedule", "SFTStage"]
