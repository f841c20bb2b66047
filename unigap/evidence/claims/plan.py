"""The claims, and the arms and controls that decide each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unigap.evidence.claims.arm import DPO, SELF, Arm, spec

EVERY = {"every_n_epochs": 1}
ORACLE = spec("unigap.judges.OracleJudge")


def _flipped(share: float) -> Arm:
    return Arm(judge=spec("unigap.judges.FlippedJudge", judge=SELF, share=share))


def _joint(*sources: object, weight: float = 0.1, **sft: object) -> dict[str, object]:
    generation = spec("unigap.objectives.SFT", **{"keep": 4, **sft})
    return spec("unigap.objectives.Joint", generation=generation, sources=list(sources), weight=weight)


SWAP = spec("unigap.objectives.SwapNegatives")
REPLAY = spec("unigap.objectives.Replay")

ARMS: dict[str, Arm] = {
    # algorithms 1 and 2, their ceiling and their controls
    "SFT": Arm(),
    "DPO": Arm(objective=DPO),
    "C-SFT": Arm(regrow=EVERY),
    "C-DPO": Arm(objective=DPO, regrow=EVERY),
    "SFT, steps of C-SFT": Arm(steps_of="C-SFT"),
    "DPO, steps of C-DPO": Arm(objective=DPO, steps_of="C-DPO"),
    "C-SFT on solved prompts": Arm(regrow={**EVERY, "redraw": "solved"}),
    "SFT, oracle accepts": Arm(judge=ORACLE),
    "DPO, oracle accepts": Arm(objective=DPO, judge=ORACLE),
    "SFT, random accepts": Arm(judge=spec("unigap.judges.RandomJudge")),
    "DPO, random accepts": Arm(objective=DPO, judge=spec("unigap.judges.RandomJudge")),
    "SFT, inverted accepts": Arm(judge=spec("unigap.judges.InvertedJudge", judge=SELF)),
    # replay where much is discarded at first
    "hard: SFT": Arm(prompts="hard", candidates=4),
    "hard: C-SFT, each epoch": Arm(prompts="hard", candidates=4, regrow=EVERY),
    "hard: C-SFT, epoch 1": Arm(prompts="hard", candidates=4, regrow={"at_epochs": [1]}),
    "hard: C-SFT, epoch 3": Arm(prompts="hard", candidates=4, regrow={"at_epochs": [3]}),
    "hard: C-SFT, when progress stalls": Arm(prompts="hard", candidates=4, regrow={"patience": 1}),
    "hard: SFT, steps of C-SFT": Arm(prompts="hard", candidates=4, steps_of="hard: C-SFT, each epoch"),
    "hard: C-SFT on solved prompts": Arm(prompts="hard", candidates=4, regrow={**EVERY, "redraw": "solved"}),
    # poor supervision
    **{f"{share:.0%} of verdicts flipped": _flipped(share) for share in (0.1, 0.2, 0.3, 0.4, 0.5)},
    "always yes": Arm(judge=spec("unigap.judges.AlwaysYesJudge")),
    "lenient judge, p(yes) > 0.02": Arm(objective=spec("unigap.objectives.SFT", keep=4, threshold=0.02)),
    # ablations
    **{f"N = {n}": Arm(candidates=n) for n in (1, 2, 4, 16)},
    **{
        f"threshold {threshold}": Arm(objective=spec("unigap.objectives.SFT", keep=4, threshold=threshold))
        for threshold in (0.2, 0.8, 0.95)
    },
    "LLM and generation aligner": Arm(model={"train_also": "generation_aligner"}),
    "LLM and generation head": Arm(model={"train_also": "generation_head"}),
    **{f"LoRA, rank {rank}": Arm(model={"lora_rank": rank, "lora_alpha": 2 * rank}, lr=1.0e-3) for rank in (4, 16)},
    **{f"{epochs} epochs": Arm(epochs=epochs) for epochs in (12, 30)},
    # rounds until nothing is gained
    "12 rounds": Arm(epochs=12, regrow={**EVERY, "redraw": "all"}),
    "12 rounds, oracle accepts": Arm(epochs=12, regrow={**EVERY, "redraw": "all"}, judge=ORACLE),
    # better than the paper
    "joint: swapped attributes": Arm(objective=_joint(SWAP), regrow=EVERY),
    "joint: pretraining pairs": Arm(objective=_joint(REPLAY), regrow=EVERY),
    "joint: both": Arm(objective=_joint(SWAP, REPLAY), regrow=EVERY),
    "joint: both, threshold 0.8": Arm(objective=_joint(SWAP, REPLAY, threshold=0.8), regrow=EVERY),
    "joint: pretraining pairs, weight 1": Arm(objective=_joint(REPLAY, weight=1.0), regrow=EVERY),
    "balanced prompts": Arm(objective=spec("unigap.objectives.SFT", keep=4, balance=True), regrow=EVERY),
    "DPO, closest pairs": Arm(objective=spec("unigap.objectives.DPO", per_prompt=2, pairs="closest")),
    "robust DPO": Arm(objective=spec("unigap.objectives.DPO", per_prompt=2, loss="robust", label_smoothing=0.1)),
    "IPO, per token": Arm(objective=spec("unigap.objectives.DPO", per_prompt=2, loss="ipo", per_token=True, beta=1.0)),
    "averaged weights": Arm(
        regrow=EVERY, callbacks=(spec("lightning.pytorch.callbacks.EMAWeightAveraging", decay=0.98),)
    ),
    "on-policy C-SFT": Arm(regrow={**EVERY, "redraw": "all"}),
}
"""Every arm by name."""


@dataclass(frozen=True)
class Claim:
    """A claim and what decides it.

    Attributes:
        title: The claim.
        arms: Names of the arms.
        seeds: How many seeds its arms have at the least.
        contrasts: Pairs of an arm and its control; their difference is shown.
        decides: The figure by which an arm is higher or lower than its control.
    """

    title: str
    arms: tuple[str, ...]
    seeds: int = 3
    contrasts: tuple[tuple[str, str], ...] = ()
    decides: str = "generation"


CLAIMS: Mapping[str, Claim] = {
    "improvement": Claim(
        "Training on own judgments improves generation and unification",
        (
            *("SFT", "DPO", "SFT, oracle accepts", "DPO, oracle accepts"),
            *("SFT, random accepts", "DPO, random accepts", "SFT, inverted accepts"),
        ),
        5,
        (
            ("SFT", "SFT, random accepts"),
            ("DPO", "DPO, random accepts"),
            ("SFT", "SFT, oracle accepts"),
            ("DPO", "DPO, oracle accepts"),
        ),
    ),
    "replay": Claim(
        "Curriculum replay adds more",
        ("C-SFT", "SFT, steps of C-SFT", "C-SFT on solved prompts", "C-DPO", "DPO, steps of C-DPO"),
        5,
        (
            ("C-SFT", "SFT, steps of C-SFT"),
            ("C-SFT", "C-SFT on solved prompts"),
            ("C-DPO", "DPO, steps of C-DPO"),
        ),
    ),
    "replay-hard": Claim(
        "Curriculum replay adds more where much is discarded at first",
        tuple(name for name in ARMS if name.startswith("hard: ")),
        5,
        tuple(
            (name, control)
            for name in ("hard: C-SFT, each epoch", "hard: C-SFT, epoch 1", "hard: C-SFT, epoch 3")
            for control in ("hard: SFT, steps of C-SFT", "hard: C-SFT on solved prompts")
        ),
    ),
    "co-improvement": Claim(
        "Understanding improves along",
        ("SFT", "DPO", "C-SFT", "SFT, random accepts", "DPO, random accepts", "SFT, oracle accepts"),
        5,
        (
            ("SFT", "SFT, random accepts"),
            ("DPO", "DPO, random accepts"),
            ("SFT, oracle accepts", "SFT, random accepts"),
        ),
        "AUROC",
    ),
    "degradation": Claim(
        "Poor supervision degrades both branches, and the score alone cannot see it",
        (
            "SFT",
            *(name for name in ARMS if name.endswith("flipped")),
            *("SFT, random accepts", "always yes", "lenient judge, p(yes) > 0.02", "SFT, inverted accepts"),
        ),
    ),
    "ablations": Claim(
        "What the method depends on",
        (
            *("N = 1", "N = 2", "N = 4", "SFT", "N = 16", "threshold 0.2", "threshold 0.8", "threshold 0.95"),
            *(
                "LLM and generation aligner",
                "LLM and generation head",
                "LoRA, rank 4",
                "LoRA, rank 16",
                "12 epochs",
                "30 epochs",
            ),
        ),
    ),
    "ceiling": Claim(
        "Is there a ceiling?",
        ("12 rounds", "12 rounds, oracle accepts"),
        3,
        (("12 rounds", "12 rounds, oracle accepts"),),
    ),
    "better": Claim(
        "Better than the paper, without any external signal",
        (
            *("C-SFT", "joint: swapped attributes", "joint: pretraining pairs", "joint: both"),
            *("joint: both, threshold 0.8", "joint: pretraining pairs, weight 1", "balanced prompts"),
            *("averaged weights", "on-policy C-SFT", "DPO, closest pairs", "robust DPO", "IPO, per token"),
        ),
        3,
        (
            ("joint: swapped attributes", "C-SFT"),
            ("joint: pretraining pairs", "C-SFT"),
            ("joint: both", "C-SFT"),
            ("joint: both, threshold 0.8", "C-SFT"),
            ("balanced prompts", "C-SFT"),
            ("averaged weights", "C-SFT"),
            ("on-policy C-SFT", "C-SFT"),
        ),
    ),
}
"""The claims by the name of their stage."""
