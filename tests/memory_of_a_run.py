"""Measure the memory of one process that trains, saves and restores: ``python memory_of_a_run.py FOLDER [MEGABYTES]``.

Prints a JSON object in bytes: ``used`` (weights and momentum), ``saving`` (added to the peak by saving), ``restored``
(added by restoring, without pages of the file), and ``loaded`` (added after copies of the weights were freed and
``settle_memory`` was called).
"""

from __future__ import annotations

import gc
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from unigap.callbacks import RunCheckpoint
from unigap.models.engine.memory import settle_memory

SIDE = 2048
STATUS = Path("/proc/self/status")


def bytes_of(name: str) -> int:
    """Return an entry of the process's status, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def added_to_peak(act: Callable[[], None]) -> int:
    """Return by how much the peak memory during a call exceeds the memory before it."""
    Path("/proc/self/clear_refs").write_text("5")
    before = bytes_of("VmRSS")
    act()
    return bytes_of("VmHWM") - before


class Wide(LightningModule):
    """Blocks of 16 MB, of which glibc keeps many when they are freed."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        self.blocks = nn.ParameterList(nn.Parameter(torch.zeros(SIDE, SIDE)) for _ in range(megabytes // 16))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return torch.stack([(block[0] - batch).square().mean() for block in self.blocks]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class AfterRestoring(Callback):
    """Reads the memory when everything is restored."""

    memory = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.memory = bytes_of("RssAnon")


def trainer_of(folder: Path, epochs: int, *callbacks: Callback) -> Trainer:
    """Return a trainer that keeps ``last.ckpt``."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(max_epochs=epochs, callbacks=[RunCheckpoint(str(folder)), *callbacks], **quiet)


def train_and_save(folder: Path, megabytes: int, rows: Any) -> dict[str, int]:
    """Train an epoch and save; return the bytes used and what saving added."""
    module, trainer = Wide(megabytes), trainer_of(folder, 1)
    trainer.fit(module, rows)
    used = 2 * sum(p.nbytes for p in module.parameters())
    return {"used": used, "saving": added_to_peak(lambda: trainer.save_checkpoint(folder / "again.ckpt"))}


def main(folder: Path, megabytes: int) -> None:
    rows = torch.utils.data.DataLoader(torch.ones(2), batch_size=1)
    found = train_and_save(folder, megabytes, rows)
    module, watch = Wide(megabytes), AfterRestoring()
    gc.collect()
    settle_memory(module, "cpu")
    before = bytes_of("RssAnon")
    trainer_of(folder, 2, watch).fit(module, rows, ckpt_path=str(folder / "last.ckpt"), weights_only=True)
    found["restored"] = watch.memory - before
    copies = [block.detach() + 1 for _ in range(3) for block in module.blocks]
    del copies[::2]
    copies.clear()
    module.zero_grad()
    settle_memory(module, "cpu")
    found["loaded"] = bytes_of("RssAnon") - before
    print(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 320)
