"""``unigap prompts``: what a set holds, as a file of prompts, and what of it would be trained and evaluated on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from unigap.prompt_sets import write_prompt_file
from unigap.prompt_sets.contamination import Overlap, find_overlaps, repeats
from unigap.prompt_sets.loading import load_prompts, of_split, read_prompts
from unigap.records import Prompt

TRAINED_ON = ("pretrain", "improve", "train")
"""The names of splits that are trained on; prompts of every other named split are held out."""
TIERS = ("easy", "medium", "hard")
"""The order in which difficulties are shown; what a set calls otherwise comes behind."""


def import_prompts(source: str, out: str, split: str | None) -> None:
    """Prints what a source holds, and writes it as JSONL without what both its training and its held-out part hold."""
    prompts = read_prompts(source)
    train = [prompt for prompt in prompts if prompt.split in TRAINED_ON]
    held_out = [prompt for prompt in prompts if prompt.split and prompt.split not in TRAINED_ON]
    shared = [overlap for overlap in find_overlaps(train, held_out, near=1.0) if overlap.same]
    dropped = {overlap.train.id for overlap in shared}
    kept = [prompt for prompt in prompts if prompt.id not in dropped]
    if split is not None:
        kept = of_split(kept, split, source)
    _print_contents(source, kept)
    _print_overlaps(shared)
    if shared:
        print(f"left out: {len(shared)} training prompts that are held out too")
    if out:
        write_prompt_file(kept, out)
        print(f"prompts: {out} ({len(kept)})")


def audit_prompts(
    train_source: str, held_out_source: str, train_split: str, held_out_split: str, near: float, out: str
) -> None:
    """Prints which training prompts are evaluated on, the same or nearly, and writes the others."""
    train = load_prompts(train_source, train_split)
    held_out = load_prompts(held_out_source, held_out_split)
    overlaps = find_overlaps(train, held_out, near)
    again = repeats(train)
    _print_overlaps(overlaps)
    same = sum(overlap.same for overlap in overlaps)
    print(
        f"{len(train)} training prompts, {len(held_out)} held out: {same} the same, "
        f"{len(overlaps) - same} nearly the same (>= {near}), {len(again)} repeated in training"
    )
    if out:
        dropped = {overlap.train.id for overlap in overlaps} | {prompt.id for prompt in again}
        kept = [prompt for prompt in train if prompt.id not in dropped]
        if not kept:
            raise ValueError(
                f"all {len(train)} training prompts are evaluated on, so {out!r} would be empty; audit against the "
                "prompts you name as data.eval_prompts"
            )
        write_prompt_file(kept, out)
        print(f"prompts: {out} ({len(kept)})")


def _print_contents(source: str, prompts: Sequence[Prompt]) -> None:
    splits = list(dict.fromkeys(prompt.split for prompt in prompts))
    counts = Counter((prompt.category, prompt.difficulty, prompt.split) for prompt in prompts)
    print(f"{source}: {len(prompts)} prompts")
    table = Table("category", "difficulty")
    for split in splits:
        table.add_column(split or "any split", justify="right")
    for category in dict.fromkeys(prompt.category for prompt in prompts):
        tiers = sorted({prompt.difficulty for prompt in prompts if prompt.category == category}, key=_by_tier)
        for tier in tiers:
            table.add_row(category, tier, *(str(counts[category, tier, split]) for split in splits))
    Console(markup=False).print(table)


def _by_tier(difficulty: str) -> tuple[int, str]:
    return (TIERS.index(difficulty) if difficulty in TIERS else len(TIERS), difficulty)


def _print_overlaps(overlaps: Sequence[Overlap]) -> None:
    for found in overlaps:
        kind = "same" if found.same else f"{found.similarity:.2f}"
        print(f"{kind}  {found.train.id} {found.train.text!r}  =  {found.held_out.id} {found.held_out.text!r}")
