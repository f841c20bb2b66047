"""``unigap pool import``: images and preferences from elsewhere become a round that SFT and DPO train on."""

from __future__ import annotations

import csv
import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from small_pools import tree
from small_runs import epochs, expect_error, improve

from unigap.__main__ import main
from unigap.files.images import to_image
from unigap.judges.base import CERTAIN
from unigap.loop import importing
from unigap.models.families import load_model
from unigap.own_images.sources import read_source
from unigap.pool import Pool
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.prompt_sets import prompts
from unigap.worlds.shapes.scenes import imagine, render

CAPTIONS = [prompt.text for prompt in prompts("improve", 1)][:6]
JUDGE = "model.init_args.judge"


def picture(caption: str, seed: int = 0) -> Image.Image:
    """An image of 32 x 32 pixels that shows the caption."""
    return to_image(render(imagine(parse(caption), random.Random(seed))))


def png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def lay_folder(folder: Path, captions: Sequence[str] = CAPTIONS) -> None:
    """A folder of images, each with a text file."""
    folder.mkdir()
    for number, caption in enumerate(captions):
        picture(caption, number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"\ufeff{caption}\r\n", encoding="utf-8")


def lay_pairs(path: Path, captions: Sequence[str] = CAPTIONS) -> None:
    """A JSONL file of preference pairs: the rejected image shows the next caption."""
    rows = []
    for number, caption in enumerate(captions):
        for kind, shown in (("chosen", caption), ("rejected", captions[(number + 1) % len(captions)])):
            picture(shown, number).save(path.parent / f"{number}-{kind}.png")
        rows.append({"text": caption, "chosen": f"{number}-chosen.png", "rejected": f"{number}-rejected.png"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def take(source: str, checkpoint: Path, out: str = "pool", **options: object) -> int:
    given = {"checkpoint": checkpoint, **options}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return main(["pool", "import", source, out, *words])


def listed(source: str) -> list[tuple[str, bool, int | None]]:
    """Captions, verdicts and pairs of a source, after reading each image."""
    found = read_source(source)
    assert all(image.read().mode == "RGB" for image in found)
    return [(image.caption, image.right, image.pair) for image in found]


def test_captioned_images_are_stored_as_the_tokenizer_keeps_them(
    janus_folder: Path, janus: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_folder(here / "mine", [*CAPTIONS, CAPTIONS[0]])
    assert take("mine", janus_folder, prompts_out="prompts.jsonl") == 0
    printed = capsys.readouterr()
    assert "6 prompts, 7 images: 'human' accepts 7" in printed.out and "round trip of 7 images" in printed.out
    assert "pool: pool (7)" in printed.out and "next: unigap fit" in printed.err
    pool = Pool.open("pool", janus.drawing_digest())
    candidates = list(pool.candidates())
    assert sorted(c.id for c in candidates) == sorted([f"{text}@0.0" for text in CAPTIONS] + [f"{CAPTIONS[0]}@0.1"])
    assert all(candidate.logp is None for candidate in candidates)
    assert set(pool.logits("human").values()) == {CERTAIN} and len(pool.logits("self")) == 7
    for candidate in candidates:
        seed = 6 if candidate.id.endswith(".1") else CAPTIONS.index(candidate.prompt.text)
        shown = torch.from_numpy(np.array(picture(candidate.prompt.text, seed))).permute(2, 0, 1)[None].float()
        code_M = janus.encode(shown / 127.5 - 1)[0]
        assert (candidate.drawing == code_M.numpy()).mean() > 0.9
    assert pool.recipe(0)["imported"]["images"] == 7 and pool.recipe(0)["selects"] == "human"
    written = [json.loads(line)["text"] for line in Path("prompts.jsonl").read_text().splitlines()]
    assert written == CAPTIONS


def lay_shard(path: Path, files: dict[str, bytes]) -> None:
    """A tar file."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_the_shards_of_a_webdataset_are_imported(janus_folder: Path, here: Path) -> None:
    (here / "mine").mkdir()
    images = [png(picture(caption, number)) for number, caption in enumerate(CAPTIONS)]
    lay_shard(here / "mine/001.tar", {"b.png": images[2], "b.txt": f"{CAPTIONS[2]}\n".encode()})
    lay_shard(
        here / "mine/000.tar",
        {
            "deep/a.1.cls": b"7",
            "deep/a.jpg": images[0],
            "deep/a.json": json.dumps({"caption": CAPTIONS[0], "width": 32}).encode(),
            "deep/c.TXT": CAPTIONS[1].encode("utf-8-sig"),
            "deep/c.PNG": images[1],
        },
    )
    assert listed("mine") == [(caption, True, None) for caption in CAPTIONS[:3]]
    assert [np.array(found.read()).tolist() for found in read_source("mine")] == [
        np.array(picture(caption, number)).tolist() for number, caption in enumerate(CAPTIONS[:3])
    ]
    assert [image.where for image in read_source("mine/001.tar")] == ["shard 'mine/001.tar': sample 'b'"]
    assert take("mine", janus_folder, measured=0) == 0
    assert {candidate.prompt.text for candidate in Pool.open("pool").candidates()} == {*CAPTIONS[:3]}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a.txt": b"a ring"}, "sample 'a' holds no image"),
        ({"a.png": b"x"}, "sample 'a' has no caption"),
        ({"a.png": b"x", "a.txt": b" \n"}, "the caption is empty"),
        ({"a.png": b"x", "a.txt": b"\xff"}, "'a.txt' is not UTF-8 at byte 0"),
        ({"a.png": b"x", "a.json": b"[1]"}, "sample 'a' has no caption"),
        ({"a.png": b"x", "a.txt": b"a ring"}, "sample 'a': the image cannot be read"),
    ],
)
def test_a_sample_that_is_not_whole_is_named(
    files: dict[str, bytes], told: str, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_shard(here / "mine.tar", files)
    expect_error(take("mine.tar", janus_folder), capsys, "'mine.tar'", told)


def test_a_shard_that_is_cut_off_is_named(janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay_shard(here / "mine.tar", {"a.txt": CAPTIONS[0].encode(), "a.png": png(picture(CAPTIONS[0]))})
    whole = (here / "mine.tar").read_bytes()
    (here / "mine.tar").write_bytes(whole[:1600])
    expect_error(take("mine.tar", janus_folder), capsys, "'mine.tar'", "fetch")


@pytest.mark.parametrize("family", ["showo", "emu3", "bagel", "janus_flow"])
def test_every_family_imports_in_its_own_form(family: str, here: Path, request: pytest.FixtureRequest) -> None:
    lay_folder(here / "mine", CAPTIONS[:3])
    folder = request.getfixturevalue(f"{family}_folder")
    assert take("mine", folder) == 0
    model = load_model(str(folder)).eval()
    pool = Pool.open("pool", model.drawing_digest())
    assert (pool.format is None) == (family not in ("bagel", "janus_flow")) and len(pool.candidates()) == 3
    for candidate in pool.candidates():
        pixels_BCHW = model.decode(importing.stack_drawings([candidate]))
        assert pixels_BCHW.shape[-1] == importing.side_of(model, candidate.prompt)


@pytest.mark.parametrize("config", ["sft", "dpo"])
@pytest.mark.parametrize("name", ["human", "picks"])
def test_a_run_trains_on_imported_pairs_and_samples_nothing_anew(
    config: str, name: str, janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_pairs(here / "pairs.jsonl")
    assert take("pairs.jsonl", janus_folder, judge_name=name, prompts_out="prompts.jsonl", measured=0) == 0
    before = tree(here / "pool/round-00000")
    judge = {JUDGE: "unigap.judges.HumanJudge"}
    if name != "human":
        judge = {JUDGE: "unigap.judges.StoredJudge", f"{JUDGE}.init_args.stored": name}
    flags = {"data.pool": "pool", "data.prompts": "prompts.jsonl", "data.per_cell": "null", "run": "trained"}
    monkeypatch.setattr("unigap.callbacks.regrow.run_round", lambda *words: pytest.fail("it samples"))
    more = {"data.eval_prompts": "shapes", "data.batch_size": 2, "trainer.limit_train_batches": "null"}
    assert improve(janus_folder, config, {**flags, **more, **judge}) == 0
    (trained, _) = epochs(here / "trained")
    chosen, rejected = ([f"{text}@0.{index}" for text in CAPTIONS] for index in (0, 1))
    members = sorted(member for row in trained for member in row.split(">"))
    assert members == sorted(chosen if config == "sft" else chosen + rejected), trained
    assert tree(here / "pool/round-00000") == before


def test_a_killed_import_continues_and_gives_the_same_pool(
    janus_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_folder(here / "mine")
    monkeypatch.setattr(importing, "BATCH", 2)
    assert take("mine", janus_folder, "whole", measured=0) == 0
    encoded, calls = importing._encoded, []

    def killed(*words: Any) -> Any:
        calls.append(words)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encoded(*words)

    with monkeypatch.context() as patch:
        patch.setattr(importing, "_encoded", killed)
        assert take("mine", janus_folder, measured=0) == 130
    assert not Pool.open("pool").rounds
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "annotate", lambda *words: (_ for _ in ()).throw(KeyboardInterrupt))
        assert take("mine", janus_folder, measured=0) == 130
    assert Pool.open("pool").rounds == (0,) and not Pool.open("pool").logits("human")
    for _ in range(2):
        assert take("mine", janus_folder, measured=0, prompts_out="prompts.jsonl") == 0
    assert tree(here / "pool/round-00000") == tree(here / "whole/round-00000")
    assert dict(Pool.open("pool").logits("human")) == dict(Pool.open("whole").logits("human"))


def test_a_pool_of_other_images_stays(janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, captions in (("mine", CAPTIONS), ("others", CAPTIONS[:2])):
        lay_folder(here / name, captions)
    assert take("mine", janus_folder, measured=0) == 0
    before = tree(here / "pool")
    capsys.readouterr()
    expect_error(take("others", janus_folder, measured=0), capsys, "pool holds another round already")
    expect_error(take("mine", janus_folder, shape="pad", measured=0), capsys, "pool holds another round already")
    assert tree(here / "pool") == before


def test_images_of_others_are_not_published_as_the_models(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_folder(here / "mine", CAPTIONS[:2])
    assert take("mine", janus_folder, measured=0) == 0
    capsys.readouterr()
    told = ("holds imported images", "publish their source")
    expect_error(main(["export", "pool", "pool", "--out", "hub", "--license", "mit"]), capsys, *told)
    assert not (here / "hub").exists()


def test_every_layout_is_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = CAPTIONS[:2]
    images = {name: png(picture(text)) for name, text in (("a", first), ("b", second))}
    for name, data in images.items():
        (here / f"{name}.png").write_bytes(data)
    with (here / "table.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerows([["file_name", "text"], ["a.png", 'a "quoted", caption\nof two lines'], ["b.png", second]])
    assert listed("table.csv") == [('a "quoted", caption of two lines', True, None), (second, True, None)]
    (here / "folder").mkdir()
    for name in images:
        (here / "folder" / f"{name}.png").write_bytes(images[name])
    (here / "folder/metadata.jsonl").write_text(
        "".join(
            json.dumps({"file_name": f"{name}.png", "text": text}) + "\n"
            for name, text in (("a", first), ("b", second))
        )
    )
    assert listed("folder") == [(first, True, None), (second, True, None)]
    picks = {"jpg_0": [images["a"]] * 3, "jpg_1": [images["b"]] * 3, "label_0": [1.0, 0.5, 0.0], "caption": [first] * 3}
    Dataset.from_dict(picks).to_parquet(str(here / "picks.parquet"))
    Dataset.from_dict(picks).save_to_disk(str(here / "saved"))
    capsys.readouterr()
    for source in ("picks.parquet", "saved"):
        assert listed(source) == [(first, True, 0), (first, False, 0), (first, True, 1), (first, False, 1)]
        found = read_source(source)
        assert [png(image.read()) for image in found] == [images[name] for name in "abba"]
        assert "1 pairs without a preference are left out" in capsys.readouterr().err
    (here / "mixed").mkdir()
    for name in ("a.parquet", "b.arrow"):
        (here / "mixed" / name).write_bytes((here / "picks.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"both \.parquet and \.arrow"):
        read_source("mixed")
    hpd = {"prompt": first, "image_path": ["a.png", "b.png"], "human_preference": [0, 1]}
    (here / "hpd.jsonl").write_text(json.dumps(hpd) + "\n")
    assert [(image.name, image.right) for image in read_source("hpd.jsonl")] == [("b.png", True), ("a.png", False)]
    column = Dataset.from_dict({"image": [picture(first), picture(second)], "caption": [first, second]})
    column.to_parquet(str(here / "folder-of-tables.parquet"))
    assert listed("folder-of-tables.parquet") == [(first, True, None), (second, True, None)]


def test_pairs_of_one_caption_stay_together(janus_folder: Path, here: Path) -> None:
    lay_pairs(here / "pairs.jsonl", [CAPTIONS[0], CAPTIONS[1]])
    lines = (here / "pairs.jsonl").read_text().splitlines()
    (here / "pairs.jsonl").write_text("".join(line + "\n" for line in [*lines, lines[0]]))
    assert take("pairs.jsonl", janus_folder, measured=0) == 0
    logits = Pool.open("pool").logits("human")
    assert {name: logit > 0 for name, logit in logits.items()} == {
        f"{name}@0.{index}": index == 0 for name in (*CAPTIONS[:2], f"{CAPTIONS[0]} #2") for index in (0, 1)
    }


def test_the_round_trip_counts_what_the_judge_no_longer_finds(
    janus_folder: Path, janus: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_folder(here / "mine")
    images = importing.place_images(read_source("mine"), "mine")
    plan = importing.ImportPlan(importing_judge(), "human", 32, "crop")
    cost = importing.round_trip(janus, images, plan, 100)
    original = torch.stack([plan.pixels([image])[0] for image in images])
    again = janus.decode(janus.encode(original)).clamp(-1, 1)
    assert cost.n == 6 and cost.levels == pytest.approx(float((original - again).abs().mean()) * 127.5, rel=1e-4)
    # the judge accepts what is bright; half of the images are darkened by the round trip
    monkeypatch.setattr(type(janus), "decode", lambda self, codes: dark(again, codes))
    cost = importing.round_trip(janus, images, plan, 100)
    assert (cost.lost.value, cost.lost.n) == (0.5, 6)
    assert importing.round_trip(janus, images, plan, 3).n == 3


def dark(pixels_BCHW: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """White images, every second black."""
    white = torch.ones_like(pixels_BCHW[: len(codes)])
    white[1::2] = -1
    return white


def importing_judge() -> Any:
    """A judge that accepts an image unless it is black."""
    from unigap.judges import Judge

    class Bright(Judge):
        name = "bright"  # type: ignore[assignment]

        def logits(self, model: Any, candidates: Any, pixels_BCHW: torch.Tensor) -> torch.Tensor:
            return pixels_BCHW.flatten(1).amax(1)

    return Bright()


@pytest.mark.parametrize("shape", ["crop", "pad"])
def test_an_oblong_image_is_cropped_or_padded(shape: Any) -> None:
    wide = Image.new("RGB", (60, 20), (255, 0, 0))
    wide.paste((0, 0, 255), (20, 0, 40, 20))
    plan = importing.ImportPlan(importing_judge(), "human", 30, shape)
    pixels = np.asarray(to_image(torch.stack([plan_pixels(plan, wide)])[0]))
    corner, middle = tuple(pixels[0, 4]), tuple(pixels[15, 15])
    assert middle == (0, 0, 255) and corner == ((0, 0, 255) if shape == "crop" else (127, 127, 127))


def plan_pixels(plan: importing.ImportPlan, image: Image.Image) -> torch.Tensor:
    source = importing.SourceImage("a", "row", True, None, "a", lambda: image)
    return plan.pixels(importing.place_images([source], "rows"))[0]
