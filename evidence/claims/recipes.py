"""Every arm by name: the paper's algorithms, their controls, what spoils them, and what may be better."""

from __future__ import annotations

from typing import Any

from evidence.claims.arm import DPO, SELF, SFT, Arm, spec

EVERY = {"every_n_epochs": 1}
ALL = {**EVERY, "redraw": "all"}
SOLVED = {**EVERY, "redraw": "solved"}
ORACLE = spec("unigap.judges.OracleJudge")
RANDOM = spec("unigap.judges.RandomJudge")
INVERTED = spec("unigap.judges.InvertedJudge", judge=SELF)
SWAP = spec("unigap.objectives.SwapNegatives", negatives=spec("unigap.objectives.negatives.ShapesNegatives"))
REPLAY = spec("unigap.objectives.Replay", pairs=spec("unigap.evaluation.probe_sources.ShapesPairs", split="pretrain"))
CONTRADICTIONS = spec("unigap.objectives.Contradictions")
STOP = spec("unigap.callbacks.Guard", action="stop")
FEWER = spec("lightning.pytorch.callbacks.EarlyStopping", monitor="non_unification", patience=2)
PHRASINGS = (
    "Does this image describe {prompt}?",
    "Does this describe {prompt}?",
    "This image does describe {prompt}?",
)
"""In words of the pretraining question alone: of no other does the embedded model know the meaning."""


def _sft(**options: Any) -> dict[str, Any]:
    return spec("unigap.objectives.SFT", **{"keep": 4, **options})


def _dpo(**options: Any) -> dict[str, Any]:
    return spec("unigap.objectives.DPO", **{"per_prompt": 2, **options})


def _joint(*sources: dict[str, Any], weight: float = 0.1, **sft: Any) -> Arm:
    objective = spec("unigap.objectives.Joint", generation=_sft(**sft), sources=list(sources), weight=weight)
    return Arm(objective, regrow=EVERY)


def _held(weight: float) -> Arm:
    return Arm(spec("unigap.objectives.KLToBase", generation=SFT, weight=weight), regrow=EVERY)


def _averaged(**options: Any) -> Arm:
    return Arm(regrow=EVERY, callbacks=(spec("unigap.callbacks.WeightEMA", **options),))


def _schedules(name: str, arm: Arm) -> dict[str, Arm]:
    """Curriculum replay at several times, without replay, and of prompts that need none, all of equally many steps."""
    same = arm.but(steps_of=f"{name}C-SFT")
    return {
        f"{name}C-SFT": arm.but(regrow=EVERY),
        f"{name}C-SFT, epoch 1": same.but(regrow={"at_epochs": [1]}),
        f"{name}C-SFT, epoch 3": same.but(regrow={"at_epochs": [3]}),
        f"{name}C-SFT, when progress stalls": same.but(regrow={"patience": 1}),
        f"{name}SFT, steps of C-SFT": same,
        f"{name}C-SFT on solved prompts": same.but(regrow=SOLVED),
    }


_RECOMMENDED = _averaged(decay=0.98).but(
    objective=_dpo(loss="ipo", per_token=True, beta=1.0, per_prompt=4),
    regrow={"at_epochs": [3], "redraw": "all"},
    candidates=4,
    epochs=6,
)
"""That of ``configs/shapes/best.yaml``, chosen on validation prompts."""

_METHODS = {
    "SFT": Arm(),
    "DPO": Arm(DPO),
    "C-SFT": Arm(regrow=EVERY),
    "C-DPO": Arm(DPO, regrow=EVERY),
}

