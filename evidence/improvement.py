"""Self-improvement of the embedded model with `Dynamics`: the other theory arms of a seed use its pool and weights."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from evidence.fit import fit, spec
from evidence.results_file import Result
from evidence.theory_plan import TheoryPlan


def improve(plan: TheoryPlan, seed: int, folder: Path) -> Result:
    """Train by Algorithm 1 with SFT; ``folder`` becomes the run folder and keeps the pool and the trained trunk.

    A run that was stopped there continues.

    Returns:
        ``rows`` of `Dynamics` (predictions along AdamW's steps, and kernels) and the number of ``steps``.
    """
    watch = spec(
        "unigap.callbacks.Dynamics",
        step_every=plan.watch_every,
        gram_every=5 * plan.watch_every,
        per_group=8,
    )
    trained = fit(
        "sft",
        folder,
        {
            "resume": "auto",
            "seed_everything": seed,
            "model.init_args.model.init_args.checkpoint": plan.checkpoint,
            "model.init_args.objective.init_args.keep": plan.keep,
            "model.init_args.external": "unigap.judges.OracleJudge",
            "model.init_args.lr": plan.lr,
            "regrow.plan.candidates": plan.candidates,
            "data.init_args.per_cell": plan.per_cell,
            "data.init_args.batch_size": plan.batch_size,
            "data.init_args.eval_per_cell": 1,
            "data.init_args.exam_pictures": 0,
            "summary.prompts": None,
            "trainer.accelerator": "cpu",
            "trainer.max_epochs": plan.epochs,
            "trainer.limit_val_batches": 0,
            "trainer.callbacks": [watch],
        },
    )
    save_file(trained.model().trainable_state(), folder / "trained.safetensors")
    return {"rows": trained.callback_state("Dynamics")["rows"], "steps": trained.steps}
