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


SPOILT = ("SFT, random accepts", "always yes", "SFT, inverted accepts")
RECOMMENDED, RECALL = "recommended", "recall"
HARD = ("hard: C-SFT", "hard: SFT, steps of C-SFT")
ONLINE = ("GRPO", "GRPO, random accepts")

CLAIMS: Mapping[str, Claim] = {
    "improvement": Claim(
        "Training on own judgments improves generation and unification",
        ("SFT", "DPO", "SFT, oracle accepts", "SFT, random accepts", "DPO, random accepts", RECALL),
        5,
        (
            *_against("SFT, random accepts", ("SFT", RECALL)),
            *(("DPO", "DPO, random accepts"), ("SFT", "SFT, oracle accepts"), ("SFT", RECALL), ("DPO", RECALL)),
        ),
        headline=True,
    ),
    "recommended": Claim(
        "The recommended recipe",
        ("C-SFT", RECOMMENDED),
        5,
        ((RECOMMENDED, "C-SFT"), (RECOMMENDED, RECALL)),
        headline=True,
    ),
    "replay": Claim("Curriculum replay adds more where much is discarded at first", HARD, 5, (HARD,)),
    "co-improvement": Claim(
        "Understanding improves along",
        ("SFT", "DPO", "C-SFT", "SFT, oracle accepts", "SFT, random accepts", "DPO, random accepts"),
        5,
        (
            *_against("SFT, random accepts", ("SFT", "C-SFT", "SFT, oracle accepts")),
            ("DPO", "DPO, random accepts"),
        ),
        "AUROC",
    ),
    "degradation": Claim(
        "Poor supervision degrades both branches, and the score alone cannot see it",
        ("SFT", *SPOILT),
        3,
        _against("SFT", SPOILT),
    ),
    "online": Claim(
        "Online training with the own judge as reward, at the images of C-SFT",
        ("C-SFT", *ONLINE),
        3,
        (("GRPO", "C-SFT"), ("GRPO", "GRPO, random accepts")),
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
