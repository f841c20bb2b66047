"""Drawing, judging, likelihoods and training steps on a device that is not the CPU, without having one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from make_believe_cuda import MakeBelieveCuda, built_library
from small_vqa import save_clip, save_llava

from unigap.evaluation.gap import both_verdicts
from unigap.evaluation.gap_meter import GapMeter
from unigap.judges import ClipScoreJudge, Judge, RandomJudge, SelfJudge, VQAJudge
from unigap.loop.judging import judge_samples
from unigap.loop.plan import RoundPlan
from unigap.loop.references import image_likelihoods
from unigap.loop.sampling import SampledBatch, sample_candidates
from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.engine import one_token
from unigap.objectives import DPO, GRPO, NFT, SFT, Joint, KLToBase, Objective, SwapNegatives
from unigap.objectives.negatives import WordNegatives
from unigap.records import Prompt

FAMILIES = ("janus", "showo", "emu3", "bagel")
PROMPTS = [Prompt("0", "a red circle"), Prompt("1", "six rings")]
RECIPE = SamplingRecipe(cfg=2.0)
LOGITS = {"0@0.0": 2.0, "0@0.1": -1.0, "1@0.0": -2.0, "1@0.1": 1.0}
"""Verdicts that give every objective something to learn."""
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "sft": SFT,
    "dpo": DPO,
    "grpo": GRPO,
    "nft": NFT,
    "joint": lambda: Joint(SFT(), [SwapNegatives(WordNegatives([("red", "blue"), ("rings", "crosses")]))]),
    "kl": lambda: KLToBase(SFT()),
}
Twins = tuple[UnifiedModel, UnifiedModel]


@pytest.fixture(scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[MakeBelieveCuda]:
    library = built_library(request.config.cache.mkdir("make-believe-cuda"))
    if library is None:
        pytest.skip("no C++ compiler (g++ or clang++) to build the make-believe CUDA device with")
    torch.ops.load_library(library)
    with pytest.MonkeyPatch.context() as patch, MakeBelieveCuda().present(patch) as present:
        yield present


@pytest.fixture(scope="module", params=FAMILIES)
def twins(request: pytest.FixtureRequest, device: MakeBelieveCuda) -> Twins:
    """The same model on the CPU and on the device."""
    new = request.getfixturevalue(f"new_{request.param}")
    on_cpu, on_device = new(), new().to("cuda")
    for model in (on_cpu, on_device):
        model.reference_state = model.trainable_state()
    return on_cpu, on_device


@pytest.fixture(scope="module")
def drawn(twins: Twins) -> tuple[SampledBatch, SampledBatch]:
    """What each of the twins draws."""
    return sampled_by(twins[0]), sampled_by(twins[1])


def sampled_by(model: UnifiedModel, recipe: SamplingRecipe = RECIPE) -> SampledBatch:
    behaviour = model.exact_likelihood
    (batch,) = sample_candidates(model, PROMPTS, 2, 0, 0, recipe, behaviour=behaviour)
    return batch


# The device itself


def test_the_device_refuses_what_a_gpu_refuses(device: MakeBelieveCuda) -> None:
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    assert there.is_cuda and (there + torch.tensor(1.0)).tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="same device"):
        there + here
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="deterministic"):
            there.cumsum(0)
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_device_counts_when_the_host_waits(device: MakeBelieveCuda) -> None:
    there = torch.arange(4, device="cuda")
    device.waits.clear()
    doubled = (there * 2)[1:]
    assert not device.waits
    assert doubled.sum().item() == 12 and doubled.cpu().tolist() == [2, 4, 6] and there[there > 1].numel() == 2
    assert device.waits.total() == 3, device.waits


def test_a_graph_repeats_its_operations_and_takes_no_host_reads(device: MakeBelieveCuda) -> None:
    x, graph = torch.zeros(2, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = x.view(1, 2).mul(2)
        x.add_(1)
    for expected in ([0, 0], [2, 2]):
        graph.replay()
        assert doubled.tolist() == [expected]
    for refused in (lambda: x.sum().item(), lambda: x + torch.ones(2).to("cuda"), lambda: x[x > 0]):
        with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
            refused()


# The models on it


def test_drawing_judging_and_likelihoods_are_those_of_the_cpu(twins: Twins, drawn: Any) -> None:
    expected, found = drawn
    assert found.pixels_BCHW.is_cuda and not expected.pixels_BCHW.is_cuda
    for mine, other in zip(found.candidates, expected.candidates, strict=True):
        assert mine.stored.dtype == other.stored.dtype
        torch.testing.assert_close(torch.from_numpy(mine.stored), torch.from_numpy(other.stored), atol=1e-2, rtol=0)
    logits, likelihoods = [], []
    for model, batch in zip(twins, drawn, strict=True):
        logits.append([judgment.logit for judgment in judge_samples(model, batch, [SelfJudge()])])
        likelihoods.append(list(image_likelihoods(model, batch.candidates).values()))
    assert logits[1] == pytest.approx(logits[0], abs=1e-2)
    assert likelihoods[1] == pytest.approx(likelihoods[0], rel=1e-3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_its_step(twins: Twins, drawn: Any, name: str) -> None:
    batch, losses = drawn[0], []
    for model in twins:
        objective = OBJECTIVES[name]()
        try:
            objective.prepare(model, RoundPlan(candidates=2, sampling=RECIPE))
        except ValueError:
            assert not model.exact_likelihood
            return
        rows = objective.rows(batch.candidates, LOGITS)
        stored = objective.needs_reference and objective.needs_stored_references and model.exact_likelihood
        references = image_likelihoods(model, batch.candidates) if stored else {}
        collated = objective.collate(rows, references).to(next(model.parameters()).device)
        torch.manual_seed(0)
        result = objective.step(model, collated)
        assert {value.device for value in [result.loss, *result.logs.values()]} <= {result.loss.device}
        losses.append(result.loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4, abs=1e-5)


def test_the_host_waits_for_no_step_of_sampling(twins: Twins, device: MakeBelieveCuda) -> None:
    _, model = twins
    prompt, seeds_BN = model.encode_prompt([prompt.text for prompt in PROMPTS]), torch.arange(4).view(2, 2)
    device.waits.clear()
    model.sample_images(prompt, seeds_BN, RECIPE)
    # uploads of prompts and seeds, and checks for numbers that are not finite; an image has 16 tokens or 5 steps
    assert device.waits.total() < 10, device.waits


def test_everything_runs_under_autocast_and_deterministic_algorithms(twins: Twins) -> None:
    _, model = twins
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            batch = sampled_by(model, SamplingRecipe(cfg=2.0, top_p=0.9 if model.drawing_format is None else 1.0))
            judge_samples(model, batch, [SelfJudge()])
            collated = SFT().collate(batch.candidates, {}).to("cuda")
            loss = SFT().step(model, collated).loss
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.isfinite(batch.pixels_BCHW).all() and loss.isfinite()


def test_captured_steps_draw_the_same_and_read_more_slots_as_they_fill(
    new_janus: Callable[..., UnifiedModel], device: MakeBelieveCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots: list[int] = []
    attend = one_token.attend

    def watched(query: Any, keys: Any, values: Any, bias: torch.Tensor, scaling: float) -> torch.Tensor:
        slots.append(bias.shape[-1])
        return attend(query, keys, values, bias, scaling)

    model = new_janus(compile=True).to("cuda")
    with monkeypatch.context() as patch:
        patch.setattr(one_token, "attend", watched)
        captured = sampled_by(model)
    plain = sampled_by(new_janus())
    # a warm-up and a capture in each layer for each graph; later graphs read more slots
    assert len(slots) == 4 * 2 * len(model.blocks) and len({*slots}) == 4 and slots == sorted(slots)
    assert [c.stored.tolist() for c in captured.candidates] == [c.stored.tolist() for c in plain.candidates]


def test_the_gap_is_that_of_the_cpu(janus: UnifiedModel, new_janus: Any, device: MakeBelieveCuda) -> None:
    results = []
    for model in (janus, new_janus().to("cuda")):
        batch = sampled_by(model)
        own_B, right_B = both_verdicts(model, SelfJudge(), RandomJudge(), batch)
        meter = GapMeter(PROMPTS, 2).to(own_B.device)
        torch.use_deterministic_algorithms(True)
        try:
            meter.update(batch.candidates, own_B, right_B)
            results.append(meter.compute())
        finally:
            torch.use_deterministic_algorithms(False)
    assert str(results[0]) == str(results[1])


@pytest.mark.parametrize("kind", ["vqa", "clip"])
def test_external_judges_follow_the_model(kind: str, tmp_path: Path, janus: Any, new_janus: Any, device: Any) -> None:
    save = {"vqa": save_llava, "clip": save_clip}[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save(tmp_path)
    batch, there = sampled_by(janus), new_janus().to("cuda")

    def make() -> Judge:
        return VQAJudge(str(tmp_path)) if kind == "vqa" else ClipScoreJudge(str(tmp_path), 20)

    expected = make().logits(janus, batch.candidates, batch.pixels_BCHW)
    found = make().logits(there, batch.candidates, batch.pixels_BCHW.to("cuda"))
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=0)
