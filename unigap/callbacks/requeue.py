"""Save the run and requeue the job on SLURM's warning signal, as Lightning does."""

from __future__ import annotations

import os
import subprocess
import sys

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer

from unigap.console.stop_signal import ASKING, Stopped


def stop_signals(trainer: Trainer) -> set[int]:
    """Return the signals that ask a run to stop; under SLURM these include the requeue signal."""
    slurm = _auto_requeue(trainer)
    return {*ASKING} | ({int(slurm.requeue_signal)} if slurm and slurm.requeue_signal else set())


def requeue(trainer: Trainer, stopped: Stopped) -> None:
    """Requeue the SLURM job if its warning signal stopped the run; warn when that fails."""
    slurm = _auto_requeue(trainer)
    if slurm is None or stopped.number != slurm.requeue_signal:
        return
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"warning: SLURM job {job} was not requeued: {error}; submit it again", file=sys.stderr)


def is_requeued() -> bool:
    """Return whether SLURM has requeued this job before."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def _auto_requeue(trainer: Trainer) -> SLURMEnvironment | None:
    environment = trainer._accelerator_connector.cluster_environment
    return environment if isinstance(environment, SLURMEnvironment) and environment.auto_requeue else None
