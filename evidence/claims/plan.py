"""The claims, the arms and controls that decide each claim, and the number of seeds of every arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evidence.claims.recipes import ARMS


@dataclass(frozen=True)
class Claim:
    """A claim and the comparison that decides it.

    Attributes:
        title: The claim.
        arms: Names of the arms.
        seeds: Least number of seeds of its arms.
        contrasts: Pairs of an arm and its control; their difference is shown.
        decides: Name of the figure that is compared between an arm and its control.
        headline: Whether the README shows its arms.
    """

    title: str
    arms: tuple[str, ...]
    seeds: int = 3
    contrasts: tuple[tuple[str, str], ...] = ()
    decides: str = "generation"
    headline: bool = False


def _against(control: str, arms: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((arm, control) for arm in arms)


def _replay(name: str) -> tuple[tuple[str, str], ...]:
    """Return each replay schedule against equally many steps without replay, and with replay of solved prompts."""
    schedules = ("C-SFT", "C-SFT, epoch 1", "C-SFT, epoch 3", "C-SFT, when progress stalls")
    controls = ("SFT, steps of C-SFT", "C-SFT on solved prompts")
    return tuple((name + schedule, name + control) for schedule in schedules for control in controls)


def _named(*words: str) -> tuple[str, ...]:
    """Return the arms whose names begin or end with one of the words."""
    return tuple(name for name in ARMS if name.startswith(words) or name.endswith(words))


METHODS = ("SFT", "DPO", "C-SFT", "C-DPO")
REPLAYED = tuple(dict.fromkeys(name for pair in _replay("") for name in pair))
SPOILT = (
    *_named("flipped"),
    *("SFT, random accepts", "always yes", "judge drifted to yes, p > 0.02", "SFT, inverted accepts"),
)
ACCEPTANCE = (
    *_named("C-SFT, threshold"),
    *("C-SFT, three phrasings", "C-SFT, a question for each attribute", "C-SFT, images until 4 are accepted"),
    *("C-SFT, rare acceptances repeated", "C-SFT, easy prompts first", "C-SFT, all prompts redrawn"),
)
PREFERENCES = ("DPO, closest pairs", "conservative DPO", "robust DPO", "IPO, per token")
HELD = _named("KL to the base", "weights averaged")
STOPPED = _named("30 epochs, stopped")
RECOMMENDED = "recommended"

CLAIMS: Mapping[str, Claim] = {
    "improvement": Claim(
        "Training on own judgments improves generation and unification",
        (
            *("SFT", "DPO", "SFT, oracle accepts", "DPO, oracle accepts", "SFT, random accepts", "DPO, random accepts"),
            *("SFT, inverted accepts", "DPO, inverted accepts"),
        ),
        5,
        tuple((name, f"{name}, {who} accepts") for who in ("random", "oracle", "inverted") for name in ("SFT", "DPO")),
        headline=True,
    ),
    "replay": Claim(
        "Curriculum replay adds more",
        (*REPLAYED, "C-DPO", "DPO, steps of C-DPO"),
        5,
        (*_replay(""), ("C-DPO", "DPO, steps of C-DPO")),
    ),
    "replay-hard": Claim(
        "Curriculum replay adds more where much is discarded at first", _named("hard: "), 5, _replay("hard: ")
    ),
    "co-improvement": Claim(
        "Understanding improves along",
        tuple(name + who for name in METHODS for who in ("", ", random accepts", ", oracle accepts")),
        5,
        tuple((name + who, f"{name}, random accepts") for name in METHODS for who in ("", ", oracle accepts")),
        "AUROC",
    ),
    "degradation": Claim(
        "Poor supervision degrades both branches, and the score alone cannot see it",
        ("SFT", *SPOILT, "SFT, inverted accepts, stopped by the guard"),
        3,
        (
            *_against("SFT", SPOILT),
            ("SFT, inverted accepts, stopped by the guard", "SFT, inverted accepts"),
        ),
    ),
    "ablations": Claim(
        "What the method depends on",
        (
            *("N = 1", "N = 2", "N = 4", "SFT", "N = 16", "threshold 0.2", "threshold 0.8", "threshold 0.95"),
            *_named("LLM and", "LoRA", "epochs"),
        ),
        3,
        _against("SFT", _named("N = ", "threshold 0", "LLM and", "LoRA", "epochs")),
    ),
    "ceiling": Claim(
        "Is there a ceiling?",
        ("12 rounds", "12 rounds, oracle accepts"),
        3,
        (("12 rounds", "12 rounds, oracle accepts"),),
    ),
    "better-acceptance": Claim(
        "Better than the paper: sampling, acceptance and order of training",
        ("C-SFT", *ACCEPTANCE),
        3,
        _against("C-SFT", ACCEPTANCE),
    ),
    "better-questions": Claim(
        "Better than the paper: training understanding along with generation",
        ("C-SFT", *_named("joint: ")),
        3,
        _against("C-SFT", _named("joint: ")),
        "AUROC",
    ),
    "better-preferences": Claim(
        "Better than the paper: other losses and pairs",
        ("DPO", *PREFERENCES, "C-DPO", "C-DPO, all prompts redrawn"),
        3,
        (*_against("DPO", PREFERENCES), ("C-DPO, all prompts redrawn", "C-DPO")),
    ),
    "better-restraint": Claim(
        "Better than the paper: staying near the base",
        ("C-SFT", *HELD, "30 epochs", *STOPPED),
        3,
        (*_against("C-SFT", HELD), *_against("30 epochs", STOPPED), *_against("SFT", STOPPED)),
        "AUROC",
    ),
    "recommended": Claim(
        "Better than the paper: the recommended recipe",
        ("C-SFT", RECOMMENDED, f"{RECOMMENDED}, oracle accepts", f"{RECOMMENDED}, random accepts"),
        5,
        tuple(
            (RECOMMENDED, control)
            for control in ("C-SFT", "C-DPO", f"{RECOMMENDED}, oracle accepts", f"{RECOMMENDED}, random accepts")
        ),
        headline=True,
    ),
}
"""The claims by name."""


def seeds_of(claims: Mapping[str, Claim], seeds: int | None = None) -> dict[str, int]:
    """Return the number of seeds of each arm: the most that a claim, or an arm that takes its steps, needs.

    Args:
        claims: The claims.
        seeds: Seeds of every arm; ``None`` takes the number of each claim.
    """
    wanted: dict[str, int] = {}
    for claim in claims.values():
        for arm in (*claim.arms, *(name for pair in claim.contrasts for name in pair)):
            wanted[arm] = max(wanted.get(arm, 0), seeds or claim.seeds)
    for arm, n in list(wanted.items()):
        if ARMS[arm].steps_of:
            wanted[ARMS[arm].steps_of] = max(wanted.get(ARMS[arm].steps_of, 0), n)
    return wanted


def run_name(arm: str, seed: int) -> str:
    """Return the name of a run: lower-case letters, digits, dots and dashes."""
    words = "".join(char if char.isalnum() or char == "." else " " for char in f"{arm} seed {seed}").split()
    return "-".join(words).lower()


def base_name(prompts: str, seed: int) -> str:
    """Return the name of the measurement of the base model on a set of prompts."""
    return run_name(f"base {prompts}", seed)
