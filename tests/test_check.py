"""``unigap check`` and ``check_model``: every family passes, and each way of breaking the protocol is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unigap.__main__ import main
from unigap.models.base import Answers, PromptBatch, Samples
from unigap.models.families import load_model
from unigap.testing import Subject, check_model, outcomes
from unigap.testing.promises import PROMISES

SHORT = (("red", "a blue one"), ("red?", "is it blue?"))
"""Short prompts and questions: the painter reads bytes one by one."""
EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of the example in the docs, with weights that are not symmetric."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("own_model").Painter


def broken(family: type, **members: Any) -> Any:
    """A model whose class has other members."""
    return type("Broken", (family,), members)()


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("janus", {}),
        ("showo", {}),
        ("emu3", {}),
        ("bagel", {}),
        ("janus_flow", {}),
        ("vila_u", {}),
        ("janus", {"lora_rank": 3, "lora_alpha": 6}),
        ("bagel", {"train": "generation"}),
    ],
)
def test_every_family_keeps_its_promises(family: str, options: dict, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(f"new_{family}")(**options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    check_model(model, reload=None if options else lambda folder: load_model(str(folder)))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_command_lists_every_promise_and_those_left_out(
    painter: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--model", "own_model.Painter", "--model.width", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PROMISES) + 1
    assert sum(line.startswith("left out") for line in lines) == 3  # two of estimates, and saving: no checkpoint
    assert lines[-1] == f"Painter keeps all {len(PROMISES) - 3} promises that apply to it"


def test_the_command_saves_and_loads_a_checkpoint(janus_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--checkpoint", str(janus_folder)]) == 0
    assert "holds     A folder that save writes loads as the same model." in capsys.readouterr().out


def test_the_command_fails_with_what_was_found(
    painter: Any, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(here)
    Path("broken_plugin.py").write_text(
        "from own_model import Painter\n"
        "class Bright(Painter):\n"
        "    def decode(self, drawings_B):\n"
        "        return (super().decode(drawings_B) + 1) / 2\n"
    )
    assert main(["check", "--model", "broken_plugin.Bright"]) == 2
    out, err = capsys.readouterr()
    assert "pixels_have_their_range: no pixel of 6 images is below 0" in out
    assert err.startswith("error: Bright breaks 1 of ")


def summed(family: Any) -> dict[str, Any]:
    return {"image_logps": lambda self, *given: family.image_logps(self, *given).sum(-1)}


def seedless(family: Any) -> dict[str, Any]:
    return {"sample_images": lambda self, p, seeds, recipe: family.sample_images(self, p, seeds * 0, recipe)}


def of_the_batch(family: Any) -> dict[str, Any]:
    return {"sample_images": lambda self, p, seeds, recipe: family.sample_images(self, p, seeds + seeds.sum(), recipe)}


def bright(family: Any) -> dict[str, Any]:
    return {"decode": lambda self, drawings: (family.decode(self, drawings) + 1) / 2}


def loud(family: Any) -> dict[str, Any]:
    return {"decode": lambda self, drawings: family.decode(self, drawings) * 2}


def tempered(family: Any) -> dict[str, Any]:
    """Sampling and scoring agree with each other, but not with what is drawn."""

    def logps(self: Any, prompt: PromptBatch, drawings_R: torch.Tensor, noise_R: Any = None) -> torch.Tensor:
        return family.image_logps(self, prompt, drawings_R, noise_R) * 3

    def sample(self: Any, *given: Any) -> Samples:
        samples = family.sample_images(self, *given)
        return Samples(samples.drawings_BN, samples.logp_BNM * 3)

    return {"image_logps": logps, "sample_images": sample}


def shifted(family: Any) -> dict[str, Any]:
    return {"image_logps": lambda self, *given: family.image_logps(self, *given) - 0.1}


def unguided(family: Any) -> dict[str, Any]:
    """A recipe is accepted, and the likelihood is that of another one."""
    return {"image_logps": lambda self, *given, recipe=None: family.image_logps(self, *given)}


def promptless(family: Any) -> dict[str, Any]:
    def encode(self: Any, texts: Any) -> PromptBatch:
        if not all(texts):
            raise ValueError("empty")
        return family.encode_prompt(self, ["one"] * len(texts))

    return {"encode_prompt": encode}


def padded_right(family: Any) -> dict[str, Any]:
    def encode(self: Any, texts: Any) -> PromptBatch:
        found = family.encode_prompt(self, texts)
        return PromptBatch(found.ids_BL.flip(1), found.mask_BL.flip(1), found.uncond_BL, found.uncond_mask_BL)

    return {"encode_prompt": encode}


def dropping(family: Any) -> dict[str, Any]:
    def logps(self: Any, *given: Any) -> torch.Tensor:
        found = family.image_logps(self, *given)
        return found - torch.rand_like(found) * 0.2 if self.trunk.training else found

    return {"image_logps": logps}


def blind(family: Any) -> dict[str, Any]:
    return {"judge_answers": lambda self, pixels, asked: family.judge_answers(self, pixels * 0, asked)}


def probabilities(family: Any) -> dict[str, Any]:
    """P(yes) in place of its mass, and one verdict an image."""

    def answers(self: Any, pixels: torch.Tensor, asked: Any) -> Answers:
        found = family.judge_answers(self, pixels, asked)
        return Answers(found.logit[:, 0], found.mass[:, 0])

    return {"judge_answers": answers}


def overconfident(family: Any) -> dict[str, Any]:
    def answers(self: Any, pixels: torch.Tensor, asked: Any) -> Answers:
        found = family.judge_answers(self, pixels, asked)
        return Answers(found.logit, found.mass + 1)

    return {"judge_answers": answers}


def crowded(family: Any) -> dict[str, Any]:
    def answers(self: Any, pixels: torch.Tensor, asked: Any) -> Answers:
        found = family.judge_answers(self, pixels, asked)
        return Answers(found.logit + found.logit.sum(1, keepdim=True), found.mass)

    return {"judge_answers": answers}


def everywhere(family: Any) -> dict[str, Any]:
    return {"train_only_trunk": lambda self: self.requires_grad_(True)}


def forgetful(family: Any) -> dict[str, Any]:
    return {"weights_digest": lambda self: "0" * 64}


BROKEN: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "one number an image": (summed, "logps_have_their_shape"),
    "ignored seeds": (seedless, "seeds_decide"),
    "seeds of the batch": (of_the_batch, "batches_do_not_matter"),
    "pixels in [0, 1]": (bright, "pixels_have_their_range"),
    "pixels in [-2, 2]": (loud, "pixels_have_their_range"),
    "likelihoods of another distribution": (tempered, "shares_equal_probabilities"),
    "scoring unlike sampling": (shifted, "sampling_equals_scoring"),
    "likelihoods that ignore the recipe": (unguided, "recipes_are_scored"),
    "ignored prompts": (promptless, "prompts_matter"),
    "padding on the right": (padded_right, "prompts_are_padded_left"),
    "dropout in training": (dropping, "likelihoods_are_deterministic_in_training"),
    "a blind judge": (blind, "the_judge_sees_the_image"),
    "one verdict an image": (probabilities, "verdicts_have_their_shape"),
    "a mass above 1": (overconfident, "verdicts_have_their_shape"),
    "questions that see each other": (crowded, "questions_do_not_see_each_other"),
    "everything trains": (everywhere, "only_the_trunk_trains"),
    "a digest of nothing": (forgetful, "digests_name_weights_and_pixels"),
}


def test_an_estimate_that_takes_a_recipe_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    sketcher = importlib.import_module("own_flow").Sketcher

    def careless(self: Any, prompt: Any, drawings_R: Any, noise_R: Any = None, recipe: Any = None) -> torch.Tensor:
        return sketcher.image_logps(self, prompt, drawings_R, noise_R)

    found = {one.name: one for one in outcomes(Subject(broken(sketcher, image_logps=careless)))}
    assert found["recipes_are_refused"].holds is False and "recipe was accepted" in found["recipes_are_refused"].found
    assert found["recipes_are_scored"].holds is None


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_named(painter: Any, case: str) -> None:
    members, name = BROKEN[case]
    model = broken(painter, **members(painter))
    found = next(one for one in outcomes(Subject(model, *SHORT)) if one.name == name)
    assert found.holds is False and found.found


def test_all_broken_promises_are_told_at_once(painter: Any) -> None:
    model = broken(painter, **bright(painter), **forgetful(painter))
    with pytest.raises(AssertionError, match=r"(?s)Broken breaks 2 promises.*pixels_have.*\ndigests_name"):
        check_model(model, *SHORT)


def test_a_model_without_the_members_of_some_uses_is_whole_without_them(painter: Any) -> None:
    bare = type("Bare", (painter,), {})
    for member in ("save", "add_lora", "lora_target", "text_logps", "drawing_bytes", "blocks"):
        setattr(bare, member, getattr(painter.__mro__[1], member))
    model = bare()
    check_model(model, *SHORT)
    for use in (lambda: model.save("x"), lambda: model.text_logps(None, [], [])):
        with pytest.raises(ValueError, match=r"^Bare has no (save|text_logps); .* needs it$"):
            use()
