"""Untrained models of the embedded world, one family a file."""

from unigap.shapes.newborns.base import Newborn
from unigap.shapes.newborns.emu3 import NewbornEmu3
from unigap.shapes.newborns.janus import NewbornJanus
from unigap.shapes.newborns.showo import NewbornShowO

__all__ = ["Newborn", "NewbornEmu3", "NewbornJanus", "NewbornShowO"]
