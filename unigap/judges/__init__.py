"""Judges: who says whether a drawing is what was asked, one a file."""

from unigap.judges.base import Judge
from unigap.judges.controls import AlwaysYesJudge, FlippedJudge, InvertedJudge, RandomJudge
from unigap.judges.oracle import OracleJudge
from unigap.judges.self_judge import SelfJudge

__all__ = ["AlwaysYesJudge", "FlippedJudge", "InvertedJudge", "Judge", "OracleJudge", "RandomJudge", "SelfJudge"]
