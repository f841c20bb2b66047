"""Emu3."""

from unigap.models.emu3.model import Emu3 as Emu3
