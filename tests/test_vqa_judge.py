"""Another model as judge: small random ones of three families, saved to disk with their real processors."""

from __future__ import annotations

import importlib.util
import io
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import expect_error, improve, state
from small_vqa import END, IMAGES, PLACE, START, save_llava, save_qwen
from transformers import (
    AutoModelForImageTextToText,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
)

from unigap.files.images import to_pixels, to_png
from unigap.judges import SelfJudge, VQAJudge
from unigap.judges.self_judge import QUESTION
from unigap.models.engine.image_reader import ImageReader
from unigap.pool import Pool
from unigap.records import Candidate, Prompt
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.scenes import imagine, render

TEXTS = ["a red circle", "a small red circle left of a large blue square", "six rings", "two blue squares", "a ring"]
FAMILIES = ("llava", "qwen")


@pytest.fixture(scope="module", autouse=True)
def without_videos() -> Any:
    """Qwen's processor without the part for videos, which needs torchvision; a judge of images never uses it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Qwen2_5_VLProcessor, "get_attributes", classmethod(lambda cls: ["image_processor", "tokenizer"]))
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint folder of each family."""
    found = {name: tmp_path_factory.mktemp(f"small-{name}") for name in FAMILIES}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_llava(found["llava"])
        save_qwen(found["qwen"])
    return found


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """A render of each text, in the 8 bits a channel that other models are given."""
    rng = random.Random(0)
    exact = torch.stack([render(imagine(parse(text), rng)) for text in TEXTS])
    return ((exact + 1) * 127.5).round() / 127.5 - 1


def candidates(texts: list[str]) -> list[Candidate]:
    codes = np.zeros(16, dtype=np.int32)
    return [Candidate(Prompt(f"p{i}", text), 0, 0, 0, codes, -1.0) for i, text in enumerate(texts)]


