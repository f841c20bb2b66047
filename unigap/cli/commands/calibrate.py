"""``unigap calibrate``: the threshold at which a judge reaches a given precision."""

from __future__ import annotations

from unigap.cli.commands.model_choice import ModelChoice
from unigap.console.closing import close, command
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
    """Find the lowest threshold at which a checkpoint's own judge reaches a given precision.

    Args:
        checkpoint: ``shapes`` (the default) or another shipped model, a folder, a hub id, or a run of ``unigap fit``.
        precision: Smallest share of the accepted images that must be right, in (0, 1].
        captions: ``.jsonl`` file of images with captions, ``{"image": path, "caption": text}``. Every second image
            gets the caption of another. Default: images and captions of ``world``.
        n: Number of image-caption pairs. The threshold is chosen on one half and measured on the other.
        seed: Seed of the choice of pairs.
        world: World that provides the pairs if there are no ``captions``.
        model: A model of your own by its class path, instead of ``checkpoint``.
        device: Device to run on, e.g. ``cuda:1``. Default: the GPU if there is one, else the CPU.
        dtype: Precision of the weights of ``checkpoint``, ``float32`` or ``bfloat16``.
    """
    known = find_world(world)
    if known is None:
        raise ValueError(f"unknown world {world!r}; choose one of: {', '.join(world_names())}")
    pairs = CaptionedFile(captions, seed=seed) if captions else known.probe_source("validation", seed)
    found = find_threshold(ModelChoice(checkpoint, model, device, dtype).load(), SelfJudge(), pairs, n, precision)
    print(f"of the accepted, right: {found.precision}\nof the right, accepted: {found.recall}")
    option = ("--model.init_args.objective.init_args.threshold", f"{found.threshold:.8g}")
    print(*option)
    close({}, command("fit", "--config", "CONFIG.yaml", *option))
