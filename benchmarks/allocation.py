"""Compare a fixed number of candidates with sampling until enough are accepted, at equal budget, on the embedded model.

Run ``python -m benchmarks.allocation``; ``--json FILE`` also writes the figures. Every rule has the same seeds, prompts
and budget of images. Intervals are 95 %, from a bootstrap that resamples whole prompts with all their seeds;
differences are paired by prompt. An image is right if the oracle, which selects nothing, accepts it. A prompt is served
if a candidate was accepted for it, and rightly served if an accepted candidate is right.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from unigap.files.markdown import table
from unigap.judges import OracleJudge, SelfJudge
from unigap.loop.allocation import Allocation, FixedCandidates, UntilAccepted
from unigap.loop.plan import RoundPlan
from unigap.loop.round import run_round
from unigap.metrics.intervals import Arm, Estimate, bootstrap_ratio, paired_difference
from unigap.models.base import UnifiedModel
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.prompt_sets.loading import load_prompts
from unigap.records import Prompt

# Shape legend: S prompts of all seeds together.

FIXED = "fixed number"
RULES: dict[str, Allocation] = {
    FIXED: FixedCandidates(),
    "until 1 is accepted, waves of 1": UntilAccepted(1, 1),
    "until 1 is accepted, waves of 2": UntilAccepted(1, 2),
    "until 2 are accepted, waves of 2": UntilAccepted(2, 2),
    "until 4 are accepted, waves of 2": UntilAccepted(4, 2),
}
PER = 100
"""Number of images in the unit of rates."""


@dataclass(frozen=True)
class Outcome:
    """Counts per prompt, float64 (S,).

    Attributes:
        prompt_S: Index of the prompt, the unit of the bootstrap.
        sampled_S: Sampled images.
        accepted_S: Images that the self-judge accepted.
        right_S: Accepted images that the oracle accepts too.
    """

    prompt_S: torch.Tensor
    sampled_S: torch.Tensor
    accepted_S: torch.Tensor
    right_S: torch.Tensor

    def per_prompt(self, counted_S: torch.Tensor) -> Arm:
        """Return the bootstrap input of the share of prompts with a count above zero."""
        return (counted_S > 0).double(), torch.ones_like(self.sampled_S), self.prompt_S

    def per_images(self, counted_S: torch.Tensor) -> Arm:
        """Return the bootstrap input of the prompts with a count above zero, per hundred sampled images."""
        return PER * (counted_S > 0).double(), self.sampled_S, self.prompt_S

    def rates(self) -> dict[str, Arm]:
        """Return the bootstrap inputs of the served prompts, per prompt and per hundred images."""
        return {
            "served": self.per_prompt(self.accepted_S),
            "rightly served": self.per_prompt(self.right_S),
            f"served / {PER} images": self.per_images(self.accepted_S),
            f"rightly / {PER} images": self.per_images(self.right_S),
        }

    def figures(self) -> dict[str, Estimate]:
        """Return shares and rates with their intervals."""
        return {
            "images per prompt": bootstrap_ratio(self.sampled_S, torch.ones_like(self.sampled_S), self.prompt_S),
            **{name: bootstrap_ratio(*arm) for name, arm in self.rates().items()},
            "accepted images right": bootstrap_ratio(self.right_S, self.accepted_S, self.prompt_S),
        }

    def gains(self, fixed: Outcome) -> dict[str, Estimate]:
        """Return the differences from a fixed number of candidates, paired by prompt."""
        before = fixed.rates()
        return {name: paired_difference(before[name], arm) for name, arm in self.rates().items()}


def spend(
    model: UnifiedModel, prompts: Sequence[Prompt], rule: Allocation, candidates: int, seeds: Sequence[int]
) -> Outcome:
    """Collect one round per seed, each in its own pool, and count per prompt."""
    parts: list[torch.Tensor] = []
    own, oracle = SelfJudge(), OracleJudge()
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            pool = Pool.create(Path(folder) / "pool", model.drawing_digest())
            plan = RoundPlan(candidates, seed=seed)
            run_round(model, prompts, (own, oracle), pool, 0, plan, allocation=rule)
            accepted = {j.candidate_id for j in pool.judgments(own.name) if j.logit >= 0}
            right = accepted & {j.candidate_id for j in pool.judgments(oracle.name) if j.logit > 0}
            row_of = {prompt.id: number for number, prompt in enumerate(prompts)}
            counts_S3 = torch.zeros(len(prompts), 3, dtype=torch.float64)
            for candidate in pool.candidates():
                row = torch.tensor([1.0, candidate.id in accepted, candidate.id in right], dtype=torch.float64)
                counts_S3[row_of[candidate.prompt.id]] += row
            parts.append(counts_S3)
    prompt_S = torch.arange(len(prompts)).repeat(len(seeds))
    return Outcome(prompt_S, *torch.cat(parts).unbind(1))


@dataclass(frozen=True)
class Row:
    """Result of one rule with one budget.

    Attributes:
        budget: Images that may be sampled per prompt.
        rule: Name of the rule.
        figures: Shares and rates.
        gains: Differences from a fixed number of candidates; empty for that rule itself.
    """

    budget: int
    rule: str
    figures: dict[str, Estimate]
    gains: dict[str, Estimate]


def measure(model: UnifiedModel, prompts: Sequence[Prompt], budgets: Sequence[int], seeds: int) -> list[Row]:
    """Measure every rule with every budget."""
    rows = []
    for budget in budgets:
        outcomes = {name: spend(model, prompts, rule, budget, range(seeds)) for name, rule in RULES.items()}
        fixed = outcomes[FIXED]
        for name, outcome in outcomes.items():
            gains = {} if name == FIXED else outcome.gains(fixed)
            rows.append(Row(budget, name, outcome.figures(), gains))
    return rows


def shown(rows: list[Row]) -> str:
    """Format the figures, and below them the differences from a fixed number, as Markdown tables."""
    parts = []
    for attribute in ("figures", "gains"):
        filled = [(row, getattr(row, attribute)) for row in rows if getattr(row, attribute)]
        cells = [[row.budget, row.rule, *map(_cell, estimates.values())] for row, estimates in filled]
        parts.append(table(["budget", "rule", *filled[0][1]], cells))
    return "\n\nDifference from a fixed number:\n\n".join(parts)


def _cell(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def main() -> None:
    """Measure on one thread and print the table."""
    parser = argparse.ArgumentParser(
        description="Prompts served by a budget of images, with a fixed number of candidates and with other rules."
    )
    parser.add_argument("--checkpoint", default="shapes", help="name of an embedded model, or a folder")
    parser.add_argument("--budgets", type=int, nargs="+", default=[4, 8], help="images per prompt")
    parser.add_argument("--per_cell", type=int, default=8, help="prompts per category and difficulty")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, one round of each rule per seed")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    prompts = load_prompts("shapes", "improve", args.per_cell)
    rows = measure(Janus(args.checkpoint), prompts, args.budgets, args.seeds)
    print(f"{len(prompts)} prompts, {args.seeds} seeds\n\n{shown(rows)}")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