def by_hand(folder: Path, family: str, text: str, pixels_CHW: torch.Tensor) -> float:
    """The log-odds of one picture, from a plain forward pass over ids written out here."""
    net = AutoModelForImageTextToText.from_pretrained(folder)
    image = ((pixels_CHW + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    seen = IMAGES[family](image, return_tensors="pt")
    place = {"llava": ["<image>"] * 16, "qwen": [START, *[PLACE] * 16, END]}[family]
    said = f'<s> user : @ Does this figure show " {text} " ? Please answer yes or no . assistant :'.split()
    said[3:4] = place
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    ids = torch.tensor([[vocabulary[word] for word in said]])
    if family == "qwen":
        seen["mm_token_type_ids"] = (ids == vocabulary[PLACE]).int()
    with torch.no_grad():
        logp_V = net(input_ids=ids, **seen).logits[0, -1].log_softmax(-1)
    yes, no = ([vocabulary[form] for form in forms] for forms in (("Yes", "yes"), ("No", "no")))
    return (logp_V[yes].logsumexp(0) - logp_V[no].logsumexp(0)).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_vqascore_whatever_the_batch(
    folders: dict[str, Path], janus: Any, pictures: torch.Tensor, family: str
) -> None:
    judge = VQAJudge(str(folders[family]), batch_size=5)
    together = judge.logits(janus, candidates(TEXTS), pictures)
    assert together.shape == (5,) and together.dtype == torch.float32 and torch.isfinite(together).all()
    assert together.unique().numel() == 5 and not together.requires_grad
    for size in (1, 2):
        judge.batch_size = size
        torch.testing.assert_close(judge.logits(janus, candidates(TEXTS), pictures), together, atol=1e-4, rtol=0)
    asked = zip(TEXTS, pictures, strict=True)
    expected = [by_hand(folders[family], family, text, picture) for text, picture in asked]
    torch.testing.assert_close(together, torch.tensor(expected), atol=1e-4, rtol=0)
    assert judge.logits(janus, [], pictures[:0]).shape == (0,)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_looks_at_the_picture_and_reads_the_prompt(
    folders: dict[str, Path], janus: Any, pictures: torch.Tensor, family: str
) -> None:
    judge = VQAJudge(str(folders[family]))
    said = judge.logits(janus, candidates([TEXTS[0]] * 5), pictures)
    assert said.unique().numel() == 5
    said = judge.logits(janus, candidates(TEXTS), pictures[:1].expand(5, -1, -1, -1))
    assert said.unique().numel() == 5


def test_the_embedded_model_is_a_vqa_model_too(janus_folder: Path, janus: Any, pictures: torch.Tensor) -> None:
    expected = SelfJudge().ask(janus, TEXTS, pictures)
    judge = VQAJudge(str(janus_folder), question=QUESTION)
    torch.testing.assert_close(judge.ask(TEXTS, pictures), expected, atol=1e-4, rtol=0)
    assert judge.name == f"vqa-{janus_folder.name}"


def test_it_is_loaded_once_and_only_when_asked(
    folders: dict[str, Path], janus: Any, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    real = AutoModelForImageTextToText.from_pretrained
    monkeypatch.setattr(
        AutoModelForImageTextToText, "from_pretrained", lambda *a, **k: loads.append(k) or real(*a, **k)
    )
    judge = VQAJudge(str(folders["llava"]), dtype="bfloat16")
    assert not loads
    for _ in range(2):
        assert judge.logits(janus, candidates(TEXTS), pictures).dtype == torch.float32
    assert len(loads) == 1 and loads[0]["dtype"] == torch.bfloat16
    assert loads[0]["use_safetensors"] is True and loads[0]["trust_remote_code"] is False


def test_importing_the_judges_does_not_import_transformers() -> None:
    code = "import sys, unigap.judges; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_judges_from_outside_and_is_no_part_of_what_is_trained(
    folders: dict[str, Path], janus_folder: Path, here: Path
) -> None:
    flags = {
        "model.init_args.judge": "unigap.judges.RandomJudge",
        "model.init_args.external": "unigap.judges.VQAJudge",
        "model.init_args.external.init_args.checkpoint": folders["llava"],
        "trainer.max_epochs": 1,
    }
    assert improve(janus_folder, "sft", flags) == 0
    name = f"vqa-{folders['llava'].name}"
    pool = Pool.open("runs/sft/pool")
    assert {judgment.judge for judgment in pool.judgments()} == {"random", name}
    stored = next(recipe for recipe in pool.recipe(0)["judges"] if recipe["name"] == name)
    assert stored["checkpoint"] == str(folders["llava"]) and "{prompt}" in stored["question"]
    assert stored.keys() == {"name", "checkpoint", "question", "dtype"}
    assert all(key.startswith("model.") for key in state(here / "runs/sft/checkpoints/last.ckpt"))
    assert not any("vision_tower" in key for key in state(here / "runs/sft/checkpoints/last.ckpt"))


# Where the weights are, and how precise


def test_a_device_map_changes_no_verdict(
    folders: dict[str, Path], pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, spread = VQAJudge(str(folders["llava"])), VQAJudge(str(folders["llava"]), device_map="auto")
    expected, maps = plain.ask(TEXTS, pictures), []
    real = AutoModelForImageTextToText.from_pretrained
    monkeypatch.setattr(
        AutoModelForImageTextToText,
        "from_pretrained",
        lambda *a, **k: maps.append(k["device_map"]) or real(*a, **k),
    )
    assert torch.equal(spread.ask(TEXTS, pictures), expected) and maps == ["auto"]
    assert spread.recipe == plain.recipe, "where it is does not matter"


def test_weights_are_moved_away_between_batches(
    folders: dict[str, Path], janus: Any, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[str] = []
    real = ImageReader.to
    monkeypatch.setattr(ImageReader, "to", lambda self, device: moves.append(device) or real(self, device))
    kept, moved = VQAJudge(str(folders["llava"])), VQAJudge(str(folders["llava"]), device="meta", offload=True)
    kept.ask(TEXTS, pictures)
    assert moves == ["cpu"]
    with pytest.raises((RuntimeError, NotImplementedError)):
        moved.ask(TEXTS, pictures, "meta")  # computes nothing there, and comes back all the same
    assert moves == ["cpu", "meta", "cpu"] and moved.recipe == kept.recipe


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning")
@pytest.mark.parametrize("dtype", ["bnb-8bit", "bnb-4bit"])
def test_quantised_weights_give_similar_verdicts(tmp_path: Path, pictures: torch.Tensor, dtype: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_llava(tmp_path / "wide", width=128)
    full, quantised = VQAJudge(str(tmp_path / "wide")), VQAJudge(str(tmp_path / "wide"), dtype=dtype)
    exact, rounded = full.ask(TEXTS, pictures), quantised.ask(TEXTS, pictures)
    assert torch.isfinite(rounded).all() and not torch.equal(exact, rounded)
    assert full.recipe["dtype"] == "auto" and quantised.recipe["dtype"] == dtype
    assert quantised._reader is not None and quantised._reader.net.is_quantized


def test_quantised_weights_without_their_library_name_the_extra(
    folders: dict[str, Path], janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else real(name, *a)
    )
    flags = {
        "model.init_args.external": "unigap.judges.VQAJudge",
        "model.init_args.external.init_args.checkpoint": folders["llava"],
        "model.init_args.external.init_args.dtype": "bnb-4bit",
    }
    status = improve(janus_folder, "sft", flags)
    expect_error(status, capsys, "dtype 'bnb-4bit' needs bitsandbytes; pip install 'unigap[quantized]'")


# What is refused


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"checkpoint": "https://example.org/qwen"}, "is a URL"),
        ({"checkpoint": "./nowhere"}, "no such folder"),
        ({"question": "Is it good?"}, r"no \{prompt\}"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; choose one of: auto"),
        ({"device": "cuda:99"}, "is not available"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"device_map": "spread"}, "unknown device_map 'spread'; choose one of: auto"),
        ({"device_map": "auto", "device": "cpu"}, "device 'cpu' and device_map 'auto' exclude each other"),
        ({"device_map": "auto", "offload": True}, "offload moves whole models"),
    ],
)
def test_mistakes_show_before_anything_is_drawn(folders: dict[str, Path], options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        VQAJudge(**{"checkpoint": str(folders["llava"]), **options})


def ask(folder: Path) -> torch.Tensor:
    return VQAJudge(str(folder)).ask(["a ring"], torch.zeros(1, 3, 32, 32))


def test_a_checkpoint_that_cannot_judge_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        shutil.copytree(folders["llava"], tmp_path / name)
        return tmp_path / name

    (copy("cut") / "model.safetensors").write_bytes((folders["llava"] / "model.safetensors").read_bytes()[:4096])
    with pytest.raises(ValueError, match=r"'.*cut' does not load as an image-text-to-text model"):
        ask(tmp_path / "cut")
    weights = copy("pickled") / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ValueError, match=r"pickled.*model.safetensors"):
        ask(tmp_path / "pickled")
    text = (copy("mute") / "tokenizer.json").read_text()
    for form in ("Yes", "yes"):
        text = text.replace(f'"{form}":', f'"{form}yes":')
    (tmp_path / "mute" / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match="no single token for 'yes'"):
        ask(tmp_path / "mute")
    config = json.loads((copy("words") / "config.json").read_text())["text_config"]
    (tmp_path / "words" / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(ValueError, match=r"'.*words' does not load as an image-text-to-text model"):
        ask(tmp_path / "words")


def test_a_missing_package_is_named(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def needs(*args: Any, **options: Any) -> None:
        raise ImportError("This tokenizer requires the sentencepiece library but it was not found.")

    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", needs)
    with pytest.raises(ValueError, match=r"requires the sentencepiece library .*; install it"):
        ask(folders["qwen"])


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is there")
def test_a_processor_that_wants_torchvision_names_the_extra(
    folders: dict[str, Path], janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole = classmethod(ProcessorMixin.get_attributes.__func__)  # type: ignore[attr-defined]
    monkeypatch.setattr(Qwen2_5_VLProcessor, "get_attributes", whole)
    # published folders keep what the processor needs in one file for images and videos
    shutil.copytree(folders["qwen"], "published")
    parts = json.loads(Path("published/processor_config.json").read_text())
    Path("published/processor_config.json").unlink()
    images = {**parts["image_processor"], "processor_class": "Qwen2_5_VLProcessor"}
    Path("published/preprocessor_config.json").write_text(json.dumps(images))
    flags = {
        "model.init_args.external": "unigap.judges.VQAJudge",
        "model.init_args.external.init_args.checkpoint": "./published",
    }
    status = improve(janus_folder, "sft", flags)
    expect_error(status, capsys, "'./published'", "its processor needs torchvision; pip install 'unigap[vqa]'")


def test_a_judge_that_is_wrong_costs_no_drawing(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {
        "model.init_args.external": "unigap.judges.VQAJudge",
        "model.init_args.external.init_args.checkpoint": "./nowhere",
    }
    expect_error(improve(janus_folder, "sft", flags), capsys, "./nowhere", "no such folder")
    assert not list(here.rglob("*.parquet"))


def test_another_model_sees_the_pixels_that_are_exported(folders: dict[str, Path], janus: Any) -> None:
    codes_BM = torch.randint(64, (len(TEXTS), 16), generator=torch.Generator().manual_seed(0))
    exact = janus.decode(codes_BM)
    shown = torch.stack([to_pixels(Image.open(io.BytesIO(to_png(pixels_CHW))), 32) for pixels_CHW in exact])
    judge = VQAJudge(str(folders["llava"]))
    assert torch.equal(judge.ask(TEXTS, exact), judge.ask(TEXTS, shown))
    own = SelfJudge()
    assert not torch.equal(own.ask(janus, TEXTS, exact), own.ask(janus, TEXTS, shown)), "which sees more"
