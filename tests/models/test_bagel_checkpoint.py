"""BAGEL's folders: what is saved has the published layout, and what is damaged is named in one line."""

from __future__ import annotations

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
    remove,
    write,
)
from safetensors.torch import load_file

from unigap.models.bagel import Bagel
from unigap.models.bagel.checkpoint import LLM, SETTINGS, SMALL_FILES, VAE, VIT, WEIGHTS
from unigap.models.bagel.experts import GENERATION
from unigap.models.families import load_model

Weights = dict[str, torch.Tensor]
Q = "language_model.model.layers.0.self_attn.q_proj"


def without(*parts: str) -> Callable[[Weights], object]:
    """Remove the tensors with one of these in their names."""

    def change(weights: Weights) -> None:
        for name in [name for name in weights if any(part in name for part in parts)]:
            del weights[name]

    return change


def cut(name: str) -> Callable[[Weights], object]:
    """Remove the last row of a tensor."""
    return lambda weights: weights.update({name: weights[name][:-1].clone()})


def spoil(name: str) -> Callable[[Weights], object]:
    """Make a tensor infinite."""
    return lambda weights: weights[name].fill_(float("inf"))


def of_stable_diffusion(weights: Weights) -> None:
    """Half the latent channels."""
    for name, tensor in list(weights.items()):
        if name.startswith("decoder.conv_in"):
            weights["decoder.conv_in.weight"] = weights["decoder.conv_in.weight"][:, :2].clone()
        elif name.startswith("encoder.conv_out"):
            weights[name] = tensor[:4].clone()


BREAKAGES: dict[str, tuple[Breakage, str]] = {
    "no config": (remove("config.json"), "no config.json"),
    "another family": (edit_config(model_type="janus"), "is a 'janus' model, not 'bagel'"),
    "no weights": (remove(WEIGHTS), "has no ema.safetensors"),
    "no autoencoder": (remove(VAE), "has no ae.safetensors"),
    "no llm config": (remove(LLM), "has no llm_config.json"),
    "no vision config": (remove(VIT), "has no vit_config.json"),
    "llm config no json": (write(LLM, b"{"), "llm_config.json is not a JSON object"),
    "vision config a list": (write(VIT, b"[]"), "vit_config.json is not a JSON object"),
    "endless layers": (edit_json(LLM, ["num_hidden_layers"], 10**9), "llm_config.json asks for num_hidden_layers"),
    "more layers": (edit_json(LLM, ["num_hidden_layers"], 4), "layers.3.*are missing"),
    "no layer count": (edit_json(VIT, ["num_hidden_layers"], ...), "vit_config.json has no number num_hidden_layers"),
    "other width": (edit_json(LLM, ["intermediate_size"], 80), r"have shape .*96.* the config says .*80"),
    "no generation expert": (edit_weights(without(GENERATION), WEIGHTS), "have no generation expert"),
    "half an expert": (edit_weights(without("mlp" + GENERATION), WEIGHTS), "mlp_moe_gen.down_proj.weight' are missing"),
    "settings without a flow": (write(SETTINGS, b'{"image_size": 32}'), "unigap.json: 'flow'"),
    "settings out of range": (
        write(SETTINGS, b'{"image_size": null, "flow": {"shift": 0}}'), "unigap.json: shift must be > 0",
    ),
    "a size that is no multiple": (
        write(SETTINGS, b'{"image_size": 33, "flow": {}}'), "image_size must be a multiple of 8",
    ),
    "no latent table": (edit_weights(without("latent_pos_embed"), WEIGHTS), "'latent_pos_embed.pos_embed' are missing"),
    "no latent input": (edit_weights(without("vae2llm"), WEIGHTS), "'vae2llm.weight' are missing"),
    "a table of no square": (edit_weights(cut("latent_pos_embed.pos_embed"), WEIGHTS), "latent_pos_embed.pos_embed"),
    "a row less": (edit_weights(cut(f"{Q}{GENERATION}.weight"), WEIGHTS), "q_proj_moe_gen.weight' have shape"),
    "a stranger": (edit_weights(lambda w: w.update({"other": torch.zeros(1)}), WEIGHTS), "'other' are unknown"),
    "not finite": (edit_weights(spoil(f"{Q}.weight"), WEIGHTS), "q_proj.weight' are not finite"),
    "truncated": (write(WEIGHTS, b"\xff" * 99), "does not load as BAGEL: ema.safetensors: Error"),
    "no safetensors": (write(WEIGHTS, b"PK"), "does not load as BAGEL: ema.safetensors: Error"),
    "autoencoder of another": (edit_weights(of_stable_diffusion, VAE), "writes tokens of 8 numbers, .* reads 16"),
    "autoencoder in other names": (
        edit_weights(lambda w: w.update({f"first_stage.{name}": w.pop(name) for name in list(w)}), VAE),
        "ae.safetensors: the weights 'encoder.conv_in.weight' are missing",
    ),
    "autoencoder with a part less": (
        edit_weights(without("mid.attn_1"), VAE), r"ae.safetensors: .*mid.attn_1.* missing",
    ),
    "autoencoder with a part more": (
        edit_weights(lambda w: w.update({"quant_conv.weight": torch.zeros(1)}), VAE), "'quant_conv.weight' are unknown",
    ),
    "autoencoder with a row less": (
        edit_weights(cut("decoder.mid.block_1.conv1.weight"), VAE), "conv1.weight' have shape",
    ),
    "autoencoder not finite": (
        edit_weights(spoil("decoder.conv_out.bias"), VAE), "decoder.conv_out.bias' are not finite",
    ),
    "more words than embeddings": (add_words("tokenizer.json", 100), "the weights embed ids below 320"),
    "tokenizer no json": (write("tokenizer.json", b"{"), "does not load as BAGEL: its tokenizer: "),
}  # fmt: skip


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES.keys())
def test_a_broken_folder_is_named_in_one_line(
    bagel_folder: Path, tmp_path: Path, breakage: tuple[Breakage, str]
) -> None:
    expect_refusal(Bagel, bagel_folder, tmp_path / "broken", breakage)


