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


SPOILT = ("SFT, random accepts", "SFT, inverted accepts")
RECOMMENDED, RECALL = "recommended", "recall"

CLAIMS: Mapping[str, Claim] = {
    "improvement": Claim(
        "Training on own judgments improves generation and unification",
        ("SFT", "SFT, oracle accepts", "SFT, random accepts", RECALL),
        3,
        (("SFT", "SFT, random accepts"), ("SFT", RECALL), ("SFT", "SFT, oracle accepts")),
        headline=True,
    ),
    "recommended": Claim(
        "The recommended recipe", (RECOMMENDED,), 3, ((RECOMMENDED, "SFT"), (RECOMMENDED, RECALL)), headline=True
    ),
    "co-improvement": Claim(
        "Understanding improves along",
        ("SFT", RECOMMENDED, "SFT, oracle accepts", "SFT, random accepts"),
        3,
        _against("SFT, random accepts", ("SFT", RECOMMENDED, "SFT, oracle accepts")),
        "AUROC",
    ),
    "degradation": Claim(
        "Poor supervision degrades both branches, and the score alone cannot see it",
        ("SFT", *SPOILT),
        3,
        _against("SFT", SPOILT),
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
