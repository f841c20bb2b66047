"""``fit``, ``validate`` and ``predict``: LightningCLI, with the rules that keep self-improvement runs right."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from unigap.callbacks import Regrow
from unigap.gap_table import print_gap
from unigap.manifest import write_durable
from unigap.stages import ImproveStage

SUBCOMMANDS = ("fit", "validate", "predict")


class UnigapCLI(LightningCLI):
    """LightningCLI in which the command line wins and ``Regrow`` has a path of its own, ``--regrow``."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what every run has beside model, data and trainer."""
        parser.add_lightning_class_args(Regrow, "regrow")
        parser.add_argument("--gap_out", type=str, default="", help="JSON file for the figures of ``validate``.")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The Lightning verbs unigap offers."""
        return {name: names for name, names in LightningCLI.subcommands().items() if name in SUBCOMMANDS}

    def _parse_ckpt_path(self) -> None:
        # hyperparameters saved in a checkpoint would silently beat the command line (Lightning PL #21455)
        return

    def after_validate(self) -> None:
        """Prints the gap, and writes it where asked."""
        if not isinstance(self.model, ImproveStage) or not self.trainer.is_global_zero:
            return
        print_gap(self.model.results)
        out = self.config[self.subcommand]["gap_out"]
        if out:
            rows = {name: {g: e.to_dict() for g, e in found.items()} for name, found in self.model.results.items()}
            write_durable(Path(out), json.dumps(rows, indent=1).encode())


def run(words: Sequence[str]) -> int:
    """Runs ``unigap fit|validate|predict ...``."""
    options: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
    argv, sys.argv = sys.argv, ["unigap", *words]  # LightningCLI warns when it is given args beside sys.argv
    try:
        UnigapCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={**options, **{name: options for name in SUBCOMMANDS}},
            trainer_defaults={"num_sanity_val_steps": 0},
            seed_everything_default=0,
        )
    finally:
        sys.argv = argv
    return 0
