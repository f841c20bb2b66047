"""JanusFlow's folders: what is saved has the published layout, and what is damaged is named in one line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
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
    pickle_only,
    remove,
    truncate,
    write,
)
from safetensors.torch import load_file, save_file

from benchmarks.small_janus_flow import save_autoencoder
from unigap.models.base import SamplingRecipe
from unigap.models.families import load_model
from unigap.models.janus import Janus
from unigap.models.janus_flow import FlowSettings, JanusFlow
from unigap.models.janus_flow.chat_template import IMAGE_START
from unigap.models.janus_flow.checkpoint import CONFIG, IMAGES, INDEX, PROCESSOR, SETTINGS, SMALL_FILES, VAE, WEIGHTS

Weights = dict[str, torch.Tensor]
BLOCK = "vision_und_enc_model.vision_tower.blocks.0."
AUTOENCODER = f"{VAE}/diffusion_pytorch_model.safetensors"
ENCODER, DECODER = "vision_gen_enc_config", "vision_gen_dec_config"


def drop(name: str) -> Callable[[Weights], object]:
    return lambda weights: weights.pop(name)


def cut(name: str) -> Callable[[Weights], object]:
    """Remove the last row of a tensor."""
    return lambda weights: weights.update({name: weights[name][:-1].clone()})


def spoil(name: str) -> Callable[[Weights], object]:
    """Make a tensor infinite."""
    return lambda weights: weights[name].fill_(float("inf"))


def another_autoencoder(**sizes: object) -> Breakage:
    def change(folder: Path) -> None:
        shutil.rmtree(folder / VAE)
        save_autoencoder(folder / VAE, **sizes)

    return change


def without_marks(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace(IMAGE_START, "<other>"), encoding="utf-8")


def index_outside(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))


BREAKAGES: dict[str, tuple[Breakage, str]] = {
    "no config": (remove(CONFIG), "no config.json"),
    "another family": (edit_config(model_type="emu3"), "is a 'emu3' model, not 'janus_flow'"),
    "Janus in the same layout": (edit_json(CONFIG, [DECODER], ...), "Janus's original layout"),
    "no weights": (remove(WEIGHTS), "has no model.safetensors; only safetensors files are read"),
    "a pickle": (pickle_only, "has no model.safetensors; only safetensors files are read"),
    "truncated": (truncate, "does not load as JanusFlow: model.safetensors: Error"),
    "an index out of the folder": (index_outside, "model.safetensors.index.json: '../model.safetensors' is not a file"),
    "no processor": (remove(PROCESSOR), "has no processor_config.json"),
    "no image sizes": (remove(IMAGES), "has no preprocessor_config.json"),
    "no tokenizer": (remove("tokenizer.json"), "has no tokenizer.json"),
    "processor no json": (write(PROCESSOR, b"{"), "processor_config.json is not a JSON object"),
    "image size no number": (edit_json(IMAGES, ["image_size"], "wide"), "preprocessor_config.json: invalid literal"),
    "no count of tokens": (edit_json(PROCESSOR, ["num_image_tokens"], ...), "config.json: 'num_image_tokens'"),
    "another count of tokens": (
        edit_json(PROCESSOR, ["num_image_tokens"], 576), "says 576 tokens an image; 16 are read at 32 pixels and 16 ",
    ),
    "another image size": (edit_json(IMAGES, ["image_size"], 64), "16 are read at 32 pixels and 64 generated at 64"),
    "endless layers": (
        edit_json(CONFIG, ["language_config", "num_hidden_layers"], 10**9), "asks for num_hidden_layers = 1000000000",
    ),
    "endless blocks": (
        edit_json(CONFIG, [ENCODER, "params", "layers_in_middle"], 10**9), r"layers_in_middle must be in \[0, 1000\]",
    ),
    "more layers": (edit_json(CONFIG, ["language_config", "num_hidden_layers"], 4), "layers.3.*are missing"),
    "no encoder": (edit_json(CONFIG, [ENCODER], ...), "config.json: 'vision_gen_enc_config'"),
    "two widths": (edit_json(CONFIG, [ENCODER, "params", "block_out_channels"], [8, 8]), "must have one entry"),
    "another width": (
        edit_json(CONFIG, [DECODER, "params", "hidden_size"], 32), "hidden_size of vision_gen_dec_config is 32, but",
    ),
    "another stride": (
        edit_json(CONFIG, [ENCODER, "params", "stride"], 4), "the upsamples of vision_gen_dec_config is 2, but the enc",
    ),
    "a vision encoder nobody knows": (
        edit_json(CONFIG, ["vision_und_enc_config", "params", "model_name"], "sam"), "model_name 'sam' is none of",
    ),
    "pixels normalised twice": (
        edit_json(CONFIG, ["vision_und_enc_config", "params", "pixel_mean"], [0.5] * 3), "normalises pixels itself",
    ),
    "a part less": (edit_weights(drop("beg_of_und_embed")), "'beg_of_und_embed' are missing"),
    "no vision encoder": (
        edit_weights(lambda w: [w.pop(name) for name in list(w) if name.startswith(BLOCK)]),
        "blocks.0.mlp.fc1.weight' are missing",
    ),
    "a row less": (edit_weights(cut("vision_gen_enc_aligner.weight")), "vision_gen_enc_aligner.weight' have shape"),
    "a fused row less": (edit_weights(cut(f"{BLOCK}attn.qkv.weight")), "self_attn.* have shape"),
    "a stranger": (edit_weights(lambda w: w.update({"other": torch.zeros(1)})), "'other' are unknown"),
    "not finite": (edit_weights(spoil("language_model.lm_head.weight")), "lm_head.weight' are not finite"),
    "settings out of range": (write(SETTINGS, b'{"flow": {"steps": 0}}'), "unigap.json: steps must be >= 1"),
    "settings without a flow": (write(SETTINGS, b"{}"), "unigap.json: 'flow'"),
    "more words than embeddings": (add_words("tokenizer.json", 100), "the weights embed ids below 320"),
    "tokenizer no json": (write("tokenizer.json", b"{"), "does not load as JanusFlow: its tokenizer: "),
    "tokenizer without marks": (without_marks, "its tokenizer has no '<begin_of_image>'"),
    "autoencoder without weights": (remove(AUTOENCODER), "has no diffusion_pytorch_model.safetensors; only safe"),
    "autoencoder without a scale": (edit_json(f"{VAE}/config.json", ["scaling_factor"], None), "no number scaling_fac"),
    "autoencoder of 16 channels": (another_autoencoder(latent_channels=16), "has 16 latent channels, and the encoder"),
    "autoencoder of other sizes": (
        another_autoencoder(block_out_channels=(32, 32, 32, 64)),
        "16 are read at 32 pixels and 4 generated at 32 with 8 pixels a latent",
    ),
    "autoencoder with a part less": (
        edit_weights(drop("decoder.conv_in.bias"), AUTOENCODER), "vae.*decoder.conv_in.bias' are missing",
    ),
    "autoencoder with a part more": (
        edit_weights(lambda w: w.update({"other": torch.zeros(1)}), AUTOENCODER), "'other' are unexpected",
    ),
    "autoencoder with a row less": (
        edit_weights(cut("decoder.conv_in.bias"), AUTOENCODER), "does not load as an image autoencoder: ",
    ),
    "autoencoder not finite": (
        edit_weights(spoil("decoder.conv_out.bias"), AUTOENCODER), "decoder.conv_out.bias' are not finite",
    ),
    "autoencoder truncated": (write(AUTOENCODER, b"\xff" * 99), "does not load as an image autoencoder: "),
}  # fmt: skip


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES.keys())
def test_a_broken_folder_is_named_in_one_line(
    janus_flow_folder: Path, tmp_path: Path, breakage: tuple[Breakage, str]
) -> None:
    expect_refusal(JanusFlow, janus_flow_folder, tmp_path / "broken", breakage)


def test_pickles_are_not_opened(janus_flow_folder: Path, tmp_path: Path) -> None:
    expect_pickles_unopened(JanusFlow, janus_flow_folder, tmp_path, WEIGHTS)


def test_janus_refuses_a_janus_flow(janus_flow_folder: Path) -> None:
    with pytest.raises(ValueError, match="is a 'janus_flow' model, not 'janus'; use the class of its family"):
        Janus(str(janus_flow_folder))


def test_an_autoencoder_that_is_nowhere_is_named(janus_flow_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.*no such folder"):
        JanusFlow(str(janus_flow_folder), vae=str(tmp_path / "nowhere"))


def test_without_diffusers_the_remedy_is_named(janus_flow_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"needs diffusers; pip install 'unigap\[diffusion\]'"):
        JanusFlow(str(janus_flow_folder))


def test_a_saved_folder_has_the_files_names_and_bits_of_the_checkpoint(
    janus_flow: JanusFlow, janus_flow_folder: Path, tmp_path: Path
) -> None:
    janus_flow.save(tmp_path / "saved")
    files = {path.name for path in janus_flow_folder.iterdir()}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {*files, "README.md", SETTINGS}
    for name in files & set(SMALL_FILES):
        assert (tmp_path / "saved" / name).read_bytes() == (janus_flow_folder / name).read_bytes()
    for name in (WEIGHTS, AUTOENCODER):
        written, read = load_file(tmp_path / "saved" / name), load_file(janus_flow_folder / name)
        assert written.keys() == read.keys() and all(torch.equal(written[key], read[key]) for key in read)
    assert "from unigap.models.janus_flow import JanusFlow" in (tmp_path / "saved" / "README.md").read_text()


def test_weights_in_several_files_and_an_autoencoder_elsewhere_load(
    janus_flow: JanusFlow, janus_flow_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(janus_flow_folder, folder)
    (folder / VAE).rename(tmp_path / "elsewhere")
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    place = {name: f"model-0000{1 + (number > 50)}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(place.values()):
        save_file({name: weights[name] for name in names if place[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": place}))
    loaded = JanusFlow(str(folder), vae=str(tmp_path / "elsewhere"), flow=FlowSettings(5))
    assert loaded.weights_digest() == janus_flow.weights_digest()


def test_a_saved_folder_holds_what_was_trained(new_janus_flow: Callable[..., JanusFlow], tmp_path: Path) -> None:
    model = new_janus_flow(lora_rank=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.01
    model.save(tmp_path / "saved")
    loaded = load_model(str(tmp_path / "saved"))
    assert torch.equal(loaded.settings, model.settings)
    seeds, recipe = torch.tensor([[1]]), SamplingRecipe(cfg=2.0)
    drawn = [one.sample_images(one.encode_prompt(["Yes"]), seeds, recipe).drawings_BN for one in (loaded, model)]
    torch.testing.assert_close(*drawn, atol=1e-4, rtol=0)
    model.save(tmp_path / "adapter", adapter_only=True)
    assert all(".lora_" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    again = new_janus_flow()
    again.net.language_model.load_adapter(str(tmp_path / "adapter"))
    drawn = [one.sample_images(one.encode_prompt(["Yes"]), seeds, recipe).drawings_BN for one in (again, model)]
    torch.testing.assert_close(*drawn, atol=1e-4, rtol=0)
