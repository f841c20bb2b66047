"""``unigap pool import``: images with captions, or preference pairs, as the first round of a pool."""

from __future__ import annotations

from pathlib import Path

from unigap.cli.commands.model_choice import ModelChoice
from unigap.console import tasks
from unigap.console.closing import close, command
from unigap.console.stop_signal import stopped_at_once
from unigap.files.outputs import POOL_FILE
from unigap.judges import SelfJudge
from unigap.loop.importing import (
    ImportPlan,
    PlacedImage,
    RoundTrip,
    Shape,
    check_judge_name,
    import_images,
    place_images,
    prompts_of,
    round_trip,
    side_of,
)
from unigap.models.base import UnifiedModel
from unigap.own_images.sources import read_source
from unigap.pool import Pool
from unigap.prompt_sets import read_prompt_file, write_prompt_file
from unigap.records import Prompt


def pool_import(
    source: str,
    out: str,
    checkpoint: str | None = None,
    judge_name: str = "human",
    split: str = "train",
    shape: Shape = "crop",
    prompts_out: str = "",
    measured: int = 256,
    *,
    model: UnifiedModel | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Import images with captions, or preference pairs, as the first round of a pool to train on.

    The same command continues after a kill.

    Args:
        source: A folder of images with ``metadata.jsonl``, ``metadata.csv`` or a ``.txt`` file for each image; a
            ``.jsonl`` or ``.csv`` file; a ``.tar`` shard of a WebDataset or a folder of them; a Parquet or Arrow file,
            a folder of these, or one of ``datasets``.
        out: Folder of the new pool.
        checkpoint: The model to train: ``shapes`` (the default) or another shipped model, a folder, a hub id, or a run
            of ``unigap fit``.
        judge_name: Name under which the verdicts of the source are stored.
        split: Split of a data set.
        shape: ``crop`` keeps the middle square of an image that is not square; ``pad`` adds grey borders.
        prompts_out: JSONL file for the captions, to train on as ``data.prompts``. Default: write none.
        measured: Number of images for measuring what the tokenizer's round trip loses; 0 measures nothing.
        model: A model of your own by its class path, instead of ``checkpoint``.
        device: Device to run on, e.g. ``cuda:1``. Default: the GPU if there is one, else the CPU.
        dtype: Precision of the weights of ``checkpoint``, ``float32`` or ``bfloat16``.
    """
    judge, choice = SelfJudge(), ModelChoice(checkpoint, model, device, dtype)
    check_judge_name(judge_name, judge)
    if measured < 0:
        raise ValueError(f"measured must be >= 0, got {measured}; 0 measures nothing")
    with tasks.task("reading", f"reading {source}"):
        images = place_images(read_source(source, split), f"source {source!r}")
    chosen = choice.load()
    plan = ImportPlan(judge, judge_name, side_of(chosen, images[0].prompt), shape)
    if not (Path(out) / POOL_FILE).exists():
        Pool.create(out, chosen.drawing_digest(), chosen.drawing_format)
    pool, made = Pool.open(out, chosen.drawing_digest()), {"pool": f"{out} ({len(images)})"}
    if prompts_out:
        _write_prompts(prompts_of(images), prompts_out)
        made["prompts"] = f"{prompts_out} ({len(prompts_of(images))})"
    with stopped_at_once("the same command continues"):
        import_images(chosen, images, pool, plan)
    _print(images, judge_name)
    if measured:
        _print_round_trip(round_trip(chosen, images, plan, measured))
    given = ("--data.pool", out, "--data.prompts", prompts_out or "PROMPTS.jsonl", "--data.eval_prompts", "EVALUATION")
    close(made, command("fit", "--config", "CONFIG.yaml", *given))


def _write_prompts(prompts: list[Prompt], path: str) -> None:
    """Write the prompts, unless an earlier, killed command has."""
    if not (path.endswith(".jsonl") and Path(path).is_file() and read_prompt_file(path) == prompts):
        write_prompt_file(prompts, path)


def _print(images: list[PlacedImage], judge_name: str) -> None:
    right = sum(image.image.right for image in images)
    print(f"{len(prompts_of(images))} prompts, {len(images)} images: {judge_name!r} accepts {right}")


def _print_round_trip(cost: RoundTrip) -> None:
    print(
        f"round trip of {cost.n} images: mean error {cost.levels:.1f} of 255 levels, PSNR {cost.psnr:.1f} dB; of those "
        f"that the model's judge accepts as they are, it rejects afterwards: {cost.lost}"
    )
