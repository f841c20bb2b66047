"""One of two processes that kill and continue runs together: ``python two_ranks.py CHECKPOINT FOLDER STAGE...``.

What it finds goes to ``FOLDER/rank-K.json``: for each stage and kill point, and for each stage that signals stop, where
the continued run differs from the uninterrupted one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import torch
from kill_points import EXACT, copy_at_kill_points, differences, left_behind, points_of, run_stopped, signals_of
from small_runs import improve

TWO = {**EXACT, "trainer.devices": 2, "trainer.strategy": "ddp"}
# only the first process comes to these: what the second one sees is tested where one process is killed
FIRST_ONLY = ("pool commit", "commit of a later round", "checkpoint write")


def in_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)


def copy_together(source: Path, target: Path) -> None:
    """Copy the files of a run while both processes are at the same kill point."""
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        shutil.copytree(source, target)
    torch.distributed.barrier()


def main(checkpoint: Path, folder: Path, stages: list[str]) -> None:
    in_folder(folder / "idle")
    assert improve(checkpoint, "sft", {**TWO, "model.init_args.model.init_args.train_also": "aligner"}) == 2
    found: dict[str, list[str]] = {}
    for stage in stages:
        names = [name for name in points_of(stage) if name not in FIRST_ONLY]
        whole = copy_at_kill_points(checkpoint, stage, folder / stage, TWO, names, copy_together)
        for name in names:
            os.chdir(folder / stage / name)
            assert improve(checkpoint, stage, {**TWO, "resume": "auto"}) == 0
            found[f"{stage}: {name}"] = differences(left_behind(stage), whole)
        *first, last = signals_of(stage)
        for signals in (first, [last]):  # the second epoch has two batches, room for one signal
            in_folder(folder / stage / signals[-1])
            for name in signals:
                run_stopped(checkpoint, stage, name, TWO)
            assert improve(checkpoint, stage, {**TWO, "resume": "auto"}) == 0
            found[f"{stage}: {', '.join(signals)}"] = differences(left_behind(stage), whole)
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
