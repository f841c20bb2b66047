"""``unigap calibrate``: the threshold at which a judge is as precise as asked."""

from __future__ import annotations

from unigap.cli.commands.model_choice import ModelChoice
from unigap.evaluation.calibration import calibrate as find_threshold
from unigap.evaluation.probe_sources import CaptionedFile
from unigap.judges import SelfJudge
from unigap.models.base import UnifiedModel
from unigap.world import find_world, world_names


def calibrate(
    checkpoint: str | None = None,
    precision: float = 0.9,
    captions: str | None = None,
    n: int = 600,
    seed: int = 0,
    *,
    world: str = "shapes",
    model: UnifiedModel | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Find the lowest threshold at which enough of what a checkpoint's own judge accepts is right.

    Args:
        checkpoint: ``shapes`` (the default) or another shipped model, a folder, a hub id, or a run of ``unigap fit``.
        precision: Least share of the accepted images that are right, in (0, 1].
        captions: ``.jsonl`` file of images with captions, ``{"image": path, "caption": text}``, every second of which
            is given another's caption; null takes the known pairs of ``world``.
        n: Pairs; the threshold is chosen on one half and examined on the other.
        seed: Which pairs.
        world: The world whose known pairs are taken where there are no ``captions``.
        model: A model of your own by its class path, in place of ``checkpoint``.
        device: Where it runs, e.g. ``cuda:1``; the GPU where there is one, else the CPU, where left out.
        dtype: Precision of the weights of ``checkpoint``, ``float32`` or ``bfloat16``.
    """
    known = find_world(world)
    if known is None:
        raise ValueError(f"unknown world {world!r}; choose one of: {', '.join(world_names())}")
    pairs = CaptionedFile(captions, seed=seed) if captions else known.probe_source("validation", seed)
    found = find_threshold(ModelChoice(checkpoint, model, device, dtype).load(), SelfJudge(), pairs, n, precision)
    print(f"of the accepted, right: {found.precision}\nof the right, accepted: {found.recall}")
    print(f"--model.init_args.objective.init_args.threshold {found.threshold:.8g}")
