"""``unigap draw``: sample images for a prompt, judge them, and write the best as PNG files."""

from __future__ import annotations

from unigap.cli.commands.draw_folder import DrawFolder
from unigap.cli.commands.draw_strip import DrawPlan, draw_strip
from unigap.cli.commands.model_choice import DEFAULT, ModelChoice
from unigap.console import tasks
from unigap.console.closing import close, command
from unigap.console.stop_signal import stopped_at_once
from unigap.judges import Judge, SelfJudge
from unigap.loop.best_of import best, judged_images
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.prompt_sets.loading import read_prompts
from unigap.prompt_sets.rows import distinct
from unigap.records import Prompt
from unigap.report.run_folder.fit_folder import read_fit

FILES = (".txt", ".jsonl")
"""Endings of a file of prompts."""


def draw(
    prompt: str,
    n: int = 16,
    keep: int = 2,
    out: str = "runs/draw",
    checkpoint: str | None = None,
    run: str = "",
    cfg: float | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    *,
    judge: Judge | None = None,
    model: UnifiedModel | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Sample images for a prompt, judge them, and write the best as PNG files; the same command continues after a kill.

    Args:
        prompt: The text of a prompt, or a file of prompts (a name that ends in ``.txt`` or ``.jsonl``).
        n: Images sampled for each prompt.
        keep: Images written for each prompt: those with the highest log-odds of yes.
        out: Folder for the images, their seeds and verdicts; must be empty or not exist, or hold the images of an
            earlier, unfinished command with the same options.
        checkpoint: ``shapes`` (the default) or another shipped model, a folder, a hub id, or a run of ``unigap fit``.
        run: A run of ``unigap fit``: show one prompt before and after its training, with the same seeds.
        cfg: Classifier-free guidance scale, >= 1. Default: that of the checkpoint.
        temperature: Sampling temperature, >= 0.
        seed: Sampling seed.
        judge: The judge by its class path, e.g. ``unigap.judges.VQAJudge``. Default: the model itself.
        model: A model of your own by its class path, instead of ``checkpoint``.
        device: Device to run on, e.g. ``cuda:1``. Default: the GPU if there is one, else the CPU.
        dtype: Precision of the weights of ``checkpoint``, ``float32`` or ``bfloat16``.
    """
    plan = DrawPlan(
        n, keep, seed, SamplingRecipe(temperature, 1.0 if cfg is None else cfg), cfg is None, judge or SelfJudge()
    )
    if run:
        _refuse_with_run(prompt, checkpoint, model)
    prompts, choice = _prompts(prompt), ModelChoice(run or checkpoint, model, device, dtype)
    if run:
        draw_strip(prompts[0], choice, read_fit(run), plan, out)
        return
    folder = DrawFolder(out)
    chosen = choice.load()
    folder.begin(plan.recipe(chosen))
    numbers = {wanted.id: number for number, wanted in enumerate(prompts, 1)}
    missing = folder.missing(prompts)
    progress = tasks.task("drawing", f"drawing into {out}", n * len(missing), "image", tasks.IMAGE_PARTS)
    with stopped_at_once("the same command continues"), progress:
        for images in judged_images(chosen, missing, n, seed, plan.sampling_of(chosen), plan.judge):
            folder.add(numbers[images[0].candidate.prompt.id], images, best(images, keep))
    sampled, accepted = folder.finish(prompts)
    print(f"prompts: {len(prompts)}; images sampled: {sampled}, accepted by {plan.judge.name!r}: {accepted}")
    examined = checkpoint or (DEFAULT if model is None else "FOLDER")
    close({"images": f"{out} ({keep * len(prompts)})"}, command("gap", "--checkpoint", examined))


def _prompts(given: str) -> list[Prompt]:
    """Return the prompts of a file, or the one prompt that is given as text."""
    if given.endswith(FILES):
        return read_prompts(given)
    return distinct([("the prompt", Prompt(given, given))], "the prompt")


def _refuse_with_run(prompt: str, checkpoint: str | None, model: UnifiedModel | None) -> None:
    if checkpoint is not None or model is not None:
        raise ValueError("--run names the models, before and after training; leave --checkpoint and --model out")
    if prompt.endswith(FILES):
        raise ValueError(f"--run shows one prompt, and {prompt!r} is a file; give the text of a prompt")
