"""The setting that all arms share: the model they start from, the prompts, and how they are measured."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence.fit import COUNTED, Overrides, spec
from unigap.loop.plan import RoundPlan
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.families import FAMILIES, load_model
from unigap.models.files.config import check_family, model_type
from unigap.prompt_sets.loading import load_prompts
from unigap.records import Prompt

HARD = (("count", "medium"), ("count", "hard"), ("spatial", "medium"), ("spatial", "hard"))
"""Cells of the hard set: categories and tiers, chosen before any image was sampled for their prompts."""
EVAL_SEED = 2_000_000
"""Added to the seed of an arm for the images it is measured on."""


@dataclass(frozen=True)
class Setting:
    """The setting of the arms.

    Attributes:
        checkpoint: The model they all start from.
        weights: Fingerprint of its weights.
        cfg: Guidance scale of sampling.
        per_cell: Training prompts for each (category, difficulty).
        split: Split of the prompts that are measured on: ``test``, or ``validation`` to choose between recipes.
        skip: Test prompts of each (category, difficulty) left out, because other figures were tuned on them.
        test_per_cell: Prompts of each (category, difficulty) measured on, after those.
        test_candidates: Images sampled for each of them.
        exam: Rendered images with true and false captions, on which understanding is measured.
        batch_size: Rows a step.
    """

    checkpoint: str = "shapes"
    weights: str = ""
    cfg: float = 1.0
    per_cell: int = 40
    split: str = "test"
    skip: int = 20
    test_per_cell: int = 40
    test_candidates: int = 4
    exam: int = 600
    batch_size: int = 32

    def recipe(self) -> dict[str, object]:
        """Return what the results depend on, as plain JSON: the weights of the model, not the name of its folder."""
        settings = dataclasses.asdict(self)
        del settings["checkpoint"]
        return settings

    def with_model_defaults(self) -> Setting:
        """Return the setting with the fingerprint of the model and the guidance scale that its checkpoint names."""
        model = self.open()
        return dataclasses.replace(self, weights=model.weights_digest(), cfg=model.usual_cfg)

    def model_spec(self) -> dict[str, Any]:
        """Return the model as ``model.init_args.model`` of a config."""
        kind = model_type(self.checkpoint)
        check_family(self.checkpoint, kind, FAMILIES)
        return spec(f"{FAMILIES[kind].__module__}.{FAMILIES[kind].__name__}", checkpoint=self.checkpoint)

    def open(self) -> UnifiedModel:
        """Load the model that all arms start from."""
        return load_model(self.checkpoint)

    def options(self, prompts: str, seed: int, folder: Path) -> Overrides:
        """Return the options of ``unigap fit`` that all arms share.

        Args:
            prompts: ``standard`` or ``hard`` training prompts.
            seed: Seed of the run.
            folder: Folder for the file of the training prompts.
        """
        return COUNTED | {
            "seed_everything": seed,
            "model.init_args.model": self.model_spec(),
            "model.init_args.external": "unigap.judges.OracleJudge",
            "model.init_args.warmup_steps": 10,
            "model.init_args.eval_plan": {"candidates": 2, "sampling": {"cfg": self.cfg}, "seed": EVAL_SEED - 1},
            "regrow.plan.sampling.cfg": self.cfg,
            "data.init_args.prompts": _write(self.train_prompts(prompts), folder / "prompts.jsonl"),
            "data.init_args.per_cell": None,
            "data.init_args.batch_size": self.batch_size,
            "data.init_args.eval_prompts": "shapes",
            "data.init_args.eval_per_cell": 8,
            "data.init_args.exam_pictures": 0,
            "trainer.limit_val_batches": 0,
        }

    def test_plan(self, seed: int) -> RoundPlan:
        """Return how images are sampled for the prompts that arms of a seed are measured on."""
        return RoundPlan(self.test_candidates, SamplingRecipe(cfg=self.cfg), seed=EVAL_SEED + seed)

    def train_prompts(self, prompts: str) -> list[Prompt]:
        """Return the prompts to improve on: ``standard`` or ``hard``."""
        return _kept(load_prompts("shapes", "improve", self.per_cell), prompts)

    def test_prompts(self, prompts: str) -> list[Prompt]:
        """Return the prompts to measure on; of the test split, those after the first ``skip`` of each cell."""
        if self.split != "test":
            return _kept(load_prompts("shapes", self.split, self.test_per_cell), prompts)
        tuned = {prompt.id for prompt in load_prompts("shapes", "test", self.skip)} if self.skip else set()
        listed = load_prompts("shapes", "test", self.skip + self.test_per_cell)
        return _kept([prompt for prompt in listed if prompt.id not in tuned], prompts)


def _kept(prompts: list[Prompt], name: str) -> list[Prompt]:
    if name == "standard":
        return prompts
    assert name == "hard", name
    return [prompt for prompt in prompts if (prompt.category, prompt.difficulty) in HARD]


def _write(prompts: list[Prompt], path: Path) -> str:
    lines = [{name: value for name, value in dataclasses.asdict(p).items() if name != "truth"} for p in prompts]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)
