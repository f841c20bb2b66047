"""Two processes whose group has a time-out of 5 s: ``python patient_ranks.py CHECKPOINT FOLDER PORT``.

The first takes longer than that to measure, the second to load a judge.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from small_runs import SUMMARY, improve

from unigap.judges import RandomJudge
from unigap.models.base import UnifiedModel
from unigap.records import Candidate

SLOW = 8
"""Seconds."""


class SlowJudge(RandomJudge):
    """A judge that takes long to load, when a process asks it first."""

    loaded = False

    def logits(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        if not SlowJudge.loaded:
            SlowJudge.loaded = True
            time.sleep(SLOW * (1 + int(os.environ["RANK"])))
        return super().logits(model, candidates, pixels_BCHW)


FLAGS = {
    **SUMMARY,
    "summary.folder": "measured",
    "summary.exam": 0,
    "data.exam_pictures": 0,
    "regrow.plan.candidates": 2,
    "model.init_args.judge": "unigap.judges.RandomJudge",
    "model.init_args.external": "patient_ranks.SlowJudge",
    "trainer.devices": 2,
    "trainer.max_epochs": 1,
    "trainer.limit_val_batches": 0,
    "trainer.strategy": "lightning.pytorch.strategies.DDPStrategy",
    "trainer.strategy.timeout": "0:00:05",
}


def main(checkpoint: str, folder: str, port: str) -> int:
    os.chdir(folder)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    # one import for both
    child = os.fork()
    os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), "0" if child else "1")
    status = improve(Path(checkpoint), "sft", FLAGS)
    if not child:
        os._exit(status)
    return status or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(*sys.argv[1:]))
