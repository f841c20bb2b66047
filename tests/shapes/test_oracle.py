"""The oracle: right on every render, fooled by no near miss, and never sure of a broken drawing."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from plain_truths import is_true
from torch.nn import functional as F

from unigap.worlds.shapes.grammar import CATEGORIES, DIFFICULTIES, Description, parse
from unigap.worlds.shapes.lessons import pictures, slip, twist
from unigap.worlds.shapes.oracle import Recognized, read, verdicts
from unigap.worlds.shapes.prompt_sets import SPLITS, descriptions
from unigap.worlds.shapes.scenes import CELL, GRID, JITTER, KINDS, Placed, imagine, render

# Shape legend: B images, C channels, H rows, W columns.

DRAWN = [Placed(kind, 1, 2, dy, dx) for kind, dy, dx in itertools.product(KINDS, range(JITTER), range(JITTER))]
"""One object of every kind at every jitter, always in the same cell."""
TOP, LEFT = CELL, 2 * CELL


@pytest.fixture(scope="module")
def told() -> list[tuple[Description, tuple[Placed, ...]]]:
    """Prompts of all splits, categories and tiers, each with a scene that shows it."""
    rng = random.Random(0)
    pairs = []
    for cell in itertools.product(CATEGORIES, DIFFICULTIES, SPLITS):
        every = descriptions(*cell)
        pairs += [(d, imagine(d, rng)) for d in rng.sample(every, min(len(every), 40))]
    return pairs


def as_read(reading: Recognized) -> list[Placed]:
    return sorted(reading.scene, key=lambda placed: (placed.row, placed.col))


def blur(images_BCHW: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur with replicated borders."""
    reach = torch.arange(-6, 7)
    weight = torch.exp(-reach.square() / (2 * sigma**2))
    weight = (weight / weight.sum()).expand(3, 1, -1)
    padded = F.pad(images_BCHW, (6, 6, 6, 6), mode="replicate")
    return F.conv2d(F.conv2d(padded, weight[..., None], groups=3), weight[..., None, :], groups=3)


def accepted(cases: Sequence[tuple[Description, tuple[Placed, ...]]], sigma: float = 0.0) -> list[bool]:
    """The oracle's verdicts on pictures of scenes, blurred where ``sigma`` is not 0."""
    said: list[bool] = []
    for start in range(0, len(cases), 200):
        some = cases[start : start + 200]
        images = pictures([scene for _, scene in some])
        said += verdicts([d for d, _ in some], blur(images, sigma) if sigma else images).tolist()
    return said


def tally(images_BCHW: torch.Tensor) -> Counter[str]:
    """How the damaged pictures of ``DRAWN`` are read: ``right``, ``broken``, as ``another`` object, or ``missing``."""
    found: Counter[str] = Counter()
    for placed, reading in zip(DRAWN, read(images_BCHW), strict=True):
        if reading.broken:
            found["broken"] += 1
        elif not reading.scene:
            found["missing"] += 1
        else:
            found["right" if [p.thing for p in reading.scene] == [placed.thing] else "another"] += 1
    return found


# Renders


def test_every_render_is_read_back_exactly(told: list[tuple[Description, tuple[Placed, ...]]]) -> None:
    assert len(told) > 1000
    readings = read(pictures([scene for _, scene in told]))
    for (description, scene), reading in zip(told, readings, strict=True):
        assert reading.broken == 0
        assert as_read(reading) == sorted(scene, key=lambda placed: (placed.row, placed.col))
        assert reading.shows(description)


def test_every_kind_is_read_in_every_cell_and_jitter() -> None:
    for row, col in itertools.product(range(GRID), repeat=2):
        scenes = [[Placed(p.thing, row, col, p.dy, p.dx)] for p in DRAWN]
        for scene, reading in zip(scenes, read(pictures(scenes)), strict=True):
            assert reading == Recognized(tuple(scene), 0)


