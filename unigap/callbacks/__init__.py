"""Callbacks: what happens around the training loop."""

from unigap.callbacks.curve_log import CurveLog
from unigap.callbacks.dynamics import Dynamics
from unigap.callbacks.guard import Guard
from unigap.callbacks.pool_writer import PoolWriter
from unigap.callbacks.regrow import Regrow
from unigap.callbacks.row_log import RowLog
from unigap.callbacks.run_checkpoint import RunCheckpoint

__all__ = ["CurveLog", "Dynamics", "Guard", "PoolWriter", "Regrow", "RowLog", "RunCheckpoint"]
