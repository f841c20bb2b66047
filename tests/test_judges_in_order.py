"""The gain of generation by the judge that selects: oracle, then self-judge, then random, then inverted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unigap.cli.commands import demo
from unigap.cli.commands.demo import DemoPlan, run_demo
from unigap.data import PoolData
from unigap.judges import InvertedJudge, Judge, OracleJudge, RandomJudge, SelfJudge
from unigap.models.base import PromptBatch, SamplingRecipe, UnifiedModel
from unigap.models.janus import Janus
from unigap.objectives import SFT

PLAN = DemoPlan(
    per_cell=12, candidates=4, epochs=3, lr=1.5e-4, eval_per_cell=8, eval_candidates=3, exam=0, batch_size=16
)


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
    # gains are measured on test prompts; no assertion reads the validation after each epoch, so keep it small
    monkeypatch.setattr(demo, "PoolData", lambda **options: PoolData(**{**options, "eval_per_cell": 1}))
    monkeypatch.setattr(Janus, "sample_images", sampled_once(Janus.sample_images, Janus("shapes").trainable_state()))
    monkeypatch.setattr(Janus, "decode", decoded_once(Janus.decode))
    judges: dict[str, Judge] = {
        "oracle": OracleJudge(),
        "self": SelfJudge(),
        "random": RandomJudge(),
        "inverted": InvertedJudge(SelfJudge()),
    }
    gained = {}
    for name, judge in judges.items():
        (tmp_path / name).mkdir()
        summary = run_demo(PLAN, tmp_path / name, "csv", judge, SFT(keep=4))
        gained[name] = summary["delta"]["generation"]["value"]
    assert gained["oracle"] >= gained["self"] > gained["random"] > gained["inverted"], gained
    assert gained["self"] > 0.04, gained
    assert gained["inverted"] < 0, gained