def test_no_near_miss_is_accepted(told: list[tuple[Description, tuple[Placed, ...]]]) -> None:
    """One attribute, relation, count or object changed, in the words or in the picture."""
    rng = random.Random(1)
    cases = [(twist(description, rng), scene) for description, scene in told for _ in range(2)]
    cases += [(description, slip(scene, rng)) for description, scene in told]
    truths = [is_true(description, scene) for description, scene in cases]
    assert truths.count(False) > 0.9 * len(told)
    assert any(truths)
    assert accepted(cases) == truths


# Damaged drawings


@pytest.mark.parametrize("sigma", [0.4, 0.5, 0.6, 0.7, 0.8, 1.0])
def test_a_blurred_object_is_never_taken_for_another(sigma: float) -> None:
    found = tally(blur(pictures([[placed] for placed in DRAWN]), sigma))
    assert found["another"] == 0, found
    if sigma <= 0.4:
        assert found["right"] == len(DRAWN), found
    if sigma <= 0.5:
        assert found["right"] > 0.9 * len(DRAWN), found


@pytest.mark.parametrize("sigma", [0.4, 0.6])
def test_mild_blur_makes_no_wrong_description_true(
    sigma: float, told: list[tuple[Description, tuple[Placed, ...]]]
) -> None:
    rng = random.Random(2)
    told = told[::2]
    cases = [(twist(description, rng), scene) for description, scene in told]
    cases += [(description, slip(scene, rng)) for description, scene in told]
    cases = [(description, scene) for description, scene in cases if not is_true(description, scene)]
    assert not any(accepted(cases, sigma))
    if sigma < 0.5:
        assert all(accepted(told, sigma))


