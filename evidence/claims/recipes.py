"""Every arm by name: the paper's algorithms, their controls, poor supervision, and possible improvements."""

from __future__ import annotations

from typing import Any

from evidence.claims.arm import Arm
from evidence.fit import Overrides, spec

OBJECTIVE, JUDGE, SCHEDULE = (f"model.init_args.{name}" for name in ("objective", "judge", "schedule"))
LR = "model.init_args.lr"
EPOCHS = "trainer.max_epochs"
CALLBACKS = "trainer.callbacks"
CANDIDATES = "regrow.plan.candidates"


# the seeds of control judges and rendered pairs are the same in every run of an arm
SELF = spec("unigap.judges.SelfJudge")
ORACLE = spec("unigap.judges.OracleJudge")
RANDOM = spec("unigap.judges.RandomJudge", seed=0)
INVERTED = spec("unigap.judges.InvertedJudge", judge=SELF)
SFT = spec("unigap.objectives.SFT", keep=4)
SWAP = spec("unigap.objectives.SwapNegatives", negatives=spec("unigap.objectives.negatives.ShapesNegatives"))
REPLAY = spec(
    "unigap.objectives.Replay", pairs=spec("unigap.evaluation.probe_sources.ShapesPairs", split="pretrain", seed=1)
)
CONTRADICTIONS = spec("unigap.objectives.Contradictions")

ALL: Overrides = {f"{SCHEDULE}.redraw": "all"}
VALIDATED: Overrides = {"trainer.limit_val_batches": None}
"""Validate after every epoch; arms that decide nothing by validation leave it out."""
WATCHED: Overrides = VALIDATED | {
    "data.init_args.eval_per_cell": 24,
    "model.init_args.eval_plan.candidates": 6,
}
"""With fewer validation images only large damage is significant to the guard."""
STOP: Overrides = WATCHED | {CALLBACKS: [spec("unigap.callbacks.Guard", action="stop")]}
FEWER: Overrides = WATCHED | {
    CALLBACKS: [spec("lightning.pytorch.callbacks.EarlyStopping", monitor="non_unification", patience=2)]
}
PHRASINGS = (
    "Does this image describe {prompt}?",
    "Does this describe {prompt}?",
    "This image does describe {prompt}?",
)
"""In words of the pretraining question alone: the embedded model knows the meaning of no other."""


def _objective(**options: Any) -> Overrides:
    return {f"{OBJECTIVE}.init_args.{name}": value for name, value in options.items()}


def _joint(*sources: dict[str, Any], weight: float = 0.1, **sft: Any) -> Arm:
    generation = spec("unigap.objectives.SFT", keep=4, **sft)
    joint = spec("unigap.objectives.Joint", generation=generation, sources=list(sources), weight=weight)
    return C_SFT.but({OBJECTIVE: joint})


def _averaged(**options: Any) -> Overrides:
    return {CALLBACKS: [spec("unigap.callbacks.WeightEMA", **options)]}


def _schedules(name: str, changes: Overrides, **fields: Any) -> dict[str, Arm]:
    """Curriculum replay at several times, without replay, and of solved prompts, all with equally many steps."""
    without, replay = Arm("sft", changes, **fields), Arm("c_sft", changes, **fields)
    same = replay.but(steps_of=f"{name}C-SFT")
    never: Overrides = {f"{SCHEDULE}.every_n_epochs": 0}
    return {
        f"{name}C-SFT": replay,
        f"{name}C-SFT, epoch 1": same.but({**never, f"{SCHEDULE}.at_epochs": [1]}),
        f"{name}C-SFT, epoch 3": same.but({**never, f"{SCHEDULE}.at_epochs": [3]}),
        f"{name}C-SFT, when progress stalls": same.but({**never, f"{SCHEDULE}.patience": 1, **VALIDATED}),
        f"{name}SFT, steps of C-SFT": without.but(steps_of=f"{name}C-SFT"),
        f"{name}C-SFT on solved prompts": same.but({f"{SCHEDULE}.redraw": "solved"}),
    }


_SFT, C_SFT = Arm("sft"), Arm("c_sft")
# one learning rate in all arms
_DPO, C_DPO = Arm("dpo", {LR: 1.5e-4}), Arm("c_dpo", {LR: 1.5e-4})
_METHODS = {"SFT": _SFT, "DPO": _DPO, "C-SFT": C_SFT, "C-DPO": C_DPO}
_RECOMMENDED = Arm("best")
"""Chosen on validation prompts."""

