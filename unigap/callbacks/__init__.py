"""Callbacks: what happens around the training loop."""

from unigap.callbacks.curve_log import CurveLog
from unigap.callbacks.pool_writer import PoolWriter
from unigap.callbacks.regrow import Regrow
from unigap.callbacks.row_log import RowLog

__all__ = ["CurveLog", "PoolWriter", "Regrow", "RowLog"]
