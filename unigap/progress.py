"""How far into an epoch a run is."""

from __future__ import annotations

from typing import Any


def batches_behind(trainer: Any) -> int:
    """Batches of the present epoch that were trained on; none once the last one was, since the next epoch follows."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return 0 if progress.is_last_batch else int(progress.current.processed)
