"""Show-o's folders: what is saved loads again, what is damaged is named, and the published tensors find their place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from broken_checkpoints import (
    Breakage,
    add_words,
    edit_config,
    edit_json,
    edit_weights,
    expect_pickles_unopened,
    expect_refusal,
    remove,
    truncate,
    write,
)
from safetensors.torch import save_file
from small_showo import SMALL_MAGVIT, small_network, small_showo
from torch.nn import functional as F

import unigap.models.showo.checkpoint as checkpoint_module
from benchmarks.published_showo import published, random_published
from unigap.models.base import SamplingRecipe
from unigap.models.showo import ShowO
from unigap.models.showo.chat_template import MARKS, with_marks
from unigap.models.showo.checkpoint import convert_official, official_names, official_shape
from unigap.models.showo.magvit import MagvitConfig
from unigap.models.showo.network import ShowONetwork
from unigap.worlds.shapes.untrained.showo import make_words

PROMPTS = ["a red circle", "six rings"]
CODES = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))


def answers(model: ShowO) -> list[torch.Tensor]:
    """Everything a model says of fixed images and pictures."""
    prompt = model.encode_prompt(PROMPTS)
    drawn = model.sample_images(prompt, torch.arange(4).view(2, 2), SamplingRecipe(cfg=2.0))
    pictures = model.decode(CODES)
    with torch.no_grad():
        judged = model.judge_logit(pictures, [["is it red?"], ["six rings?"]])
        return [drawn.drawings_BN, drawn.logp_BNM, pictures, judged, model.image_logps(prompt, CODES)]


# Our own layout


def test_a_saved_model_loads_as_the_same_model(showo_folder: Path) -> None:
    model, loaded = small_showo(), ShowO(str(showo_folder))
    for expected, found in zip(answers(model), answers(loaded), strict=True):
        assert torch.equal(expected, found)
    assert loaded.weights_digest() == model.weights_digest() and loaded.drawing_digest() == model.drawing_digest()
    assert not any(module.training for module in loaded.modules() if module is not loaded)
    assert sorted(path.name for path in showo_folder.iterdir() if path.suffix != ".jinja") == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_what_draws_or_measures_differently_has_another_digest(showo_folder: Path) -> None:
    given = {"steps": 5, "choice_temperature": 2.0, "likelihood_masks": 2}
    digests = {ShowO(str(showo_folder), **{name: value}).weights_digest() for name, value in given.items()}
    assert len(digests | {ShowO(str(showo_folder)).weights_digest()}) == 4


def test_half_precision_is_for_the_language_model_alone(showo_folder: Path) -> None:
    model = ShowO(str(showo_folder), dtype="bfloat16")
    assert {p.dtype for p in model.net.llm.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.net.magvit.parameters()} == {torch.float32}
    found, expected = answers(model), answers(ShowO(str(showo_folder)))
    assert torch.equal(found[2], expected[2])
    torch.testing.assert_close(found[4].sum(-1), expected[4].sum(-1), rtol=0.05, atol=0)


BREAKAGES: dict[str, tuple[Breakage, str]] = {
    "no config": (remove("config.json"), "no config.json"),
    "junk config": (write("config.json", b"junk{"), "not a JSON object"),
    "config is a list": (write("config.json", b"[1]"), "not a JSON object"),
    "another model": (edit_config(model_type="janus"), "'janus' model, not 'show-o'"),
    "no shape": (edit_config(llm=None), "does not load as Show-o"),
    "a shape of a wrong kind": (edit_config(llm={"hidden_size": "x"}), "does not load as Show-o: .*hidden_size"),
    "no grid": (edit_config(grid=0), "grid must be >= 1, got 0"),
    "no place for a question": (edit_config(question="USER:"), "has no field {question}"),
    "too few words": (edit_config(llm={"vocab_size": 60}), "too small for 64 image codes"),
    "no end of layers": (edit_json("config.json", ["llm", "num_hidden_layers"], 10**9), "num_hidden_layers = 10"),
    "no end of blocks": (
        edit_json("config.json", ["magvit", "encoder_blocks", 0], 10**9),
        "encoder_blocks = 1000000000",
    ),
    "no pad token": (edit_json("tokenizer_config.json", ["pad_token"], ...), "names no pad_token"),
    "no first token": (edit_json("tokenizer_config.json", ["bos_token"], ...), "names no bos_token"),
    "more words than weights": (add_words("tokenizer.json", 3), "gives '.*' the id"),
    "no weights": (remove("model.safetensors"), "does not load as Show-o"),
    "truncated weights": (truncate, "does not load as Show-o"),
    "empty weights": (write("model.safetensors", b""), "does not load as Show-o"),
    "a weight missing": (
        edit_weights(lambda weights: weights.pop("llm.lm_head.bias")),
        "the weights 'llm.lm_head.bias' are missing",
    ),
    "a weight too many": (
        edit_weights(lambda weights: weights.update({"what": torch.zeros(3)})),
        "the weights 'what' are unknown",
    ),
    "a weight of another shape": (
        edit_weights(lambda weights: weights.update({"llm.lm_head.bias": torch.zeros(3)})),
        r"'llm.lm_head.bias' have shape \(3,\)",
    ),
    "a weight that is no number": (
        edit_weights(lambda weights: weights["llm.lm_head.bias"].fill_(math.nan)),
        "'llm.lm_head.bias' are not finite",
    ),
    "no tokenizer": (remove("tokenizer.json"), "does not load as Show-o"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_damaged_folder_gives_one_line_that_names_it(showo_folder: Path, tmp_path: Path, name: str) -> None:
    expect_refusal(ShowO, showo_folder, tmp_path / "broken", BREAKAGES[name])


def test_pickled_weights_are_not_even_opened(showo_folder: Path, tmp_path: Path) -> None:
    expect_pickles_unopened(ShowO, showo_folder, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "showlab/show-o"}, "a hub id, and Show-o loads from a folder that unigap wrote"),
        ({"checkpoint": "shapes"}, "'janus' model, not 'show-o'"),
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"choice_temperature": -1.0}, "choice_temperature must be >= 0"),
        ({"likelihood_masks": 0}, "likelihood_masks must be >= 1, got 0"),
    ],
)
def test_options_that_cannot_be_are_refused(showo_folder: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShowO(**({"checkpoint": str(showo_folder)} | options))


# The published layout


def test_every_published_tensor_has_its_place_at_full_size() -> None:
    shape = official_shape()
    assert (shape.llm.vocab_size, shape.first_code, shape.mask, shape.side) == (58_498, 50_305, 58_497, 256)
    assert official_shape(grid=32).side == 512
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in ShowONetwork(shape).state_dict().items()}
        state = official_names({name: torch.empty(size) for name, size in published(shape) if "quantize" not in name})
    assert {name: tensor.shape for name, tensor in state.items()} == expected
    assert shape.magvit == MagvitConfig() and shape.llm.rope_parameters["partial_rotary_factor"] == 0.5


class PublishedMagvit:
    """The published tokenizer, written out from its tensors by their published names."""

    def __init__(self, state: Mapping[str, torch.Tensor], config: MagvitConfig) -> None:
        self.state, self.config = state, config

    def conv(self, name: str, x: torch.Tensor, **how: int) -> torch.Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **how)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.group_norm(x, self.config.groups, weight, bias, 1e-6)

    def block(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), padding=1)
        y = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", y)), padding=1)
        return y + (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.bias" in self.state else x)

    def middle(self, half: str, x: torch.Tensor) -> torch.Tensor:
        x = self.block(f"{half}.mid.block_1", x)
        y = self.norm(f"{half}.mid.attn_1.norm", x)
        q, k, v = (self.conv(f"{half}.mid.attn_1.{part}", y).flatten(2) for part in "qkv")
        weight = (q.transpose(1, 2) @ k / math.sqrt(q.shape[1])).softmax(-1)
        x = x + self.conv(f"{half}.mid.attn_1.proj_out", (v @ weight.transpose(1, 2)).view_as(x))
        return self.block(f"{half}.mid.block_2", x)

    def end(self, half: str, x: torch.Tensor) -> torch.Tensor:
        return self.conv(f"{half}.conv_out", F.silu(self.norm(f"{half}.norm_out", x)), padding=1)

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv("encoder.conv_in", x, padding=1)
        for level, blocks in enumerate(self.config.encoder_blocks):
            for number in range(blocks):
                x = self.block(f"encoder.down.{level}.block.{number}", x)
            if level < len(self.config.encoder_blocks) - 1:
                x = self.conv(f"encoder.down.{level}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
        return self.conv("encoder.quant_conv", self.end("encoder", self.middle("encoder", x)))

    def decoded(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv("decoder.conv_in", self.conv("decoder.post_quant_conv", x), padding=1)
        x = self.middle("decoder", x)
        for level in reversed(range(len(self.config.decoder_blocks))):
            for number in range(self.config.decoder_blocks[level]):
                x = self.block(f"decoder.up.{level}.block.{number}", x)
            if level:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self.conv(f"decoder.up.{level}.upsample.conv", x, padding=1)
        return self.end("decoder", x)


def test_published_tensors_become_a_model_that_computes_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = small_network(with_marks(make_words())).shape
    state = random_published(shape)
    files = [str(tmp_path / name) for name in ("show-o.safetensors", "magvitv2.safetensors")]
    save_file({name: t for name, t in state.items() if name.startswith("showo.")}, files[0])
    save_file({name: t for name, t in state.items() if not name.startswith("showo.")}, files[1])
    words = tmp_path / "words"
    make_words().save_pretrained(words)
    monkeypatch.setattr(checkpoint_module, "official_shape", lambda grid: shape)
    convert_official(*files, str(words), tmp_path / "ours")
    model = ShowO(str(tmp_path / "ours"))

    magvit = PublishedMagvit(state, SMALL_MAGVIT)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = magvit.latents(pixels)
    torch.testing.assert_close(model.net.magvit.latents(pixels), latents, atol=1e-4, rtol=1e-4)
    found = ((latents > 0).float() * state["quantize.power_vals"].view(1, -1, 1, 1)).sum(1).long().flatten(1)
    assert torch.equal(model.encode(pixels), found)
    vectors = state["quantize.embedding"][CODES].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(model.decode(CODES), magvit.decoded(vectors).clamp(-1, 1), atol=1e-4, rtol=1e-4)
    for name, tensor in model.net.llm.state_dict().items():
        assert torch.equal(tensor, state[f"showo.{name}"]), name


def test_words_and_marks_have_the_published_ids() -> None:
    words = make_words()
    before = len(words)
    with_marks(words)
    assert [words.convert_tokens_to_ids(mark) - before for mark in MARKS] == list(range(9))
    words.pad_token = None
    assert with_marks(words).pad_token == "[PAD]"


def test_the_variant_that_looks_through_clip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'mm_projector.0.weight' is of the Show-o that sees images through CLIP"):
        official_names({"mm_projector.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="numbers the codes in another order"):
        official_names({"quantize.embedding": torch.ones(4, 2)})
    with pytest.raises(ValueError, match=r"'pytorch_model.bin' is not a safetensors file"):
        convert_official("pytorch_model.bin", "magvit.safetensors", "words", "out")