ARMS: dict[str, Arm] = {
    # algorithms 1 and 2, their ceiling and their controls
    **_METHODS,
    **{f"{name}, oracle accepts": arm.but(judge=ORACLE) for name, arm in _METHODS.items()},
    **{f"{name}, random accepts": arm.but(judge=RANDOM) for name, arm in _METHODS.items()},
    **{f"{name}, inverted accepts": _METHODS[name].but(judge=INVERTED) for name in ("SFT", "DPO")},
    # when to replay, and where: on all prompts, and where much is discarded at first
    **_schedules("", Arm()),
    "DPO, steps of C-DPO": Arm(DPO, steps_of="C-DPO"),
    "hard: SFT": Arm(prompts="hard", candidates=4),
    **_schedules("hard: ", Arm(prompts="hard", candidates=4)),
    # poor supervision
    **{
        f"{share:.0%} of verdicts flipped": Arm(judge=spec("unigap.judges.FlippedJudge", judge=SELF, share=share))
        for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.75)
    },
    "always yes": Arm(judge=spec("unigap.judges.AlwaysYesJudge")),
    "judge drifted to yes, p > 0.02": Arm(_sft(threshold=0.02)),
    "SFT, inverted accepts, stopped by the guard": Arm(judge=INVERTED, callbacks=(STOP,)),
    # ablations
    **{f"N = {n}": Arm(candidates=n) for n in (1, 2, 4, 16)},
    **{f"threshold {threshold}": Arm(_sft(threshold=threshold)) for threshold in (0.2, 0.8, 0.95)},
    "LLM and generation aligner": Arm(model={"train_also": "generation_aligner"}),
    "LLM and generation head": Arm(model={"train_also": "generation_head"}),
    **{f"LoRA, rank {rank}": Arm(model={"lora_rank": rank, "lora_alpha": 2 * rank}, lr=1.0e-3) for rank in (4, 16)},
    **{f"{epochs} epochs": Arm(epochs=epochs) for epochs in (12, 30)},
    # rounds until nothing is gained
    "12 rounds": Arm(epochs=12, regrow=ALL),
    "12 rounds, oracle accepts": Arm(epochs=12, regrow=ALL, judge=ORACLE),
    # better than the paper: what is accepted, and of what
    "C-SFT, threshold 0.8": Arm(_sft(threshold=0.8), regrow=EVERY),
    "C-SFT, threshold calibrated to 99% right": Arm(regrow=EVERY, precision=0.99),
    "C-SFT, three phrasings": Arm(judge=spec("unigap.judges.SelfJudge", questions=list(PHRASINGS)), regrow=EVERY),
    "C-SFT, a question for each attribute": Arm(
        judge=spec("unigap.judges.DecomposedJudge", questions=spec("unigap.judges.GrammarQuestions")), regrow=EVERY
    ),
    "C-SFT, images until 4 are accepted": Arm(
        regrow={**EVERY, "allocation": spec("unigap.loop.allocation.UntilAccepted", enough=4)}
    ),
    "C-SFT, rare acceptances repeated": Arm(_sft(balance=True), regrow=EVERY),
    "C-SFT, easy prompts first": Arm(regrow=EVERY, order="easy_first"),
    "C-SFT, all prompts redrawn": Arm(regrow=ALL),
    # better than the paper: understanding taught beside
    "joint: swapped attributes": _joint(SWAP),
    "joint: pretraining pairs": _joint(REPLAY),
    "joint: contradictions": _joint(CONTRADICTIONS),
    "joint: swaps and pairs": _joint(SWAP, REPLAY),
    "joint: swaps and pairs, threshold 0.8": _joint(SWAP, REPLAY, threshold=0.8),
    "joint: pretraining pairs, weight 1": _joint(REPLAY, weight=1.0),
    # better than the paper: preferences
    "DPO, closest pairs": Arm(_dpo(pairs="closest")),
    "conservative DPO": Arm(_dpo(label_smoothing=0.1)),
    "robust DPO": Arm(_dpo(loss="robust", label_smoothing=0.1)),
    "IPO, per token": Arm(_dpo(loss="ipo", per_token=True, beta=1.0)),
    "C-DPO, all prompts redrawn": Arm(DPO, regrow=ALL),
    # better than the paper: staying near the base
    **{f"KL to the base, weight {weight}": _held(weight) for weight in (0.3, 1.0)},
    "weights averaged over steps": _averaged(decay=0.98),
    "weights averaged over rounds": _averaged(decay=0.5, each="epoch"),
    "30 epochs, stopped by the guard": Arm(epochs=30, callbacks=(STOP,)),
    "30 epochs, stopped when fewer are accepted": Arm(epochs=30, callbacks=(FEWER,)),
    # better than the paper: together
    "recommended": _RECOMMENDED,
    "recommended, oracle accepts": _RECOMMENDED.but(judge=ORACLE),
    "recommended, random accepts": _RECOMMENDED.but(judge=RANDOM),
}
"""Every arm by name."""