@pytest.mark.parametrize("half", ["left", "right", "top", "bottom"])
def test_half_an_object_is_not_another_one_nor_none(half: str) -> None:
    images = pictures([[placed] for placed in DRAWN])
    rows = {"top": slice(TOP, TOP + CELL // 2), "bottom": slice(TOP + CELL // 2, TOP + CELL)}
    cols = {"left": slice(LEFT, LEFT + CELL // 2), "right": slice(LEFT + CELL // 2, LEFT + CELL)}
    y, x = rows.get(half, slice(TOP, TOP + CELL)), cols.get(half, slice(LEFT, LEFT + CELL))
    images[:, :, y, x] = render([])[:, y, x]
    found = tally(images)
    assert found["another"] == found["missing"] == 0, found
    assert found["broken"] > 0.8 * len(DRAWN), found


@pytest.mark.parametrize("strength", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_a_faint_object_is_not_another_one_nor_none(strength: float) -> None:
    found = tally(torch.lerp(render([]), pictures([[placed] for placed in DRAWN]), strength))
    assert found["another"] == found["missing"] == 0, found
    if strength == 0.9:
        assert found["right"] == len(DRAWN), found


@pytest.mark.parametrize("spread", [0.05, 0.1, 0.2, 0.4, 0.8])
def test_pixel_noise_is_shrugged_off_or_broken(spread: float) -> None:
    images = pictures([[placed] for placed in DRAWN])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    found = tally(images + spread * noise)
    assert found["another"] == found["missing"] == 0, found
    if spread <= 0.1:
        assert found["right"] == len(DRAWN), found
    if spread == 0.8:
        assert found["broken"] == len(DRAWN), found


def test_the_average_of_two_objects_is_neither() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randint(len(DRAWN), (2, 2500), generator=generator).tolist()
    pairs = [(DRAWN[i], DRAWN[j]) for i, j in zip(one, two, strict=True) if DRAWN[i].thing != DRAWN[j].thing]
    averages = (pictures([[a] for a, _ in pairs]) + pictures([[b] for _, b in pairs])) / 2
    named = 0
    for (a, b), reading in zip(pairs, read(averages), strict=True):
        seen = {placed.thing for placed in reading.scene}
        assert reading.broken or not seen <= {a.thing, b.thing}, (a, b, reading)
        named += not reading.broken
    assert named < 0.05 * len(pairs)  # red over blue truly is purple


def test_the_average_of_two_pictures_is_neither(told: list[tuple[Description, tuple[Placed, ...]]]) -> None:
    turned = told[1:] + told[:1]
    averages = (pictures([scene for _, scene in told]) + pictures([scene for _, scene in turned])) / 2
    for (ours, scene), (theirs, other), reading in zip(told, turned, read(averages), strict=True):
        assert not (reading.shows(ours) and not is_true(ours, other)), (scene, other)
        assert not (reading.shows(theirs) and not is_true(theirs, scene)), (scene, other)


def test_noise_and_flat_color_show_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((64, 3, 32, 32), generator=generator) * 2 - 1
    flat = torch.linspace(-1, 0.5, 16)[:, None, None, None].expand(-1, 3, 32, 32)
    for reading in read(torch.cat([noise, noise.sign(), flat])):
        assert reading == Recognized((), GRID * GRID)
    assert read(render([])[None]) == [Recognized((), 0)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("size", [32, 64])
def test_a_value_that_is_not_finite_breaks_its_cell(value: float, size: int) -> None:
    scene = [Placed(KINDS[0], 0, 0), Placed(KINDS[7], 3, 3)]
    image = F.interpolate(render(scene)[None], (size, size))
    image[0, 1, size // 2 + size // 8, size // 2 + size // 8] = value
    (reading,) = read(image)
    assert reading.broken == 1
    assert reading.scene == tuple(scene)
    assert not reading.shows(parse("a small red circle and a large red square"))
    assert [reading.broken for reading in read(torch.full((2, 3, size, size), value))] == [GRID * GRID] * 2


# Any image


@pytest.mark.parametrize(("size", "mode"), [(64, "nearest"), (64, "bicubic"), (96, "nearest"), (256, "bicubic")])
def test_enlarged_renders_are_read_alike(size: int, mode: str) -> None:
    images = pictures([[placed] for placed in DRAWN[::3]])
    readings = read(F.interpolate(images, (size, size), mode=mode))
    seen = [[placed.thing for placed in reading.scene] for reading in readings if not reading.broken]
    drawn = [[p.thing] for p, reading in zip(DRAWN[::3], readings, strict=True) if not reading.broken]
    assert seen == drawn
    assert len(seen) >= 0.95 * len(readings)


def test_images_are_read_one_by_one_or_together_in_any_precision() -> None:
    rng = random.Random(3)
    images = pictures([imagine(parse("a ring, two red crosses and a square"), rng) for _ in range(20)])
    images[::4] += torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.3
    before = images.clone()
    readings = read(images)
    assert [read(image[None])[0] for image in images] == readings
    assert read(images.double()) == readings
    assert read(images.requires_grad_()) == readings
    assert torch.equal(images, before)
    assert read(before[1::4].bfloat16()) == readings[1::4]


def test_values_beyond_the_range_are_clipped() -> None:
    images = pictures([[placed] for placed in DRAWN])
    stretched = torch.where(images > 0.95, 5.0, images)
    assert [reading.scene for reading in read(stretched)] == [reading.scene for reading in read(images.clamp(-1, 1))]


def test_nothing_to_judge_gives_nothing() -> None:
    assert read(torch.zeros(0, 3, 32, 32)) == []
    said = verdicts([], torch.zeros(0, 3, 32, 32))
    assert said.shape == (0,)
    assert said.dtype == torch.bool


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3), (32, 32), (), (1, 1, 3, 32, 32), (1, 3, 0, 32)]
)
def test_other_shapes_are_refused_in_one_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^images must have shape \(B, 3, H, W\)[^\n]*$"):
        read(torch.zeros(shape))


def test_each_image_needs_its_description() -> None:
    with pytest.raises(ValueError):
        verdicts([parse("a ring")], torch.zeros(2, 3, 32, 32))
