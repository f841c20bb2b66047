"""Self-improvement of the embedded model, watched: the arm every other arm of a seed builds on."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from evidence.results_file import Result
from evidence.theory_plan import TheoryPlan
from unigap.callbacks import Dynamics, Regrow
from unigap.data import PoolData
from unigap.judges import OracleJudge
from unigap.loop.plan import RoundPlan
from unigap.models.janus import Janus
from unigap.objectives import SFT
from unigap.stages import SFTStage
from unigap.stages.quiet_trainer import quiet_trainer


def improve(plan: TheoryPlan, seed: int, folder: Path) -> Result:
    """Algorithm 1 with SFT; leaves the pool and the trained trunk in ``folder``.

    Returns:
        ``rows`` of the ``Dynamics`` callback: predictions along AdamW's steps, and kernels.
    """
    # every other seed is given to its owner
    torch.manual_seed(seed)
    model = Janus(plan.checkpoint)
    data = PoolData(
        pool=str(folder / "pool"),
        batch_size=plan.batch_size,
        per_cell=plan.per_cell,
        eval_per_cell=1,
        exam_pictures=0,
        seed=seed,
    )
    watch = Dynamics(
        str(folder / "dynamics"), step_every=plan.watch_every, gram_every=5 * plan.watch_every, per_group=8, seed=seed
    )
    regrow = Regrow(RoundPlan(plan.candidates, seed=seed))
    trainer = quiet_trainer([regrow, watch], max_epochs=plan.epochs, accelerator="cpu", limit_val_batches=0)
    trainer.fit(SFTStage(model, SFT(keep=plan.keep), external=OracleJudge(), lr=plan.lr), datamodule=data)
    save_file(model.trainable_state(), folder / "trained.safetensors")
    return {"rows": watch.rows, "steps": trainer.global_step}