def test_pickles_are_not_opened(bagel_folder: Path, tmp_path: Path) -> None:
    expect_pickles_unopened(Bagel, bagel_folder, tmp_path, WEIGHTS)


def test_a_tokenizer_without_the_marks_is_refused(bagel_folder: Path, tmp_path: Path) -> None:
    def forget(folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            text = (folder / name).read_text(encoding="utf-8")
            (folder / name).write_text(text.replace("<|vision_end|>", "<|other|>"), encoding="utf-8")

    expect_refusal(Bagel, bagel_folder, tmp_path / "broken", (forget, r"no '<\|vision_end\|>'"))


def test_a_saved_folder_has_the_files_names_and_bits_of_the_checkpoint(
    new_bagel: Callable[..., Bagel], bagel_folder: Path, tmp_path: Path
) -> None:
    model = new_bagel()
    model.save(tmp_path / "saved")
    files = {path.name for path in bagel_folder.iterdir()}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {*files, "README.md", SETTINGS}
    for name in files & set(SMALL_FILES):
        assert (tmp_path / "saved" / name).read_bytes() == (bagel_folder / name).read_bytes()
    for name in (WEIGHTS, VAE):
        written, read = load_file(tmp_path / "saved" / name), load_file(bagel_folder / name)
        assert written.keys() == read.keys() and all(torch.equal(written[key], read[key]) for key in read)
    assert "from unigap.models.bagel import Bagel" in (tmp_path / "saved" / "README.md").read_text()


@pytest.mark.parametrize(("train", "rank"), [("generation", 0), ("shared", 2), ("all", 2)])
def test_a_saved_folder_holds_what_was_trained(
    new_bagel: Callable[..., Bagel], tmp_path: Path, train: str, rank: int
) -> None:
    model = new_bagel(train=train, lora_rank=rank)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.01
    model.save(tmp_path / "saved")
    loaded = load_model(str(tmp_path / "saved"))
    assert torch.equal(loaded.settings, model.settings)
    prompt, latents = model.encode_prompt(["Yes"]), torch.randn(1, 16, 16)
    torch.testing.assert_close(
        loaded.image_logps(prompt, latents), model.image_logps(prompt, latents), atol=1e-4, rtol=0
    )
    if rank:
        model.save(tmp_path / "adapter", adapter_only=True)
        assert all(".lora_" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
        again = new_bagel(train=train)
        again.net.language_model.load_adapter(str(tmp_path / "adapter"))
        torch.testing.assert_close(
            again.image_logps(prompt, latents), model.image_logps(prompt, latents), atol=1e-4, rtol=0
        )


def test_without_diffusers_the_remedy_is_named(bagel_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"needs diffusers; pip install 'unigap\[diffusion\]'"):
        Bagel(str(bagel_folder))
