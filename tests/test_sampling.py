"""Seeds that depend on what is drawn and on nothing else."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
import torch

from unigap.loop.sampling import sample_candidates, seed_of
from unigap.models.base import SamplingRecipe
from unigap.records import Candidate, Prompt

TEXTS = ("a red circle", "a small red circle left of a large blue square", "six rings", "two blue squares", "a ring")
PROMPTS = [Prompt(f"p{i}", text) for i, text in enumerate(TEXTS)]


def drawn(model: Any, prompts: list[Prompt] = PROMPTS, **changes: Any) -> tuple[list[Candidate], torch.Tensor]:
    options = {"n": 3, "round": 1, "run_seed": 5, "recipe": SamplingRecipe()} | changes
    batches = list(sample_candidates(model, prompts, **options))
    return [c for d in batches for c in d.candidates], torch.cat([d.pixels_BCHW for d in batches])


def test_a_seed_names_run_round_prompt_and_index() -> None:
    keys = list(itertools.product(range(4), range(-1, 4), ("a", "b", "1/0/a", "0/a"), range(4)))
    seeds = [seed_of(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [seed_of(*key) for key in keys]
    assert torch.tensor(seeds).tolist() == seeds  # they fit int64
    assert {seed >> 60 for seed in seeds} == set(range(8))  # and use all of it


def test_candidates_come_prompt_by_prompt_with_their_own_seeds_and_pictures(janus: Any) -> None:
    candidates, pixels = drawn(janus, images_per_batch=6)
    assert [(c.prompt, c.round, c.index) for c in candidates] == [(p, 1, i) for p in PROMPTS for i in range(3)]
    assert [c.seed for c in candidates] == [seed_of(5, 1, c.prompt.id, c.index) for c in candidates]
    assert pixels.shape == (15, 3, 32, 32) and pixels.min() >= -1 and pixels.max() <= 1
    for candidate, picture in zip(candidates, pixels, strict=True):
        assert candidate.drawing.dtype.name == "int32" and candidate.drawing.shape == (16,)
        redrawn = janus.decode(torch.from_numpy(candidate.drawing).long()[None])[0]
        torch.testing.assert_close(picture, redrawn, atol=1e-5, rtol=0)
        logp_BM = janus.image_logps(
            janus.encode_prompt([candidate.prompt.text]), torch.from_numpy(candidate.drawing).long()[None]
        )
        assert candidate.logp == pytest.approx(logp_BM.sum().item(), abs=1e-4)


@pytest.mark.parametrize("recipe", [SamplingRecipe(), SamplingRecipe(cfg=2.0, top_k=9, temperature=0.8)], ids=str)
def test_the_size_of_a_batch_changes_nothing(janus: Any, recipe: SamplingRecipe) -> None:
    expected, pixels = drawn(janus, recipe=recipe)
    for size in (1, 3, 7, 12):
        found, same = drawn(janus, recipe=recipe, images_per_batch=size)
        assert [c.drawing.tolist() for c in found] == [c.drawing.tolist() for c in expected]
        assert [c.logp for c in found] == pytest.approx([c.logp for c in expected], abs=1e-4)
        torch.testing.assert_close(same, pixels, atol=1e-5, rtol=0)


def test_a_batch_holds_whole_prompts_within_its_budget(janus: Any) -> None:
    def sizes(budget: int) -> list[int]:
        batches = sample_candidates(janus, PROMPTS, 3, 0, 0, SamplingRecipe(), images_per_batch=budget)
        return [len(d.candidates) for d in batches]

    assert sizes(7) == [6, 6, 3] and sizes(1) == [3] * 5 and sizes(100) == [15]


def test_other_prompts_and_more_candidates_leave_a_drawing_as_it_is(janus: Any) -> None:
    codes = {c.id: c.drawing.tolist() for c in drawn(janus)[0]}
    more = {c.id: c.drawing.tolist() for c in drawn(janus, PROMPTS[3:0:-1], n=5)[0]}
    assert len(codes.keys() & more.keys()) == 9
    assert all(codes[name] == more[name] for name in codes.keys() & more.keys())


@pytest.mark.parametrize("change", [{"run_seed": 6}, {"round": 2}], ids=str)
def test_another_run_or_round_draws_something_else(janus: Any, change: dict) -> None:
    assert not {tuple(c.drawing) for c in drawn(janus)[0]} & {tuple(c.drawing) for c in drawn(janus, **change)[0]}


def test_no_prompts_no_drawings(janus: Any) -> None:
    assert list(sample_candidates(janus, [], 3, 0, 0, SamplingRecipe())) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"n": 0}, "candidates per prompt must be >= 1, got 0"), ({"images_per_batch": 0}, "images_per_batch must be")],
)
def test_nothing_at_a_time_is_refused(janus: Any, change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        drawn(janus, **change)


def test_a_prompt_the_model_cannot_read_is_named(janus: Any) -> None:
    with pytest.raises(ValueError, match="no word 'unicorn'"):
        drawn(janus, [*PROMPTS, Prompt("u", "a unicorn")])


def short_of_memory(model: Any, most: int, monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """Makes drawing fail above ``most`` images, as a full device does; the sizes that were tried."""
    tried: list[int] = []
    enough = model.sample_images

    def draw(prompt: Any, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Any:
        tried.append(seeds_BN.numel())
        if seeds_BN.numel() > most:
            raise error
        return enough(prompt, seeds_BN, recipe)

    monkeypatch.setattr(model, "sample_images", draw)
    return tried


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate")],
    ids=["cuda", "python", "cpu"],
)
def test_a_batch_that_does_not_fit_is_halved_and_draws_the_same(
    janus: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected, pixels = drawn(janus)
    tried = short_of_memory(janus, 6, monkeypatch, error)
    found, same = drawn(janus)
    assert tried == [15, 6, 6, 3]
    assert [c.drawing.tolist() for c in found] == [c.drawing.tolist() for c in expected]
    torch.testing.assert_close(same, pixels, atol=1e-5, rtol=0)


def test_one_prompt_that_does_not_fit_is_a_clear_end(janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(janus, 2, monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(ValueError, match="out of memory: 3 candidates of one prompt do not fit; draw fewer"):
        drawn(janus)


def test_other_errors_are_not_taken_for_a_lack_of_memory(janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = short_of_memory(janus, 2, monkeypatch, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        drawn(janus)
    assert tried == [15]


def test_a_batch_is_bounded_by_what_the_machine_has(janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes(bytes_an_image: int) -> list[int]:
        monkeypatch.setattr(janus, "drawing_bytes", lambda recipe: bytes_an_image)
        return [len(d.candidates) for d in sample_candidates(janus, PROMPTS, 3, 0, 0, SamplingRecipe())]

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert sizes(1) == [15] and sizes(total // 16) == [6, 6, 3] and sizes(total) == [3] * 5


def test_guidance_doubles_what_an_image_takes(janus: Any) -> None:
    plain, guided = (janus.drawing_bytes(SamplingRecipe(cfg=cfg)) for cfg in (1.0, 5.0))
    assert 0 < plain <= guided <= 2 * plain
