"""The gain of generation by the judge that selects: oracle, then self-judge, then random, then inverted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unigap.cli.commands.demo import run_demo, start_of
from unigap.models.base import PromptBatch, SamplingRecipe, UnifiedModel
from unigap.models.janus import Janus

SMALL = {
    "model.init_args.objective": {"class_path": "unigap.objectives.SFT", "init_args": {"keep": 4}},
    "model.init_args.schedule": {"every_n_epochs": 1, "at_epochs": [], "redraw": "discarded"},
    "data.init_args.per_cell": 12,
    "data.init_args.batch_size": 16,
    "regrow.plan.candidates": 4,
    "summary.per_cell": 8,
    "summary.plan.candidates": 3,
    "summary.exam": 0,
    "trainer.max_epochs": 3,
    # gains are measured on test prompts; no assertion reads the validation after each epoch
    "trainer.limit_val_batches": 0,
}
JUDGES = {
    "oracle": {"class_path": "unigap.judges.OracleJudge"},
    "self": {"class_path": "unigap.judges.SelfJudge"},
    "random": {"class_path": "unigap.judges.RandomJudge"},
    "inverted": {
        "class_path": "unigap.judges.InvertedJudge",
        "init_args": {"judge": {"class_path": "unigap.judges.SelfJudge"}},
    },
}


def sampled_once(sample: Callable[..., Any], start: dict[str, torch.Tensor]) -> Callable[..., Any]:
    """``sample_images`` that remembers the samples of the untrained weights, which all four runs share."""
    known: dict[tuple[object, ...], Any] = {}

    def remembering(model: UnifiedModel, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Any:
        if any(not torch.equal(tensor, start[name]) for name, tensor in model.trainable_state().items()):
            return sample(model, prompt, seeds_BN, recipe)
        tensors = (prompt.ids_BL, prompt.mask_BL, prompt.uncond_BL, prompt.uncond_mask_BL, seeds_BN)
        key = (recipe, *map(content, tensors))
        if key not in known:
            known[key] = sample(model, prompt, seeds_BN, recipe)
        return known[key]

    return remembering


def decoded_once(decode: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``decode`` that remembers images: the image tokenizer does not train."""
    known: dict[object, torch.Tensor] = {}

    def remembering(model: UnifiedModel, codes_BM: torch.Tensor) -> torch.Tensor:
        key = content(codes_BM)
        if key not in known:
            known[key] = decode(model, codes_BM)
        return known[key].clone()

    return remembering


def content(tensor: torch.Tensor) -> tuple[torch.Size, bytes]:
    return tensor.shape, tensor.numpy().tobytes()


def test_better_judges_make_better_drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Janus, "sample_images", sampled_once(Janus.sample_images, Janus("shapes").trainable_state()))
    monkeypatch.setattr(Janus, "decode", decoded_once(Janus.decode))
    start, gained = start_of("shapes"), {}
    for name, judge in JUDGES.items():
        (tmp_path / name).mkdir()
        summary = run_demo(start, tmp_path / name, 0, {**SMALL, "model.init_args.judge": judge})
        gained[name] = summary["delta"]["generation"]["value"]
    assert gained["oracle"] >= gained["self"] > gained["random"] > gained["inverted"], gained
    assert gained["self"] > 0.04, gained
    assert gained["inverted"] < 0, gained
