"""Emu3's folders: what is damaged is named, and what is written loads in transformers and peft."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
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
from transformers import Emu3ForConditionalGeneration

from unigap.models.emu3 import Emu3

HEAD = "text_model.lm_head.weight"
BREAKAGES: dict[str, tuple[Breakage, str]] = {
    "no config": (remove("config.json"), "no config.json"),
    "junk config": (write("config.json", b"junk{"), "not a JSON object"),
    "another model": (edit_config(model_type="janus"), "'janus' model, not 'emu3'"),
    "field of a wrong kind": (edit_config(text_config={"hidden_size": "x"}), "does not load as Emu3: .*hidden_size"),
    "no vocabulary map": (edit_config(vocabulary_map=None), "does not load as Emu3"),
    "no line ends": (edit_config(vocabulary_map={"<image>": 1}), r"vocabulary map has no '<\|extra_200\|>'"),
    "no codes": (edit_config(vocabulary_map={"<|extra_200|>": 1}), r"no '<\|visual token 000000\|>'; download it anew"),
    "no weights": (remove("model.safetensors"), "no file named model.safetensors"),
    "empty weights": (write("model.safetensors", b""), "does not load as Emu3"),
    "truncated weights": (truncate, "does not load as Emu3"),
    "pickled weights": (pickle_only, "no file named model.safetensors"),
    "a weight missing": (
        edit_weights(lambda weights: weights.pop(HEAD)),
        "1 weights are missing, first 'lm_head.weight'",
    ),
    "a weight of another shape": (
        edit_weights(lambda weights: weights.update({HEAD: torch.zeros(3, 3)})),
        "does not load as Emu3",
    ),
    "a weight that is no number": (
        edit_weights(lambda weights: weights[HEAD].fill_(math.nan)),
        "'lm_head.weight' are not finite",
    ),
    "no tokenizer": (remove("tokenizer.json"), "does not load as Emu3"),
    "no processor": (remove("processor_config.json"), "does not load as Emu3"),
    "no template": (
        remove("chat_template.jinja"),
        "no chat template; BAAI/Emu3-Gen-hf has none either; copy chat_template.jinja of BAAI/Emu3-Chat-hf",
    ),
    "no end of layers": (
        edit_json("config.json", ["text_config", "num_hidden_layers"], 10**9),
        "num_hidden_layers = 10",
    ),
    "weights of no part": (
        edit_weights(lambda weights: weights.update({"extra": torch.zeros(3)})),
        "1 weights belong to no part of Emu3, first 'extra'",
    ),
    "no pad token": (edit_json("tokenizer_config.json", ["pad_token"], ...), "names no pad_token"),
    "no first token": (edit_json("tokenizer_config.json", ["bos_token"], ...), "names no bos_token"),
    "more words than weights": (add_words("tokenizer.json", 3), "gives 'word2' the id"),
    "codes that are other words": (
        edit_json("config.json", ["vocabulary_map", "<|visual token 000003|>"], 0),
        "000003|>' is 0 in config.json's vocabulary map and",
    ),
}
TEXTS = ["a red circle", "six rings"]
CODES = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_damaged_folder_gives_one_line_that_names_it(emu3_folder: Path, tmp_path: Path, name: str) -> None:
    expect_refusal(Emu3, emu3_folder, tmp_path / "broken", BREAKAGES[name])


def test_pickled_weights_are_not_even_opened(emu3_folder: Path, tmp_path: Path) -> None:
    expect_pickles_unopened(Emu3, emu3_folder, tmp_path)


def logps(model: Emu3) -> torch.Tensor:
    return model.image_logps(model.encode_prompt(TEXTS), CODES)


# peft 0.21 asks transformers by a name deprecated in 5.23
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("adapter_only", [False, True])
def test_what_the_card_says_loads_what_was_learned(
    emu3_folder: Path, new_emu3: Any, tmp_path: Path, adapter_only: bool
) -> None:
    model = new_emu3(lora_rank=3, lora_alpha=6)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.base = "BAAI/Emu3-Gen-hf"
    model.save(tmp_path / "mine", adapter_only, {"lr": 1e-5})
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["base_model"] == model.base and header["library_name"] == ("peft" if adapter_only else "transformers")
    assert "rank 3, alpha 6" in card and "| lr | 1e-05 |" in card
    loading = card.split("```python\n")[1].split("\n```")[0].replace("FOLDER", repr(str(tmp_path / "mine")))
    found: dict[str, Any] = {}
    exec(loading.replace(model.base, str(emu3_folder)), found)
    net = found["model"].eval().get_base_model() if adapter_only else found["model"].eval()
    torch.testing.assert_close(logps(Emu3.from_parts(net, found["processor"])), logps(model), atol=1e-4, rtol=0)
    assert (logps(model) - logps(new_emu3())).abs().max() > 1e-2


def test_a_saved_model_is_a_plain_transformers_checkpoint(emu3: Emu3, tmp_path: Path) -> None:
    emu3.save(tmp_path / "saved")
    net, report = Emu3ForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(report.values())
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in emu3.net.state_dict().items())
    assert net.config.text_config.attention_dropout == 0.1, "the config stays as it was"
