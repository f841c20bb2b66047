"""How ``unigap draw`` draws, and its strip of one prompt before and after the training of a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigap.cli.commands.draw_folder import file_name, verdict_of
from unigap.cli.commands.model_choice import ModelChoice, model_of
from unigap.console import tasks
from unigap.console.closing import close, command
from unigap.files.durable import check_empty_folder, render_json, whole_folder, write_durable
from unigap.files.images import png_bytes
from unigap.files.outputs import refuse_inside_pool
from unigap.files.png import save_figure
from unigap.judges import Judge, check_early
from unigap.judges.base import check_immediate
from unigap.loop.best_of import JudgedImage, best, check_numbers, judged_images
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.records import Prompt
from unigap.report.plots.strip_plot import strip_plot
from unigap.report.run_folder.fit_folder import FitFolder
from unigap.stages.earlier_stage import load_stage

MOST_SHOWN = 8
"""Columns of a strip."""
STRIP, VERDICTS = "strip.png", "verdicts.json"


@dataclass(frozen=True)
class DrawPlan:
    """How images are drawn, judged and kept.

    Attributes:
        n: Images sampled for each prompt.
        keep: Images kept of them.
        seed: Sampling seed of the command.
        sampling: Temperature, guidance and filters.
        usual_cfg: Whether the guidance is that of the checkpoint, instead of that in ``sampling``.
        judge: The judge.

    Raises:
        ValueError: A number is out of range, or the judge cannot judge or answers later.
    """

    n: int
    keep: int
    seed: int
    sampling: SamplingRecipe
    usual_cfg: bool
    judge: Judge

    def __post_init__(self) -> None:
        check_numbers(self.n, self.keep)
        check_immediate(self.judge)
        check_early([self.judge])

    def sampling_of(self, model: UnifiedModel) -> SamplingRecipe:
        """Return how ``model`` samples."""
        return dataclasses.replace(self.sampling, cfg=model.usual_cfg) if self.usual_cfg else self.sampling

    def recipe(self, model: UnifiedModel) -> dict[str, Any]:
        """Return everything that images and verdicts depend on besides the prompts, as plain JSON."""
        how = {"n": self.n, "keep": self.keep, "seed": self.seed, "judge": self.judge.recipe}
        return how | {"sampling": dataclasses.asdict(self.sampling_of(model)), "weights": model.weights_digest()}


def draw_strip(prompt: Prompt, choice: ModelChoice, fit: FitFolder, plan: DrawPlan, out: str) -> None:
    """Draw one prompt with the weights that a run began with and those it ended with; write images and a strip.

    Args:
        prompt: The prompt.
        choice: Device and precision of the model.
        fit: The run.
        plan: How images are drawn.
        out: Folder to write; must be empty or not exist. A killed command writes nothing.

    Raises:
        ValueError: ``out`` is not empty or lies in a pool, or the run trains no unified model.
    """
    refuse_inside_pool(Path(out), "--out")
    check_empty_folder(Path(out))
    model = choice.place(model_of(fit, choice.dtype))
    began = str(((fit.config.get("model") or {}).get("init_args") or {}).get("init_from") or "")
    found: dict[str, list[JudgedImage]] = {}
    for name, weights in (("before", began), ("after", str(fit.checkpoint))):
        if weights:
            load_stage(model, weights)
        with tasks.task("drawing", f"drawing {name} training", plan.n, "image", tasks.IMAGE_PARTS):
            (found[name],) = judged_images(model, [prompt], plan.n, plan.seed, plan.sampling_of(model), plan.judge)
    with whole_folder(Path(out)) as folder:
        _write(folder, prompt.text, found, plan.keep)
    accepted = ", ".join(f"{sum(i.judgment.logit >= 0 for i in images)} {name}" for name, images in found.items())
    print(f"accepted by {plan.judge.name!r}, of {plan.n}: {accepted} training")
    close({"strip": Path(out) / STRIP, "images": out}, command("gap", "--checkpoint", fit.path))


def _write(folder: Path, prompt: str, found: dict[str, list[JudgedImage]], keep: int) -> None:
    """Write the strip of the first seeds, the best images of each model, and the seeds and verdicts of all."""
    rows = []
    for name, images in found.items():
        files = {shown.candidate.index: f"{name}-{file_name(1, shown)}" for shown in best(images, keep)}
        for shown in images:
            file = files.get(shown.candidate.index, "")
            if file:
                write_durable(folder / file, png_bytes(shown.image))
            rows.append({"model": name, "prompt": prompt, "file": file} | verdict_of(shown))
    strip = {name: [(i.image, i.judgment.p_yes) for i in images[:MOST_SHOWN]] for name, images in found.items()}
    save_figure(strip_plot(prompt, strip), folder / STRIP)
    write_durable(folder / VERDICTS, render_json(rows).encode())
