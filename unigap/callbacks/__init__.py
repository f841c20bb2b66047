"""Lightning callbacks: measurements, logs and checkpoints around the training loop."""

from unigap.callbacks.artifacts import Artifacts
from unigap.callbacks.curve_log import CurveLog
from unigap.callbacks.dynamics import Dynamics
from unigap.callbacks.gallery import Gallery
from unigap.callbacks.guard import Guard
from unigap.callbacks.pool_writer import PoolWriter
from unigap.callbacks.regrow import Regrow
from unigap.callbacks.retention import Retention
from unigap.callbacks.row_log import RowLog
from unigap.callbacks.run_checkpoint import RunCheckpoint
from unigap.callbacks.run_summary import RunSummary
from unigap.callbacks.weight_ema import WeightEMA

__all__ = [
    "Artifacts",
    "CurveLog",
    "Dynamics",
    "Gallery",
    "Guard",
    "PoolWriter",
    "Regrow",
    "Retention",
    "RowLog",
    "RunCheckpoint",
    "RunSummary",
    "WeightEMA",
]
