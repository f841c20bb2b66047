"""Untrained models of the embedded world, one file per family."""

from unigap.worlds.shapes.untrained.base import UntrainedModel
from unigap.worlds.shapes.untrained.emu3 import UntrainedEmu3
from unigap.worlds.shapes.untrained.janus import UntrainedJanus
from unigap.worlds.shapes.untrained.showo import UntrainedShowO
from unigap.worlds.shapes.untrained.vila_u import UntrainedVilaU

__all__ = ["UntrainedEmu3", "UntrainedJanus", "UntrainedModel", "UntrainedShowO", "UntrainedVilaU"]
