"""One of two processes that hold the trunk in shards: ``python sharded_ranks.py CHECKPOINT FOLDER``.

In ``FOLDER`` it leaves an uninterrupted run that saved one file, ``whole``, one that continued from such a file and
saved its shards, ``shards``, and one that continued from its shards and saved one file, ``continued``.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

from small_runs import FICKLE, improve

STAGE = "c_dpo"
# five batches of three prompts and three of seven: two processes never have equally much to draw
PLAN = {
    **FICKLE,
    "regrow.plan.images_per_batch": 6,
    "data.eval_batch": 7,
    "model.init_args.eval_plan.candidates": 1,
    "trainer.max_epochs": 2,
    "trainer.limit_train_batches": "null",
}
ONE = {**PLAN, "data.batch_size": 2}


def sharded(data_parallel: int, tensor_parallel: int = 1, one_file: bool = True) -> dict[str, object]:
    """Flags of a run whose trunk is sharded."""
    sizes = {"data_parallel_size": data_parallel, "tensor_parallel_size": tensor_parallel}
    options = {**sizes, "save_distributed_checkpoint": not one_file}
    strategy = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy", "init_args": options}
    return {"trainer.devices": data_parallel * tensor_parallel, "trainer.strategy": json.dumps(strategy)}


TWO = {
    **PLAN,
    **sharded(2),
    "data.batch_size": 1,
    "model.init_args.model.init_args.gradient_checkpointing": "true",
}


def main(checkpoint: Path, folder: Path) -> None:
    for name in ("refused", "whole", "continued", "shards"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    os.chdir(folder / "refused")
    assert improve(checkpoint, STAGE, {**TWO, **sharded(1, 2)}) == 2
    also = {"model.init_args.model.init_args.train_also": "aligner"}
    assert improve(checkpoint, STAGE, {**TWO, **also}) == 2
    os.chdir(folder / "whole")
    assert improve(checkpoint, STAGE, TWO) == 0
    os.chdir(folder / "continued")
    parts = {**TWO, **sharded(2, one_file=False)}
    assert improve(checkpoint, STAGE, {**parts, "trainer.max_epochs": 1}) == 0
    assert improve(checkpoint, STAGE, {**TWO, "resume": "must"}) == 0
    assert not list(Path("runs").rglob("shards-*"))
    os.chdir(folder / "shards")
    assert improve(checkpoint, STAGE, {**TWO, "trainer.max_epochs": 1}) == 0
    assert improve(checkpoint, STAGE, {**parts, "resume": "must"}) == 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
