"""A desk with everything a user could name by mistake: each thing is broken in one way."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import torch
from benchmark_files import lay_broken
from PIL import Image
from safetensors.torch import load_file, save_file
from small_pools import fill, flip
from small_runs import CONFIGS

from unigap.files.durable import MANIFEST, digest, seal, unseal
from unigap.files.seals import SEALS, write_sealed
from unigap.pool import Pool
from unigap.pool.layout import HEAD
from unigap.report.run_folder.fit_folder import CONFIG, LAST

SFT = (CONFIGS / "sft.yaml").read_text()
LR = next(line for line in SFT.splitlines(keepends=True) if line.startswith("    lr: "))
EXECUTED = "EXECUTED"
"""What a bomb leaves in the working directory."""


class Bomb:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {EXECUTED}",)


def billion_laughs() -> str:
    """Nine lines of YAML that stand for 9 ** 9 values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]\n"]
    lines += [f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]\n" for before, here in pairwise("abcdefghi")]
    return "".join(lines)


TEXTS = {
    # prompts
    "zebra.txt": "a red zebra\na red circle\n",
    "long.txt": " and ".join(["a red circle"] * 100) + "\n",
    "megabyte.txt": "a red circle " * 80_000 + "\n",
    "empty.txt": "\n\n",
    "mark.txt": "a red circle\n\ufeffa blue ring\n",
    "text.csv": "a red circle\n",
    "seen.txt": "a red circle\n",
    "twice.jsonl": '{"text": "a red circle", "id": "x"}\n{"text": "a blue ring", "id": "x"}\n',
    "nan.jsonl": '{"text": "a red circle", "weight": NaN}\n',
    "nul.jsonl": '{"text": "a red\\u0000circle"}\n',
    "half.jsonl": '{"text": "a red \\ud83d circle"}\n',
    "deep.jsonl": "[" * 100_000 + "\n",
    "digits.jsonl": f'{{"text": "a red circle", "id": {"7" * 5000}}}\n',
    "cut.jsonl": '{"text": "a red circle"}\n{"text": "a blue ri',
    "path.jsonl": '{"text": "a red circle", "id": "../../etc/passwd"}\n',
    "key-twice.jsonl": '{"text": "a red circle", "text": "a blue ring"}\n',
    "number.jsonl": '{"text": 5}\n',
    "bare.jsonl": '"a red circle"\n',
    "infinite.jsonl": '{"text": "a red circle", "truth": {"score": 1e999}}\n',
    "composed.txt": "a caf\u00e9\n",
    "decomposed.txt": "a cafe\u0301\n",
    "invisible.txt": "a red\u200b circle\n",
    # configs
    "unclosed.yaml": "model: [unclosed\n",
    "empty.yaml": "",
    "list.yaml": "- model\n- data\n",
    "number-key.yaml": "1: 2\n",
    "nul.yaml": "model: a\0b\n",
    "deep.yaml": "model: " + "[" * 20_000 + "]" * 20_000 + "\n",
    "laughs.yaml": billion_laughs(),
    "mirror.yaml": "model: &m [*m]\n",
    "python.yaml": f"model: !!python/object/apply:os.system ['touch {EXECUTED}']\n",
    "block-twice.yaml": SFT + "trainer:\n  max_epochs: 9\n",
    "lr-twice.yaml": SFT.replace(LR, LR + "    lr: 1.0e-4\n"),
    "trainr.yaml": SFT.replace("trainer:", "trainr:"),
    "learning-rate.yaml": SFT.replace(LR, "    lrr: 5.0e-4\n"),
    "candidate.yaml": SFT.replace("plan: {candidates: 8}", "plan: {candidate: 8}"),
    "words.yaml": SFT.replace("batch_size: 32", "batch_size: many"),
    "negative.yaml": SFT.replace("batch_size: 32", "batch_size: -32"),
    "text-for-list.yaml": (CONFIGS / "best.yaml").read_text().replace("at_epochs: [3]", "at_epochs: often"),
    "regrow-says-when.yaml": SFT.replace("regrow:\n", "regrow:\n  every_n_epochs: 1\n"),
    # images from elsewhere
    "images/uncaptioned/a.png": "",
    "images/empty/a.png": "",
    "images/empty/a.txt": " \n",
    "images/torn.csv": "file_name,text\nuncaptioned/a.png,a red circle\n",
    "images/gone.jsonl": '{"file_name": "nope.png", "text": "a red circle"}\n',
    "images/odd.csv": "left,right\n1,2\n",
    "images/halves.jsonl": '{"prompt": "a red circle", "image_path": ["a.png"], "human_preference": [1]}\n',
    "images/label.jsonl": '{"caption": "a red circle", "jpg_0": "a.png", "jpg_1": "b.png", "label_0": 2}\n',
    "images/untold.jsonl": '{"image": "a.png", "text": " "}\n',
    "images/no-image.jsonl": '{"image": 5, "text": "a red circle"}\n',
    "images/broken.parquet": "no parquet",
    "images/broken.tar": "no tar file" * 99,
    "images/unread.jsonl": '{"image": "a.png", "text": "a unicorn"}\n',
    # sheets and questions
    "stranger.csv": "candidate_id,verdict\na unicorn@0.0,yes\n",
    "maybe.csv": "candidate_id,verdict\nx,yes\ny,maybe\n",
    "rated-twice.csv": "candidate_id,verdict\nx,yes\nx,yes\n",
    "tie.csv": "candidate_id,verdict,rater\nx,yes,ann\nx,no,ben\n",
    "unrated.csv": "candidate_id,verdict\nx,\n",
    "open-quote.csv": 'candidate_id,verdict,comment\nx,yes,"good\ny,no,\nz,no,\n',
    "swallowed.csv": 'candidate_id,verdict,comment\nx,yes,"good\ny,no,bad"\nz,no,\n',
    "two-verdicts.csv": "candidate_id,verdict,verdict\nx,yes,no\n",
    "short-row.csv": "candidate_id,verdict,rater\nx,yes\n",
    "long-row.csv": "candidate_id,verdict\nx,yes,no\n",
    "nameless.csv": "candidate_id,verdict\n,yes\n",
    "semicolons.csv": "candidate_id;verdict\nx;yes\n",
    "rubric.csv": "question,weight\nIs it {prompt}?,much\n",
    "question-cut.jsonl": '{"prompt": "p", "id": "1", "question": "a ring?"}\n{"pro',
    "question-circle.jsonl": '{"prompt": "p", "id": "1", "question": "a ring?", "parents": ["1"]}\n',
    # results that others wrote
    "mine/figures.json": '{"score": {"value": 0.5}}',
    "mine/page.html": "<!doctype html><title>mine</title>",
    "mine/demo-by-name/demo.json": "{}",
    "mine/demo-by-name/thesis.tex": "mine",
    # folders
    "no-model/config.json": "{}",
    "no-json/config.json": "{",
    "deep-json/config.json": "[" * 100_000,
    "full/notes.txt": "mine",
}
BYTES = {
    "latin.txt": b"a r\xe9d circle\n",
    "wide.txt": "a red circle\n".encode("utf-16"),
    "latin.yaml": SFT.encode() + b"# r\xe9d\n",
    "latin.csv": b"candidate_id,verdict\nr\xe9d,yes\n",
    "wide.yaml": SFT.encode("utf-16"),
}
CODE = f"import os\nos.system('touch {EXECUTED}')\n"


