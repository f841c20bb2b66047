"""Run ``unigap`` and kill its process in the first training step of an epoch.

Run ``python -m benchmarks.killed_run EPOCH fit ...``; the first epoch is 0.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from unigap.__main__ import main
from unigap.stages.base import ImproveStage


def kill_in(epoch: int) -> None:
    """Let training kill this process, as a lost machine does: nothing is saved and no handler runs."""
    step = ImproveStage.training_step

    def doomed(stage: Any, *args: Any, **options: Any) -> Any:
        if stage.current_epoch == epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(stage, *args, **options)

    ImproveStage.training_step = doomed  # type: ignore[method-assign]


if __name__ == "__main__":
    kill_in(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
