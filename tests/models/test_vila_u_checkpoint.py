"""VILA-U's folders: what is saved has the published layout, and what is damaged is named in one line."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from safetensors.torch import load_file, save_file
from small_vila_u import UNUSED

from unigap.models.families import load_model
from unigap.models.vila_u import VilaU
from unigap.models.vila_u.checkpoint import PARTS, SETTINGS, WEIGHTS

Weights = dict[str, torch.Tensor]
LLM, TOWER, PROJECTOR = (f"{part}/{WEIGHTS}" for part in PARTS)
LLM_CONFIG, TOWER_CONFIG, PROJECTOR_CONFIG = (f"{part}/config.json" for part in PARTS)
CODEBOOK = "rqvaesiglip.quantizer.codebooks.{}.weight"
Q = "model.layers.0.self_attn.q_proj.weight"


def put(name: str, change: Callable[[torch.Tensor], torch.Tensor | None], file: str) -> Breakage:
    """Another tensor under a name, or none."""

    def edit(weights: Weights) -> None:
        found = change(weights.pop(name, torch.zeros(1)))
        if found is not None:
            weights[name] = found

    return edit_weights(edit, file)


def gone(tensor: torch.Tensor) -> None:
    """No tensor."""


BREAKAGES: dict[str, tuple[Breakage, str]] = {
    "no config": (remove("config.json"), "no config.json"),
    "another family": (edit_config(model_type="janus"), "is a 'janus' model, not 'vila_u_llama'"),
    "no language model": (remove(LLM), "has no llm/model.safetensors"),
    "no vision tower": (remove(TOWER), "has no vision_tower/model.safetensors"),
    "no projector": (remove(PROJECTOR), "has no mm_projector/model.safetensors"),
    "no llm config": (remove(LLM_CONFIG), "llm/config.json is not a JSON object"),
    "tower config a list": (write(TOWER_CONFIG, b"[]"), "vision_tower/config.json is not a JSON object"),
    "no layer count": (edit_json(LLM_CONFIG, ["num_hidden_layers"], ...), "has no number num_hidden_layers"),
    "endless layers": (edit_json(LLM_CONFIG, ["num_hidden_layers"], 10**9), "asks for num_hidden_layers"),
    "endless depth layers": (
        edit_json(TOWER_CONFIG, ["rqtransformer", "head", "n_layer"], 10**9), "asks for n_layer = 1000000000",
    ),
    "endless depth": (
        edit_json(TOWER_CONFIG, ["rqtransformer", "block_size"], [4, 4, 10**9]), "block_size is 1000000000",
    ),
    "more layers": (edit_json(LLM_CONFIG, ["num_hidden_layers"], 4), "layers.3.*are missing"),
    "other width": (edit_json(LLM_CONFIG, ["intermediate_size"], 80), r"have shape .*96.* the config says .*80"),
    "another depth": (edit_json(TOWER_CONFIG, ["rqtransformer", "block_size"], [4, 4, 2]), "block_size is 2"),
    "another codebook size": (edit_json(TOWER_CONFIG, ["rqtransformer", "vocab_size"], 9), "vocab_size is 9"),
    "codebooks of several sizes": (
        edit_json(TOWER_CONFIG, ["rqvaesiglip", "n_embed"], [64, 64, 32]), r"codebooks have \[32, 64\] codes",
    ),
    "another grid": (
        edit_json(TOWER_CONFIG, ["rqvaesiglip", "code_shape"], [8, 8, 3]), "its vision encoder has 4 x 4",
    ),
    "no depth transformer": (edit_json(TOWER_CONFIG, ["rqtransformer"], ...), "have no 'rqtransformer'"),
    "no decoder": (edit_json(TOWER_CONFIG, ["rqvaesiglip", "ddconfig"], ...), "have no 'ddconfig'"),
    "no heads": (edit_json(TOWER_CONFIG, ["rqtransformer", "head", "block"], ...), "have no 'block'"),
    "heads that do not divide": (
        edit_json(TOWER_CONFIG, ["rqtransformer", "head", "block", "n_head"], 5), "48 is no multiple of its 5 heads",
    ),
    "an unknown vision encoder": (
        edit_json(TOWER_CONFIG, ["rqvaesiglip", "pretrained_model"], "google/siglip2"), "'google/siglip2' is neither",
    ),
    "an unknown projector": (edit_json(PROJECTOR_CONFIG, ["mm_projector_type"], "resampler"), "unknown mm_proj"),
    "a weight less": (put(Q, gone, LLM), f"'{Q}' are missing"),
    "a stranger": (put("other", lambda t: t, TOWER), "'other' are unknown"),
    "a row less": (put("layers.0.weight", lambda t: t[:-1].clone(), PROJECTOR), "layers.0.weight' have shape"),
    "codebooks that should be one": (
        put(CODEBOOK.format(1), lambda t: torch.ones(65, 32), TOWER), "differ from the first codebook",
    ),
    "codebooks of their own": (
        edit_json(TOWER_CONFIG, ["rqvaesiglip", "shared_codebook"], False), r"codebooks.1.weight' are missing",
    ),
    "not finite": (put(Q, lambda t: t * float("inf"), LLM), "q_proj.weight' are not finite"),
    "truncated": (write(TOWER, b"\xff" * 99), "does not load as VILA-U: model.safetensors: Error"),
    "more words than embeddings": (add_words("llm/tokenizer.json", 100), "the weights embed ids below 400"),
    "tokenizer no json": (write("llm/tokenizer.json", b"{"), "does not load as VILA-U: its tokenizer: "),
    "guidance below one": (write(SETTINGS, b'{"cfg": 0.5}'), "unigap.json: cfg must be >= 1"),
    "settings without guidance": (write(SETTINGS, b"{}"), "unigap.json: 'cfg'"),
    "a context shorter than an image": (
        edit_json(LLM_CONFIG, ["max_position_embeddings"], 16), "an image has 16 positions, the context 16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES.keys())
def test_a_broken_folder_is_named_in_one_line(
    vila_u_folder: Path, tmp_path: Path, breakage: tuple[Breakage, str]
) -> None:
    expect_refusal(VilaU, vila_u_folder, tmp_path / "broken", breakage)


@pytest.mark.parametrize("file", [LLM, TOWER, PROJECTOR])
def test_pickles_are_not_opened(vila_u_folder: Path, tmp_path: Path, file: str) -> None:
    expect_pickles_unopened(VilaU, vila_u_folder, tmp_path, file)


def test_a_tokenizer_without_the_marks_is_refused(vila_u_folder: Path, tmp_path: Path) -> None:
    def forget(folder: Path) -> None:
        for path in (folder / "llm").glob("*token*.json"):
            path.write_text(path.read_text(encoding="utf-8").replace("<im_end>", "<other>"), encoding="utf-8")

    expect_refusal(VilaU, vila_u_folder, tmp_path / "broken", (forget, "no '<im_end>'"))


def test_without_sentencepiece_the_remedy_is_named(
    vila_u_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sentencepiece" else find(name))
    told = r"needs sentencepiece; pip install sentencepiece"
    expect_refusal(VilaU, vila_u_folder, tmp_path / "broken", (remove("llm/tokenizer.json"), told))


def test_a_saved_folder_has_the_files_names_and_bits_of_the_checkpoint(
    vila_u: VilaU, vila_u_folder: Path, tmp_path: Path
) -> None:
    vila_u.save(tmp_path / "saved")
    files = {path.relative_to(vila_u_folder) for path in vila_u_folder.rglob("*") if path.is_file()}
    written = {path.relative_to(tmp_path / "saved") for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert written == {*files, Path("README.md")}
    for name in files:
        ours, theirs = tmp_path / "saved" / name, vila_u_folder / name
        if name.suffix != ".safetensors":
            assert ours.read_bytes() == theirs.read_bytes()
            continue
        found, expected = load_file(ours), load_file(theirs)
        assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
    assert UNUSED.keys() <= load_file(tmp_path / "saved" / TOWER).keys()
    assert "from unigap.models.vila_u import VilaU" in (tmp_path / "saved" / "README.md").read_text()


def test_a_published_folder_in_several_files_with_repeated_codebooks_is_the_same_model(
    vila_u: VilaU, vila_u_folder: Path, tmp_path: Path
) -> None:
    vila_u.save(tmp_path / "saved")
    folder = tmp_path / "saved"
    weights = load_file(folder / LLM)
    (folder / LLM).unlink()
    halves = {f"model-{n}-of-2.safetensors": dict(sorted(weights.items())[n - 1 :: 2]) for n in (1, 2)}
    for name, half in halves.items():
        save_file(half, folder / "llm" / name)
    index = {"weight_map": {key: name for name, half in halves.items() for key in half}}
    (folder / "llm" / "model.safetensors.index.json").write_text(json.dumps(index))
    tower = load_file(folder / TOWER)
    tower |= {CODEBOOK.format(depth): tower[CODEBOOK.format(0)].clone() for depth in (1, 2)}
    tower["rqvaesiglip.logit_scale"] = torch.ones(1)
    save_file(tower, folder / TOWER)
    again: Any = load_model(str(folder))
    assert again.weights_digest() == vila_u.weights_digest()
    again.save(tmp_path / "again")
    assert load_file(tmp_path / "again" / TOWER).keys() == tower.keys()
    assert not (tmp_path / "again" / "llm" / "model.safetensors.index.json").exists()


def test_a_guidance_scale_in_the_folder_is_recommended_and_saved(
    vila_u: VilaU, vila_u_folder: Path, tmp_path: Path
) -> None:
    vila_u.save(tmp_path / "asking")
    (tmp_path / "asking" / SETTINGS).write_text('{"cfg": 1.5}')
    model = load_model(str(tmp_path / "asking"))
    assert model.usual_cfg == 1.5
    model.save(tmp_path / "saved")
    assert load_model(str(tmp_path / "saved")).usual_cfg == 1.5


def test_an_adapter_alone_is_saved_and_loaded(new_vila_u: Callable[..., VilaU], tmp_path: Path) -> None:
    model = new_vila_u(lora_rank=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.01
    model.save(tmp_path / "adapter", adapter_only=True)
    assert all(".lora_" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    again = new_vila_u()
    again.net.llm.load_adapter(str(tmp_path / "adapter"))
    prompt, codes = model.encode_prompt(["a red circle"]), torch.zeros(1, 16, 3, dtype=torch.int64)
    torch.testing.assert_close(again.image_logps(prompt, codes), model.image_logps(prompt, codes), atol=1e-4, rtol=0)
