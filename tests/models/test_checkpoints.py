"""Bad checkpoints and bad prompts: one line that names what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unigap.models.base import SamplingRecipe
from unigap.models.janus import Janus

Breakage = Callable[[Path], object]


def edit_config(**changes: object) -> Breakage:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Breakage:
    def edit(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


BREAKAGES: dict[str, tuple[Breakage, str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "junk config": (lambda folder: (folder / "config.json").write_text("junk{"), "not a JSON object"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[1]"), "not a JSON object"),
    "config is binary": (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\0"), "not a JSON object"),
    "another model": (edit_config(model_type="llama"), "'llama' model, not 'janus'"),
    "no model type": (edit_config(model_type=None), "'unknown' model, not 'janus'"),
    "config of a wrong kind": (edit_config(text_config=5), "does not load as Janus: .*text_config"),
    "field of a wrong kind": (edit_config(text_config={"hidden_size": "x"}), "does not load as Janus: .*hidden_size"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
    "truncated weights": (truncate, "does not load as Janus"),
    "empty weights": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "does not load as Janus"),
    "pickled weights": (pickle_only, "no file named model.safetensors"),
    "a weight missing": (edit_weights(lambda weights: weights.pop("lm_head.weight")), "first 'lm_head.weight'"),
    "a weight of another shape": (
        edit_weights(lambda weights: weights.update({"lm_head.weight": torch.zeros(3, 3)})),
        "does not load as Janus",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "does not load as Janus"),
    "junk tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "does not load as Janus"),
    "no tokenizer settings": (lambda folder: (folder / "tokenizer_config.json").unlink(), "does not load as Janus"),
    "no processor": (lambda folder: (folder / "processor_config.json").unlink(), "does not load as Janus"),
    "junk processor": (lambda folder: (folder / "processor_config.json").write_text("x"), "does not load as Janus"),
    "no template": (lambda folder: (folder / "chat_template.jinja").unlink(), "chat template"),
    "junk template": (lambda folder: (folder / "chat_template.jinja").write_text("{% for"), "does not load as Janus"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_damaged_folder_gives_one_line_that_names_it(janus_folder: Path, tmp_path: Path, name: str) -> None:
    damage, reason = BREAKAGES[name]
    folder = tmp_path / "broken"
    shutil.copytree(janus_folder, folder)
    damage(folder)
    with pytest.raises(ValueError, match=reason) as error:
        Janus(str(folder))
    assert str(folder) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_pickled_weights_are_not_even_opened(janus_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    shutil.copytree(janus_folder, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nmkdir\n(S'" + str(tmp_path / "owned").encode() + b"'\ntR.")
    with pytest.raises(ValueError, match=r"no file named model\.safetensors"):
        Janus(str(folder))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        ("no-such-name", "no such folder"),
        ("./no/such", "no such folder"),
        ("/no/such/folder", "no such folder"),
        ("~/nothing", "no such folder"),
        ("", "no config.json"),
        ("https://example.org/model", "is a URL"),
        ("s3://bucket/model", "is a URL"),
    ],
)
def test_what_is_no_folder_is_refused(checkpoint: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        Janus(checkpoint)
    assert repr(checkpoint) in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_file_is_refused(janus_folder: Path) -> None:
    with pytest.raises(ValueError, match="is a file; give the folder"):
        Janus(str(janus_folder / "model.safetensors"))


def test_weights_that_are_not_numbers_are_refused_when_drawing(janus_folder: Path) -> None:
    model = Janus(str(janus_folder))
    torch.nn.init.constant_(model.core.language_model.norm.weight, torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        model.sample_images(model.encode_prompt(["a ring"]), torch.zeros(1, 1, dtype=torch.int64), SamplingRecipe())


# Prompts and questions


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "empty prompt"),
        (" \n", "empty prompt"),
        ("a red unicorn", "no word 'unicorn'"),
        ("Ünicorn", "no word 'Ünicorn'"),
        ("a red\tcircle", r"no word '\\t'"),
        ("a\u00a0red circle", r"no word '\\xa0'"),
        ("a " * 300, "the context holds 240"),
        ("a red <begin_of_image> circle", "'<begin_of_image>' is a mark"),
        ("a ring </s>", "'</s>' is a mark"),
        ("<|User|> a ring", r"'<\|User\|>' is a mark"),
    ],
)
def test_a_prompt_the_model_cannot_read_is_refused_by_name(janus: Janus, prompt: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        janus.encode_prompt(["a red circle", prompt])
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 200
    assert not prompt.strip() or prompt.split()[0] in str(error.value)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("  ", "empty question"),
        ("is it a unicorn?", "no word 'unicorn"),
        ("is it red? " * 80, "the context holds 256"),
        ("is <image_placeholder> red?", "'<image_placeholder>' is a mark"),
    ],
)
def test_a_question_the_model_cannot_read_is_refused_by_name(janus: Janus, question: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        janus.judge_logit(torch.zeros(1, 3, 32, 32), [[question]])


def test_the_longest_prompt_that_fits_is_taken(janus: Janus) -> None:
    overhead = janus.encode_prompt(["a"]).ids_BL.shape[1] - 1
    assert janus.encode_prompt(["a " * (240 - overhead)]).ids_BL.shape == (1, 240)
    with pytest.raises(ValueError, match="241 tokens"):
        janus.encode_prompt(["a " * (241 - overhead)])


def test_case_and_spaces_do_not_matter(janus: Janus) -> None:
    plain, shouted = janus.encode_prompt(["a red circle"]), janus.encode_prompt(["  A  RED circle "])
    assert torch.equal(plain.ids_BL, shouted.ids_BL)
