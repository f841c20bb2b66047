"""A fixed number of candidates against drawing until enough are accepted, at the same budget, on the embedded model.

Run ``python -m benchmarks.allocation``; ``--json FILE`` also writes the figures. Every rule has the same seeds, prompts
and number of images it may draw. Intervals are 95 %, from a bootstrap that draws whole prompts with all their seeds;
differences are paired by prompt. An image is right when the oracle, which selects nothing, finds it right; a prompt is
served when something was accepted for it, and rightly served when an accepted image is right.
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
"""Images that prompts are counted per."""


@dataclass(frozen=True)
class Outcome:
    """What each prompt got, float64 (S,).

    Attributes:
        prompt_S: Number of the prompt: what the bootstrap draws.
        drawn_S: Images drawn.
        accepted_S: Those the model's own judge accepted.
        right_S: Those of the accepted that the oracle finds right.
    """

    prompt_S: torch.Tensor
    drawn_S: torch.Tensor
    accepted_S: torch.Tensor
    right_S: torch.Tensor

    def per_prompt(self, counted_S: torch.Tensor) -> Arm:
        """Share of the prompts for which something was counted, as the bootstrap takes it."""
        return (counted_S > 0).double(), torch.ones_like(self.drawn_S), self.prompt_S

    def per_images(self, counted_S: torch.Tensor) -> Arm:
        """Prompts for which something was counted per hundred images drawn, as the bootstrap takes it."""
        return PER * (counted_S > 0).double(), self.drawn_S, self.prompt_S

    def rates(self) -> dict[str, Arm]:
        """How many prompts are served, in all and for what was spent, as the bootstrap takes it."""
        return {
            "served": self.per_prompt(self.accepted_S),
            "rightly served": self.per_prompt(self.right_S),
            f"served / {PER} images": self.per_images(self.accepted_S),
            f"rightly / {PER} images": self.per_images(self.right_S),
        }

    def figures(self) -> dict[str, Estimate]:
        """Shares and rates with their intervals."""
        return {
            "images a prompt": bootstrap_ratio(self.drawn_S, torch.ones_like(self.drawn_S), self.prompt_S),
            **{name: bootstrap_ratio(*arm) for name, arm in self.rates().items()},
            "accepted images right": bootstrap_ratio(self.right_S, self.accepted_S, self.prompt_S),
        }

    def gains(self, fixed: Outcome) -> dict[str, Estimate]:
        """What the rule serves more than a fixed number does, paired by prompt."""
        before = fixed.rates()
        return {name: paired_difference(before[name], arm) for name, arm in self.rates().items()}


def spend(
    model: UnifiedModel, prompts: Sequence[Prompt], rule: Allocation, candidates: int, seeds: Sequence[int]
) -> Outcome:
    """One round a seed, each in a pool of its own."""
    parts: list[torch.Tensor] = []
    own, oracle = SelfJudge(), OracleJudge()
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            pool = Pool.create(Path(folder) / "pool", model.codebook_digest())
            plan = RoundPlan(candidates, seed=seed)
            run_round(model, prompts, (own, oracle), pool, 0, plan, allocation=rule)
            yes = {j.candidate_id for j in pool.judgments(own.name) if j.logit >= 0}
            right = yes & {j.candidate_id for j in pool.judgments(oracle.name) if j.logit > 0}
            place = {prompt.id: number for number, prompt in enumerate(prompts)}
            found_S3 = torch.zeros(len(prompts), 3, dtype=torch.float64)
            for candidate in pool.candidates():
                row = torch.tensor([1.0, candidate.id in yes, candidate.id in right], dtype=torch.float64)
                found_S3[place[candidate.prompt.id]] += row
            parts.append(found_S3)
    prompt_S = torch.arange(len(prompts)).repeat(len(seeds))
    return Outcome(prompt_S, *torch.cat(parts).unbind(1))


@dataclass(frozen=True)
class Row:
    """One rule under one budget.

    Attributes:
        budget: Images that may be drawn, for each prompt.
        rule: Name of the rule.
        figures: What it came to.
        gains: What it serves more than a fixed number does; empty for that one itself.
    """

    budget: int
    rule: str
    figures: dict[str, Estimate]
    gains: dict[str, Estimate]


def measure(model: UnifiedModel, prompts: Sequence[Prompt], budgets: Sequence[int], seeds: int) -> list[Row]:
    """A row for each budget and rule."""
    rows = []
    for budget in budgets:
        found = {name: spend(model, prompts, rule, budget, range(seeds)) for name, rule in RULES.items()}
        fixed = found[FIXED]
        for name, outcome in found.items():
            gains = {} if name == FIXED else outcome.gains(fixed)
            rows.append(Row(budget, name, outcome.figures(), gains))
    return rows


def shown(rows: list[Row]) -> str:
    """The rows as a Markdown table: the figures, and below it the differences to a fixed number."""
    parts = []
    for attribute in ("figures", "gains"):
        with_it = [(row, getattr(row, attribute)) for row in rows if getattr(row, attribute)]
        cells = [[row.budget, row.rule, *map(_cell, found.values())] for row, found in with_it]
        parts.append(table(["budget", "rule", *with_it[0][1]], cells))
    return "\n\nMore than a fixed number:\n\n".join(parts)


def _cell(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def main() -> None:
    """Measures on one thread and prints the table."""
    parser = argparse.ArgumentParser(description="Prompts served by a budget of images, fixed and shared out.")
    parser.add_argument("--checkpoint", default="shapes", help="the embedded model, or a folder")
    parser.add_argument("--budgets", type=int, nargs="+", default=[4, 8], help="images for each prompt")
    parser.add_argument("--per_cell", type=int, default=8, help="prompts for each category and difficulty")
    parser.add_argument("--seeds", type=int, default=3, help="rounds of each rule")
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
