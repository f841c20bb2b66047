"""Batches that do not fit the memory: what is sampled is kept, and the size that fits is remembered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import improve
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from unigap.judges import SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.loop.references import image_likelihoods
from unigap.loop.round import run_round
from unigap.loop.sampling import sample_candidates
from unigap.models.base import SamplingRecipe
from unigap.models.engine.autoregressive import cumulative, doubling_sums
from unigap.models.engine.memory import BatchLimit, in_fitting_batches
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.records import Prompt

PROMPTS = [
    Prompt(str(i), text) for i, text in enumerate(["a red circle", "a blue square", "six rings", "a black cross"])
]


def limit_rows(target: Any, name: str, most: int, place: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a method run out of memory above ``most`` rows of its argument ``place``; returns the sizes it was given."""
    sizes: list[int] = []
    enough: Callable[..., Any] = getattr(target, name)

    def limited(*args: Any, **options: Any) -> Any:
        sizes.append(len(args[place]))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return enough(*args, **options)

    monkeypatch.setattr(target, name, limited)
    return sizes


def sampled(janus: Any) -> Any:
    (batch,) = sample_candidates(janus, PROMPTS, 2, 0, 0, SamplingRecipe())
    return batch


def test_images_that_cannot_be_decoded_at_once_are_not_sampled_again(
    janus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sampled(janus)
    decoded = limit_rows(janus, "decode", 3, 0, monkeypatch)
    asked = limit_rows(janus, "sample_images", 99, 1, monkeypatch)
    found = sampled(janus)
    assert (asked, decoded) == ([4], [8, 4, 2, 2, 2, 2])
    assert [c.drawing.tolist() for c in found.candidates] == [c.drawing.tolist() for c in expected.candidates]
    torch.testing.assert_close(found.pixels_BCHW, expected.pixels_BCHW, atol=1e-5, rtol=0)


def test_reference_likelihoods_are_computed_in_batches_that_fit(janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = sampled(janus).candidates
    expected = image_likelihoods(janus, candidates)
    sizes = limit_rows(janus, "image_logps", 2, 1, monkeypatch)
    assert image_likelihoods(janus, candidates) == pytest.approx(expected, abs=1e-4)
    assert sizes == [8, 4, 2, 2, 2, 2]


def test_a_round_does_not_try_a_size_again_that_did_not_fit(
    janus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = limit_rows(janus, "sample_images", 1, 1, monkeypatch)
    judged = limit_rows(janus, "judge_answers", 1, 0, monkeypatch)
    pool = Pool.create(tmp_path / "pool", janus.drawing_digest())
    run_round(janus, PROMPTS, [SelfJudge()], pool, 0, RoundPlan(candidates=2, images_per_batch=4))
    assert drawn == [2, 1, 1, 1, 1]
    assert judged == [2, *[1] * 8]


def test_validation_does_not_try_a_size_again_that_did_not_fit(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = limit_rows(Janus, "sample_images", 1, 2, monkeypatch)
    assert improve(janus_folder, "sft", {"data.eval_batch": 4, "data.exam_pictures": 0}, "validate") == 0
    assert drawn[:3] == [4, 2, 1] and len(drawn) > 8 and set(drawn[2:]) == {1}


def test_the_size_that_fits_is_shared_by_calls() -> None:
    tried: list[int] = []

    def run(batch: slice) -> int:
        tried.append(batch.stop - batch.start)
        if tried[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tried[-1]

    limit = BatchLimit()
    for _ in range(2):
        assert sum(in_fitting_batches(run, 6, 6, "no", limit)) == 6
    assert tried == [6, 3, 3, 3, 3]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_sums_by_doubling_are_cumulative_sums(size: int) -> None:
    values = torch.rand(3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    torch.testing.assert_close(doubling_sums(values), values.cumsum(-1), atol=1e-12, rtol=1e-12)


def test_cumulative_sums_on_cuda_need_nothing_that_torch_refuses_as_not_deterministic() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        # a fake tensor needs no GPU
        with FakeTensorMode(), CountsSums() as sums:
            assert cumulative(torch.zeros(3, 16, device="cuda")).device.type == "cuda"
            assert sums.count == 0
            cumulative(torch.zeros(3, 16))
            assert sums.count == 1, "a CPU computes as before"
    finally:
        torch.use_deterministic_algorithms(False)


class CountsSums(TorchDispatchMode):
    """Counts the calls of ``cumsum``."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.cumsum.default
        return func(*args, **(kwargs or {}))
