"""Bad checkpoints and bad prompts: one line that names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from broken_checkpoints import (
    NO_END,
    TOO_LONG,
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
from peft import PeftModel
from safetensors.torch import load_file
from transformers import JanusForConditionalGeneration

from unigap.models.base import SamplingRecipe, UnifiedModel
from unigap.models.janus import Janus
from unigap.models.showo import ShowO
from unigap.stages import SFTStage

BREAKAGES: dict[str, tuple[Breakage, str]] = {
    "no config": (remove("config.json"), "no config.json"),
    "junk config": (write("config.json", b"junk{"), "not a JSON object"),
    "config is a list": (write("config.json", b"[1]"), "not a JSON object"),
    "config is binary": (write("config.json", b"\xff\xfe\0"), "not a JSON object"),
    "another model": (edit_config(model_type="llama"), "'llama' model, not 'janus'"),
    "no model type": (edit_config(model_type=None), "'unknown' model, not 'janus'"),
    "config of a wrong kind": (edit_config(text_config=5), "does not load as Janus: .*text_config"),
    "field of a wrong kind": (edit_config(text_config={"hidden_size": "x"}), "does not load as Janus: .*hidden_size"),
    "no weights": (remove("model.safetensors"), "no file named model.safetensors"),
    "truncated weights": (truncate, "does not load as Janus"),
    "empty weights": (write("model.safetensors", b""), "does not load as Janus"),
    "pickled weights": (pickle_only, "no file named model.safetensors"),
    "a weight missing": (edit_weights(lambda weights: weights.pop("lm_head.weight")), "first 'lm_head.weight'"),
    "a weight of another shape": (
        edit_weights(lambda weights: weights.update({"lm_head.weight": torch.zeros(3, 3)})),
        "does not load as Janus",
    ),
    "no tokenizer": (remove("tokenizer.json"), "does not load as Janus"),
    "junk tokenizer": (write("tokenizer.json", b"{}"), "does not load as Janus"),
    "no tokenizer settings": (remove("tokenizer_config.json"), "does not load as Janus"),
    "no processor": (remove("processor_config.json"), "does not load as Janus"),
    "junk processor": (write("processor_config.json", b"x"), "does not load as Janus"),
    "no template": (remove("chat_template.jinja"), "no chat template; copy chat_template.jinja of deepseek-community"),
    "junk template": (write("chat_template.jinja", b"{% for"), "does not load as Janus"),
    "template without end": (write("chat_template.jinja", NO_END), "template takes more than 1 s or 2 GiB"),
    "template that fills memory": (
        write("chat_template.jinja", TOO_LONG),
        "template takes more than 1 s or 2 GiB",
    ),
    "no end of layers": (
        edit_json("config.json", ["text_config", "num_hidden_layers"], 10**9),
        "config.json asks for num_hidden_layers = 1000000000",
    ),
    "no end of blocks": (
        edit_json("config.json", ["vq_config", "num_res_blocks"], 10**9),
        "num_res_blocks = 1000000000",
    ),
    "no end of levels": (
        edit_json("config.json", ["vq_config", "channel_multiplier"], [1] * 10**6),
        "channel_multiplier in config.json is a list of 1000000",
    ),
    "far more layers than weights": (
        edit_json("config.json", ["text_config", "num_hidden_layers"], 900),
        "weights are missing: config.json describes .* parameters, and the folder holds",
    ),
    "far wider than the weights": (
        edit_json("config.json", ["text_config", "intermediate_size"], 10**9),
        "weights are missing: config.json describes .* parameters, and the folder holds",
    ),
    "weights of no part": (
        edit_weights(lambda weights: weights.update({"model.extra.weight": torch.zeros(3), "lora_A": torch.ones(2)})),
        "2 weights belong to no part of Janus, first 'lora_A'; merge an adapter",
    ),
    "no pad token": (edit_json("tokenizer_config.json", ["pad_token"], ...), "names no pad_token"),
    "no first token": (edit_json("tokenizer_config.json", ["bos_token"], ...), "names no bos_token"),
    "no last token": (edit_json("tokenizer_config.json", ["eos_token"], None), "names no eos_token"),
    "padded with the mark of images": (
        edit_json("tokenizer_config.json", ["pad_token"], "<begin_of_image>"),
        "pads with '<begin_of_image>', an image token",
    ),
    "another place of the image": (
        edit_config(image_token_id=7),
        "image_token_id 7, the tokenizer writes an image as 4",
    ),
    "another number of image tokens": (
        edit_json("processor_config.json", ["num_image_tokens"], 9),
        "num_image_tokens 9, by config.json 16 are encoded and 16 generated",
    ),
    "more words than weights": (
        add_words("tokenizer.json", 3),
        r"gives 'word2' the id \d+, and the weights embed ids below \d+; take the tokenizer of these weights",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_damaged_folder_gives_one_line_that_names_it(janus_folder: Path, tmp_path: Path, name: str) -> None:
    expect_refusal(Janus, janus_folder, tmp_path / "broken", BREAKAGES[name])


def test_pickled_weights_are_not_even_opened(janus_folder: Path, tmp_path: Path) -> None:
    expect_pickles_unopened(Janus, janus_folder, tmp_path)


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
        ("a red <begin_of_image> circle", "'<begin_of_image>' is a special token"),
        ("a ring </s>", "'</s>' is a special token"),
        ("<|User|> a ring", r"'<\|User\|>' is a special token"),
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
        ("is <image_placeholder> red?", "'<image_placeholder>' is a special token"),
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


# What is written

# peft 0.21 asks transformers by a name deprecated in 5.23
PEFT = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def trained_lora(janus_folder: Path, **options: object) -> Janus:
    model = Janus(str(janus_folder), lora_rank=3, lora_alpha=6, **options)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):  # B starts at zero, and A has no gradient before it has moved
        logps(model).mean().neg().backward()
        optimizer.step()
    return model


def logps(model: Janus) -> torch.Tensor:
    return model.image_logps(model.encode_prompt(["a red circle"]), torch.arange(16)[None])


@PEFT
def test_an_adapter_is_what_peft_loads(janus_folder: Path, tmp_path: Path) -> None:
    model = trained_lora(janus_folder)
    model.save(tmp_path / "adapter", adapter_only=True)
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(weights) == 2 * 2 * 7 and not list((tmp_path / "adapter").glob("model*"))
    base = JanusForConditionalGeneration.from_pretrained(janus_folder)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    plain = Janus.from_parts(loaded.get_base_model(), model.processor)
    torch.testing.assert_close(logps(plain), logps(model), atol=1e-5, rtol=0)
    with loaded.disable_adapter():
        torch.testing.assert_close(logps(plain), logps(Janus(str(janus_folder))), atol=1e-5, rtol=0)


def test_an_adapter_on_half_precision_is_trained_and_saved_in_full(janus_folder: Path, tmp_path: Path) -> None:
    model = trained_lora(janus_folder, dtype="bfloat16")
    model.save(tmp_path / "adapter", adapter_only=True)
    assert {t.dtype for t in load_file(tmp_path / "adapter" / "adapter_model.safetensors").values()} == {torch.float32}
    model.save(tmp_path / "merged")
    assert load_file(tmp_path / "merged" / "model.safetensors")["lm_head.weight"].dtype == torch.bfloat16


@PEFT
@pytest.mark.parametrize("adapter_only", [False, True])
def test_a_card_says_what_was_made_of_what(janus_folder: Path, tmp_path: Path, adapter_only: bool) -> None:
    model = trained_lora(janus_folder)
    model.base = "deepseek-community/Janus-Pro-1B"
    model.save(tmp_path / "mine", adapter_only, {"lr": 1e-5, "judge": "self | own"})
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["base_model"] == model.base and header["library_name"] == ("peft" if adapter_only else "transformers")
    assert "# mine" in card and "rank 3, alpha 6" in card and str(tmp_path) not in card
    assert r"| lr | 1e-05 |" in card and r"| judge | self \| own |" in card
    loading = card.split("```python\n")[1].split("\n```")[0].replace("FOLDER", repr(str(tmp_path / "mine")))
    found: dict[str, object] = {}
    exec(loading.replace(model.base, str(janus_folder)), found)  # what the card says is what works
    assert isinstance(found["model"], torch.nn.Module) and found["processor"].num_image_tokens == 16


def test_a_folder_on_disk_is_no_base_model_for_the_hub(janus: Janus, tmp_path: Path) -> None:
    janus.save(tmp_path / "copy")
    card = (tmp_path / "copy" / "README.md").read_text(encoding="utf-8")
    assert "base_model" not in yaml.safe_load(card.split("---\n")[1])
    assert "Trained: language_model." in card and "None was given" in card


@PEFT
@pytest.mark.parametrize("adapter_only", [False, True])
def test_what_trained_beside_an_adapter_is_saved_loaded_and_named(
    janus_folder: Path, tmp_path: Path, adapter_only: bool
) -> None:
    model = trained_lora(janus_folder, train_also="generation_head")
    bare = trained_lora(janus_folder)
    bare.load_state_dict(bare.state_dict() | {n: p for n, p in model.state_dict().items() if ".lora_" in n})
    assert (logps(model) - logps(bare)).abs().max() > 0.1, "the head has learned"
    model.save(tmp_path / "mine", adapter_only)
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert f"{'alone' if adapter_only else 'merged'}; and generation_head in full" in card
    loading = card.split("```python\n")[1].split("\n```")[0].replace("FOLDER", repr(str(tmp_path / "mine")))
    found: dict[str, object] = {}
    exec(loading, found)
    net = found["model"].eval()  # type: ignore[attr-defined]
    plain = Janus.from_parts(net.get_base_model() if adapter_only else net, model.processor)
    torch.testing.assert_close(logps(plain), logps(model), atol=1e-5, rtol=0)


def stage_checkpoint(model: UnifiedModel, path: Path) -> str:
    """The Lightning checkpoint of a stage that trained a model."""
    content: dict[str, object] = {"state_dict": {f"model.{name}": t for name, t in model.state_dict().items()}}
    SFTStage(model).on_save_checkpoint(content)
    torch.save(content | {"pytorch-lightning_version": "2.6.6"}, path)
    return str(path)


def test_a_stage_takes_no_adapter_of_another_scale(janus_folder: Path, tmp_path: Path) -> None:
    trained = trained_lora(janus_folder)
    path = stage_checkpoint(trained, tmp_path / "last.ckpt")
    SFTStage(Janus(str(janus_folder), lora_rank=3, lora_alpha=6), init_from=path)
    with pytest.raises(ValueError, match=r"lora_alpha / lora_rank = 2 on .*, and this model has 4; give the same"):
        SFTStage(Janus(str(janus_folder), lora_rank=3, lora_alpha=12), init_from=path)


def test_a_stage_keeps_the_options_of_its_own_model(new_showo: Callable[..., ShowO], tmp_path: Path) -> None:
    path = stage_checkpoint(new_showo(steps=18), tmp_path / "last.ckpt")
    fewer = new_showo(steps=5)
    digest = fewer.weights_digest()
    assert SFTStage(fewer, init_from=path).start_key == digest != new_showo(steps=18).weights_digest()


@pytest.mark.parametrize("family", ["janus", "emu3", "showo"])
@pytest.mark.parametrize("pad", ["bos_token", "eos_token"])
def test_a_pad_token_that_means_something_loses_no_token(request: pytest.FixtureRequest, family: str, pad: str) -> None:
    new = request.getfixturevalue(f"new_{family}")
    usual, shared = new(), new()
    tokens = shared._template.tokenizer
    tokens.pad_token = getattr(tokens, pad)
    again = type(shared).from_parts(shared.net, shared.processor if family != "showo" else tokens)
    texts, codes = ["a red circle", "a small red circle left of a large blue square"], torch.arange(32).view(2, 16)
    for model in (usual, again):
        alone = torch.cat(
            [model.image_logps(model.encode_prompt([t]), c[None]) for t, c in zip(texts, codes, strict=True)]
        )
        torch.testing.assert_close(model.image_logps(model.encode_prompt(texts), codes), alone, atol=1e-4, rtol=0)
    seeds = torch.arange(4).view(2, 2)
    drawn = [
        model.sample_images(model.encode_prompt(texts), seeds, SamplingRecipe(cfg=2.0)) for model in (usual, again)
    ]
    if family != "janus":  # whose null prompt is made of padding
        assert torch.equal(drawn[0].drawings_BN, drawn[1].drawings_BN)
        torch.testing.assert_close(drawn[0].logp_BNM, drawn[1].logp_BNM, atol=1e-4, rtol=0)
