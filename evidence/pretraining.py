"""``python -m evidence pretraining``: whether the gap of a pretrained model is what its card claims.

Self-improvement and a recall control of equal steps start from the same weights and are measured on the same test
prompts and seeds. The page compares what was measured with the targets of the recipe.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

from evidence.arms import run_arms
from evidence.claims.recipes import C_SFT, RECALL
from evidence.claims.run import measure_base, run_arm
from evidence.claims.setting import Setting
from evidence.pretraining_page import BASE, IMPROVED, RECALLED, pretraining_page, target_rows
from unigap.files.durable import write_durable
from unigap.models.files.location import resolve
from unigap.worlds.shapes.pretraining_curve import CURVE


def pretraining_evidence(setting: Setting, seeds: int, jobs: int, out: Path) -> list[Path]:
    """Measure the missing arms and write the page from the results in ``out/pretraining.parquet``.

    Args:
        setting: The model and the prompts; the recall control is ``configs/shapes/recall.yaml``.
        seeds: Seeds of both arms, counted from 0.
        jobs: Arms run at once, each on one thread.
        out: Folder of the page and of the results.

    Raises:
        ValueError: The checkpoint has no pretraining curve, or the file holds results of another setting.
    """
    curve = _curve(setting.checkpoint)
    setting = setting.with_model_defaults()
    path, recipe = out / "pretraining.parquet", setting.recipe()
    first = {f"{BASE}-seed-{seed}": partial(measure_base, setting, "standard", seed) for seed in range(seeds)}
    first |= {f"{IMPROVED}-seed-{seed}": partial(run_arm, setting, C_SFT, seed) for seed in range(seeds)}
    found = run_arms(path, recipe, first, jobs)
    steps = [found[f"{IMPROVED}-seed-{seed}"]["steps"] for seed in range(seeds)]
    recall = {f"{RECALLED}-seed-{seed}": partial(run_arm, setting, RECALL, seed, n) for seed, n in enumerate(steps)}
    found |= run_arms(path, recipe, recall, jobs)
    runs = {arm: [found[f"{arm}-seed-{seed}"] for seed in range(seeds)] for arm in (BASE, IMPROVED, RECALLED)}
    rows = target_rows(curve, runs)
    page, numbers = out / "pretraining.md", out / "pretraining.json"
    write_durable(numbers, json.dumps({"setting": recipe, "rows": rows}, indent=1).encode())
    write_durable(page, pretraining_page(setting, curve, runs, rows).encode())
    return [page, numbers]


def _curve(checkpoint: str) -> list[dict[str, dict[str, float]]]:
    path = Path(resolve(checkpoint)) / CURVE
    if not path.is_file():
        raise ValueError(
            f"checkpoint {checkpoint!r} has no {CURVE}; pretrain it with PretrainingCurve in trainer.callbacks"
        )
    rows: list[dict[str, dict[str, float]]] = json.loads(path.read_text())
    return rows


def demo_setting(checkpoint: str) -> Setting:
    """Return the setting: the training prompts of the demo, and test prompts that nothing was chosen on."""
    return dataclasses.replace(Setting(checkpoint), per_cell=60, skip=0, test_per_cell=20)
