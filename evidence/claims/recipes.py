"""Every arm by name: the paper's algorithms, their controls, poor supervision, and the recommended recipe."""

from __future__ import annotations

from evidence.claims.arm import Arm
from evidence.fit import Overrides, spec

JUDGE, SCHEDULE = (f"model.init_args.{name}" for name in ("judge", "schedule"))
EPOCHS = "trainer.max_epochs"
CANDIDATES = "regrow.plan.candidates"
ALL: Overrides = {f"{SCHEDULE}.redraw": "all"}

# the seeds of control judges are the same in every run of an arm
ORACLE = spec("unigap.judges.OracleJudge")
RANDOM = spec("unigap.judges.RandomJudge", seed=0)
INVERTED = spec("unigap.judges.InvertedJudge", judge=spec("unigap.judges.SelfJudge"))

_SFT, C_SFT = Arm("sft"), Arm("c_sft")
_DPO = Arm("dpo", {"model.init_args.lr": 1.5e-4})  # one learning rate in all offline arms
RECALL = Arm("recall", steps_of="SFT")
"""Pretraining goes on for as many steps: what this gains, drawing once known, is no self-improvement."""
_GRPO = Arm("grpo", {f"{SCHEDULE}.prompts": 32})
"""16 rounds of 32 prompts: about as many images as C-SFT samples."""
_HARD: Overrides = {CANDIDATES: 4}

ARMS: dict[str, Arm] = {
    "SFT": _SFT,
    "DPO": _DPO,
    "C-SFT": C_SFT,
    "SFT, oracle accepts": _SFT.but({JUDGE: ORACLE}),
    "SFT, random accepts": _SFT.but({JUDGE: RANDOM}),
    "DPO, random accepts": _DPO.but({JUDGE: RANDOM}),
    "SFT, inverted accepts": _SFT.but({JUDGE: INVERTED}),
    "always yes": _SFT.but({JUDGE: spec("unigap.judges.AlwaysYesJudge")}),
    "recall": RECALL,
    "hard: C-SFT": Arm("c_sft", _HARD, prompts="hard"),
    "hard: SFT, steps of C-SFT": Arm("sft", _HARD, prompts="hard", steps_of="hard: C-SFT"),
    "GRPO": _GRPO,
    "GRPO, random accepts": _GRPO.but({JUDGE: RANDOM}),
    "recommended": Arm("best"),
}
"""Every arm by name."""
