"""A desk with everything a user could name by mistake: each thing is broken in one way."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from benchmark_files import lay_broken
from PIL import Image
from safetensors.torch import load_file, save_file
from small_pools import fill, flip
from small_runs import CONFIGS

from unigap.pool import Pool
from unigap.storage.manifest import MANIFEST, digest, seal, unseal

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
    # sheets and questions
    "stranger.csv": "candidate_id,verdict\na unicorn@0.0,yes\n",
    "maybe.csv": "candidate_id,verdict\nx,yes\ny,maybe\n",
    "rated-twice.csv": "candidate_id,verdict\nx,yes\nx,yes\n",
    "tie.csv": "candidate_id,verdict,rater\nx,yes,ann\nx,no,ben\n",
    "unrated.csv": "candidate_id,verdict\nx,\n",
    "semicolons.csv": "candidate_id;verdict\nx;yes\n",
    "question-cut.jsonl": '{"prompt": "p", "id": "1", "question": "a ring?"}\n{"pro',
    "question-circle.jsonl": '{"prompt": "p", "id": "1", "question": "a ring?", "parents": ["1"]}\n',
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
        (desk / name).parent.mkdir(exist_ok=True)
        (desk / name).write_text(text, encoding="utf-8")
    for name, data in BYTES.items():
        (desk / name).write_bytes(data)
    (desk / "sets").mkdir()
    lay_broken(desk / "sets")
    lay_lightning_checkpoints(desk)
    lay_folders(desk, janus_folder)
    lay_pools(desk, codebook)
    lay_runs(desk, demo)


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


def lay_runs(desk: Path, demo: Path) -> None:
    """Run folders whose gallery, summary or curves cannot be shown."""

    def variant(name: str) -> Path:
        shutil.copytree(demo, desk / name, ignore=shutil.ignore_patterns("pool", "csv", "report.html"))
        return desk / name / "gallery" / "00-before.png"

    variant("run-text").write_text("a red circle")
    Image.new("RGB", (8, 8)).save(variant("run-jpeg"), "JPEG")
    cut = variant("run-cut")
    cut.write_bytes(cut.read_bytes()[:-20])
    broken = variant("run-broken")
    flip(broken, broken.stat().st_size // 2, 255)
    Image.new("1", (20_000, 20_000)).save(variant("run-bomb"))
    variant("run-missing").unlink()
    outside = variant("run-outside").parents[1] / "gallery.json"
    outside.write_text(outside.read_text().replace("gallery/00-before.png", "../../run-text/summary.json"))
    for name, text in {"run-nan": '{"seed": NaN}', "run-deep": "[" * 100_000, "run-half": '{"seed": '}.items():
        (variant(name).parents[1] / "summary.json").write_text(text)


def fingerprint(desk: Path) -> dict[str, str]:
    """sha256 of every file, by name."""
    return {str(p.relative_to(desk)): hashlib.sha256(p.read_bytes()).hexdigest() for p in _files(desk)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
