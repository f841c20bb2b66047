"""Every arm by name: the paper's algorithms, their controls, poor supervision, and the recommended recipe."""

from __future__ import annotations

from evidence.claims.arm import Arm
from evidence.fit import spec

JUDGE = "model.init_args.judge"

# the seeds of control judges are the same in every run of an arm
ORACLE = spec("unigap.judges.OracleJudge")
RANDOM = spec("unigap.judges.RandomJudge", seed=0)
INVERTED = spec("unigap.judges.InvertedJudge", judge=spec("unigap.judges.SelfJudge"))

_SFT, C_SFT = Arm("sft"), Arm("c_sft")
RECALL = Arm("recall", steps_of="SFT")
"""Pretraining goes on for as many steps: what this gains, drawing once known, is no self-improvement."""

ARMS: dict[str, Arm] = {
    "SFT": _SFT,
    "SFT, oracle accepts": _SFT.but({JUDGE: ORACLE}),
    "SFT, random accepts": _SFT.but({JUDGE: RANDOM}),
    "SFT, inverted accepts": _SFT.but({JUDGE: INVERTED}),
    "recall": RECALL,
    "recommended": Arm("best"),
}
"""Every arm by name."""