def set_desk(desk: Path, janus_folder: Path, codebook: str, demo: Path) -> None:
    """Lays everything out in an empty folder.

    Args:
        desk: The folder.
        janus_folder: A sound checkpoint.
        codebook: Fingerprint of its image vocabulary.
        demo: Folder of a finished run with a gallery.
    """
    for name, text in TEXTS.items():
        (desk / name).parent.mkdir(parents=True, exist_ok=True)
        (desk / name).write_text(text, encoding="utf-8")
    for name, data in BYTES.items():
        (desk / name).write_bytes(data)
    (desk / "sets").mkdir()
    lay_broken(desk / "sets")
    lay_lightning_checkpoints(desk)
    lay_folders(desk, janus_folder)
    lay_pools(desk, codebook)
    lay_runs(desk, demo)
    lay_special_files(desk)


def lay_lightning_checkpoints(desk: Path) -> None:
    """Files that are no Lightning checkpoint of this model, or no checkpoint at all."""
    sound = {"state_dict": {"model.x": torch.zeros(1)}, "pytorch-lightning_version": "2"}
    (desk / "bare.ckpt").write_bytes(pickle.dumps(Bomb()))
    (desk / "junk.ckpt").write_bytes(bytes(range(256)) * 16)
    torch.save({**sound, "x": Bomb()}, desk / "bomb.ckpt")
    torch.save(sound, desk / "other.ckpt")
    torch.save({"weights": torch.zeros(1)}, desk / "weights.ckpt")
    whole = (desk / "other.ckpt").read_bytes()
    (desk / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({**sound, "state_dict": {"model.x": torch.tensor(float("nan"))}}, desk / "not-finite.ckpt")
    torch.save({**sound, "state_dict": {"model.x": torch.arange(1000.0)}}, desk / "flipped.ckpt")
    flip(
        desk / "flipped.ckpt", (desk / "flipped.ckpt").read_bytes().index(torch.arange(900.0, 910).numpy().tobytes()), 1
    )


def lay_folders(desk: Path, sound: Path) -> None:
    """Checkpoint folders, each with one thing wrong."""

    def variant(name: str, *without: str) -> Path:
        (desk / name).mkdir()
        for file in sound.iterdir():
            if file.name not in without:
                shutil.copyfile(file, desk / name / file.name)
        return desk / name

    weights, tensors = "model.safetensors", load_file(sound / "model.safetensors")
    norm = "model.language_model.norm.weight"
    (variant("cut-off", weights) / weights).write_bytes((sound / weights).read_bytes()[:4096])
    (variant("junk", weights) / weights).write_bytes(bytes(range(256)) * 16)
    (variant("pickle-inside", weights) / weights).write_bytes(pickle.dumps(Bomb()))
    (variant("pickled", weights) / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    save_file({"x": torch.zeros(1)}, variant("strange", weights) / weights, {"format": "pt"})
    save_file({**tensors, norm: torch.ones(7)}, variant("wrong-shape", weights) / weights, {"format": "pt"})
    save_file(
        {**tensors, norm: tensors[norm] * float("nan")}, variant("not-a-number", weights) / weights, {"format": "pt"}
    )
    coded = variant("coded", "config.json", "processor_config.json", "tokenizer_config.json")
    (coded / "own.py").write_text(CODE)
    for file, kinds in {
        "config.json": ("AutoConfig", "AutoModel"),
        "processor_config.json": ("AutoProcessor",),
        "tokenizer_config.json": ("AutoTokenizer",),
    }.items():
        content = json.loads((sound / file).read_text())
        content |= {"auto_map": {kind: "own.Own" for kind in kinds}, "processor_class": "Own", "tokenizer_class": "Own"}
        (coded / file).write_text(json.dumps(content))
    config = json.loads((sound / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 10**9
    (variant("too-deep", "config.json") / "config.json").write_text(json.dumps(config))
    save_file({**tensors, "lora_A": torch.ones(2)}, variant("adapter-inside", weights) / weights, {"format": "pt"})
    settings = json.loads((sound / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (variant("unpadded", "tokenizer_config.json") / "tokenizer_config.json").write_text(json.dumps(settings))
    variant("untold", "chat_template.jinja")
    escape = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    (variant("template", "chat_template.jinja") / "chat_template.jinja").write_text(escape)


def lay_pools(desk: Path, codebook: str) -> None:
    """Pools that are damaged, or another model's."""
    fill(Pool.create(desk / "pool-of-another", "another model"), 0)
    for name in ("pool-altered", "pool-without", "pool-pickled", "pool-gap"):
        pool = Pool.create(desk / name, codebook)
        for number in range(2 if name == "pool-gap" else 1):
            fill(pool, number)
    flip(desk / "pool-altered/round-00000/judgments.parquet", 300, 4)
    (desk / "pool-without/round-00000/candidates.parquet").unlink()
    shutil.rmtree(desk / "pool-gap/round-00000")
    # whoever makes a pool can make its seals too
    folder, bomb = desk / "pool-pickled/round-00000", pickle.dumps(Bomb())
    (folder / "judgments.parquet").write_bytes(bomb)
    content = unseal(folder / MANIFEST).content
    content["files"]["judgments.parquet"] = digest(bomb)
    (folder / MANIFEST).write_bytes(seal(content))
    (desk / "pool-pickled" / HEAD).unlink()  # as in pools of earlier versions


def lay_runs(desk: Path, demo: Path) -> None:
    """Run folders whose gallery, summary or curves cannot be shown."""

    def variant(name: str, *without: str) -> Path:
        left_out = ("pool", "checkpoints", "logs", "config.yaml", "report.html", "rows.jsonl", *without)
        shutil.copytree(demo, desk / name, ignore=shutil.ignore_patterns(*left_out))
        return desk / name / "gallery" / "00-before.png"

    variant("run-text").write_text("a red circle")
    Image.new("RGB", (8, 8)).save(variant("run-jpeg"), "JPEG")
    cut = variant("run-cut")
    cut.write_bytes(cut.read_bytes()[:-20])
    broken = variant("run-broken")
    flip(broken, broken.stat().st_size // 2, 255)
    Image.new("1", (20_000, 20_000)).save(variant("run-bomb"))
    variant("run-missing").unlink()
    pipe = variant("run-pipe")
    pipe.unlink()
    os.mkfifo(pipe)
    outside = variant("run-outside", SEALS).parents[1] / "gallery.json"
    outside.write_text(outside.read_text().replace("gallery/00-before.png", "../../run-text/summary.json"))
    for name, text in {"run-nan": '{"seed": NaN}', "run-deep": "[" * 100_000, "run-half": '{"seed": '}.items():
        (variant(name, SEALS).parents[1] / "summary.json").write_text(text)
    lay_sealed_runs(desk, lambda name: variant(name).parents[1])
    lay_trained_runs(desk)


def lay_sealed_runs(desk: Path, variant: Callable[[str], Path]) -> None:
    """Run folders one of whose files is not as it was written."""
    for name in ("summary", "curves", "gallery", "rejudged", "seals"):
        path = variant(f"run-edited-{name}") / f"{name}.json"
        text = path.read_text()
        digit = text.rindex("1") if "1" in text else text.rindex("[")
        path.write_text(f"{text[:digit]}0{text[digit + 1 :]}")
    for name in ("summary", "curves", "gallery"):
        (variant(f"run-without-{name}") / f"{name}.json").unlink()
    for name, replace in {"fifo": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero")}.items():
        path = variant(f"run-{name}") / "summary.json"
        path.unlink()
        replace(path)
    picture = variant("run-flipped-picture") / "gallery/00-before.png"
    flip(picture, picture.stat().st_size - 20, 1)
    picture.with_name("01-before.png").unlink()
    fifo = variant("run-fifo-picture") / "gallery/00-before.png"
    fifo.unlink()
    os.mkfifo(fifo)


def lay_trained_runs(desk: Path) -> None:
    """Runs of ``unigap fit`` whose weights or config cannot be used."""
    for name, checkpoint, config in (
        ("trained-to-nothing", "not-finite.ckpt", "model: {}\n"),
        ("trained-and-flipped", "flipped.ckpt", "model: {}\n"),
        ("trained-laughing", "other.ckpt", billion_laughs()),
        ("trained-edited", "other.ckpt", "model: {}\n"),
    ):
        folder = desk / name / "checkpoints"
        folder.mkdir(parents=True)
        shutil.copyfile(desk / checkpoint, folder / LAST)
        (folder / CONFIG).write_text(config)
    write_sealed(folder / CONFIG, b"model: {}\n")
    (folder / CONFIG).write_text("model: {x: 1}\n")


def lay_special_files(desk: Path) -> None:
    """Pipes, devices and links, a config that is too large, and demos of which one holds a file of the user's."""
    (desk / "nested-pipe.yaml").write_text("model: pipe.yaml\n")
    for name in ("pipe.txt", "pipe.jsonl", "pipe.csv", "pipe.yaml"):
        os.mkfifo(desk / name)
    os.mkfifo(desk / "mine/color_val.txt")
    (desk / "zero.jsonl").symlink_to("/dev/zero")
    (desk / "mine/link.json").symlink_to("../seen.txt")
    shutil.copyfile(desk / "other.ckpt", desk / "mine/other.ckpt")
    shutil.copytree(desk / "run-text", desk / "mine/demo")
    (desk / "huge.yaml").write_text("# " + "x" * 2**20 + "\n")
    shutil.copytree(desk / "run-text", desk / "mine/demo-with-notes")
    (desk / "mine/demo-with-notes/gallery/notes.txt").write_text("mine")


def fingerprint(desk: Path) -> dict[str, str]:
    """sha256 of every file, by name."""
    return {str(p.relative_to(desk)): hashlib.sha256(p.read_bytes()).hexdigest() for p in _files(desk)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