ARMS: dict[str, Arm] = {
    # algorithms 1 and 2, their ceiling and their controls
    **_METHODS,
    **{f"{name}, oracle accepts": arm.but({JUDGE: ORACLE}) for name, arm in _METHODS.items()},
    **{f"{name}, random accepts": arm.but({JUDGE: RANDOM}) for name, arm in _METHODS.items()},
    **{f"{name}, inverted accepts": _METHODS[name].but({JUDGE: INVERTED}) for name in ("SFT", "DPO")},
    # when to replay, and where: on all prompts, and where much is discarded at first
    **_schedules("", {}),
    "DPO, steps of C-DPO": _DPO.but(steps_of="C-DPO"),
    "hard: SFT": Arm("sft", {CANDIDATES: 4}, prompts="hard"),
    **_schedules("hard: ", {CANDIDATES: 4}, prompts="hard"),
    # poor supervision
    **{
        f"{share:.0%} of verdicts flipped": _SFT.but(
            {JUDGE: spec("unigap.judges.FlippedJudge", judge=SELF, share=share, seed=0)}
        )
        for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.75)
    },
    "always yes": _SFT.but({JUDGE: spec("unigap.judges.AlwaysYesJudge")}),
    "judge drifted to yes, p > 0.02": _SFT.but(_objective(threshold=0.02)),
    "SFT, inverted accepts, stopped by the guard": _SFT.but({JUDGE: INVERTED, **STOP}),
    # ablations
    **{f"N = {n}": _SFT.but({CANDIDATES: n}) for n in (1, 2, 4, 16)},
    **{f"threshold {threshold}": _SFT.but(_objective(threshold=threshold)) for threshold in (0.2, 0.8, 0.95)},
    **{
        f"LLM and {part.replace('_', ' ')}": _SFT.but({"model.init_args.model.init_args.train_also": part})
        for part in ("generation_aligner", "generation_head")
    },
    **{
        f"LoRA, rank {rank}": _SFT.but(
            {
                "model.init_args.model.init_args.lora_rank": rank,
                "model.init_args.model.init_args.lora_alpha": 2 * rank,
                LR: 1.0e-3,
            }
        )
        for rank in (4, 16)
    },
    **{f"{epochs} epochs": _SFT.but({EPOCHS: epochs}) for epochs in (12, 30)},
    # rounds until nothing is gained
    "12 rounds": C_SFT.but({EPOCHS: 12, **ALL}),
    "12 rounds, oracle accepts": C_SFT.but({EPOCHS: 12, **ALL, JUDGE: ORACLE}),
    # better than the paper: what is sampled and accepted
    "C-SFT, threshold 0.8": C_SFT.but(_objective(threshold=0.8)),
    "C-SFT, threshold calibrated to 99% right": C_SFT.but(precision=0.99),
    "C-SFT, three phrasings": C_SFT.but({JUDGE: spec("unigap.judges.SelfJudge", questions=list(PHRASINGS))}),
    "C-SFT, a question for each attribute": C_SFT.but(
        {JUDGE: spec("unigap.judges.DecomposedJudge", questions=spec("unigap.judges.GrammarQuestions"))}
    ),
    "C-SFT, images until 4 are accepted": C_SFT.but(
        {"regrow.allocation": spec("unigap.loop.allocation.UntilAccepted", enough=4)}
    ),
    "C-SFT, rare acceptances repeated": C_SFT.but(_objective(balance=True)),
    "C-SFT, easy prompts first": C_SFT.but({"data.init_args.order": "easy_first"}),
    "C-SFT, all prompts redrawn": C_SFT.but(ALL),
    # better than the paper: understanding trained along with generation
    "joint: swapped attributes": _joint(SWAP),
    "joint: pretraining pairs": _joint(REPLAY),
    "joint: contradictions": _joint(CONTRADICTIONS),
    "joint: swaps and pairs": _joint(SWAP, REPLAY),
    "joint: swaps and pairs, threshold 0.8": _joint(SWAP, REPLAY, threshold=0.8),
    "joint: pretraining pairs, weight 1": _joint(REPLAY, weight=1.0),
    # better than the paper: preferences
    "DPO, closest pairs": _DPO.but(_objective(pairs="closest")),
    "conservative DPO": _DPO.but(_objective(label_smoothing=0.1)),
    "robust DPO": _DPO.but(_objective(loss="robust", label_smoothing=0.1)),
    "IPO, per token": _DPO.but(_objective(loss="ipo", per_token=True, beta=1.0)),
    "C-DPO, all prompts redrawn": C_DPO.but(ALL),
    # better than the paper: staying near the base
    **{
        f"KL to the base, weight {weight}": C_SFT.but(
            {OBJECTIVE: spec("unigap.objectives.KLToBase", generation=SFT, weight=weight)}
        )
        for weight in (0.3, 1.0)
    },
    "weights averaged over steps": C_SFT.but(_averaged(decay=0.98)),
    "weights averaged over rounds": C_SFT.but(_averaged(decay=0.5, each="epoch")),
    "30 epochs, stopped by the guard": _SFT.but({EPOCHS: 30, **STOP}),
    "30 epochs, stopped when fewer are accepted": _SFT.but({EPOCHS: 30, **FEWER}),
    # better than the paper: together
    "recommended": _RECOMMENDED,
    "recommended, oracle accepts": _RECOMMENDED.but({JUDGE: ORACLE}),
    "recommended, random accepts": _RECOMMENDED.but({JUDGE: RANDOM}),
}
"""Every arm by name."""
