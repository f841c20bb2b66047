"""``unigap prompts``: list a prompt set, convert it to JSONL, and find training prompts that are evaluated on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from unigap.console import tasks
from unigap.console.closing import close, command
from unigap.prompt_sets import write_prompt_file
from unigap.prompt_sets.contamination import Overlap, find_overlaps, repeats
from unigap.prompt_sets.loading import load_prompts, of_split, read_prompts
from unigap.records import Prompt

TRAINED_ON = ("pretrain", "improve", "train")
"""Names of the splits to train on; every other named split is held out."""
TIERS = ("easy", "medium", "hard")
"""Order of the difficulties in tables; other difficulties follow in alphabetical order."""


def prompts_import(source: str, *, out: str = "", split: str | None = None) -> None:
    """List a prompt set by category, difficulty and split, and convert it to JSONL.

    Training prompts that are also in a held-out split are dropped.

    Args:
        source: ``NAME:PATH``, e.g. ``geneval:evaluation_metadata.jsonl``, or a ``.txt`` or ``.jsonl`` file.
        out: JSONL file to write. Default: write none.
        split: Keep only this split.
    """
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
        close({"prompts": f"{out} ({len(kept)})"}, command("prompts", "audit", out, "EVALUATION"))
    else:
        close({}, command("prompts", "import", source, "--out", "PROMPTS.jsonl"))


def prompts_audit(
    train: str,
    evaluation: str,
    *,
    out: str = "",
    near: float = 0.9,
    train_split: str = "improve",
    evaluation_split: str = "validation",
) -> None:
    """List training prompts that equal or nearly equal an evaluation prompt, and write the others.

    Args:
        train: Source of the training prompts.
        evaluation: Source of the evaluation prompts.
        out: JSONL file for the training prompts that remain, each text once. Default: write none.
        near: Two texts are nearly equal if they have at least this share of their six-letter sequences in common, in
            (0, 1].
        train_split: Split to train on.
        evaluation_split: Split to evaluate on.
    """
    training = load_prompts(train, train_split)
    held_out = load_prompts(evaluation, evaluation_split)
    with tasks.task("comparing", f"comparing {len(training)} with {len(held_out)} prompts"):
        overlaps = find_overlaps(training, held_out, near)
    repeated = repeats(training)
    _print_overlaps(overlaps)
    same = sum(overlap.same for overlap in overlaps)
    print(
        f"{len(training)} training prompts, {len(held_out)} held out: {same} the same, "
        f"{len(overlaps) - same} nearly the same (>= {near}), {len(repeated)} repeated in training"
    )
    made = {}
    if out:
        dropped = {overlap.train.id for overlap in overlaps} | {prompt.id for prompt in repeated}
        kept = [prompt for prompt in training if prompt.id not in dropped]
        if not kept:
            raise ValueError(
                f"all {len(training)} training prompts are evaluated on, so {out!r} would be empty; audit against the "
                "prompts you name as data.eval_prompts"
            )
        write_prompt_file(kept, out)
        made = {"prompts": f"{out} ({len(kept)})"}
    if made or not (overlaps or repeated):
        prompts = ("--data.prompts", out or train, "--data.eval_prompts", evaluation)
        close(made, command("fit", "--config", "CONFIG.yaml", *prompts))
    else:
        close({}, command("prompts", "audit", train, evaluation, "--out", "PROMPTS.jsonl"))


def _print_contents(source: str, prompts: Sequence[Prompt]) -> None:
    splits = list(dict.fromkeys(prompt.split for prompt in prompts))
    counts = Counter((prompt.category, prompt.difficulty, prompt.split) for prompt in prompts)
    print(f"{source}: {len(prompts)} prompts")
    table = Table("category", "difficulty")
    for split in splits:
        table.add_column(split or "any split", justify="right")
    for category in dict.fromkeys(prompt.category for prompt in prompts):
        tiers = sorted({prompt.difficulty for prompt in prompts if prompt.category == category}, key=_tier_order)
        for tier in tiers:
            table.add_row(category, tier, *(str(counts[category, tier, split]) for split in splits))
    Console(markup=False).print(table)


def _tier_order(difficulty: str) -> tuple[int, str]:
    return (TIERS.index(difficulty) if difficulty in TIERS else len(TIERS), difficulty)


def _print_overlaps(overlaps: Sequence[Overlap]) -> None:
    for overlap in overlaps:
        kind = "same" if overlap.same else f"{overlap.similarity:.2f}"
        print(f"{kind}  {overlap.train.id} {overlap.train.text!r}  =  {overlap.held_out.id} {overlap.held_out.text!r}")
