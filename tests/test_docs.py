"""The documentation keeps its word: its examples run, its links lead somewhere, its commands are understood."""

from __future__ import annotations

import csv
import importlib
import json
import pkgutil
import random
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_runs import epochs, improve, shrink_demo, state

from unigap.__main__ import HELP, VERBS, main
from unigap.cli.commands.model_choice import ModelChoice
from unigap.loop.references import image_likelihoods
from unigap.models.base import SamplingRecipe
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.records import Candidate, Prompt
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.oracle import verdicts
from unigap.worlds.shapes.scenes import imagine, render

ROOT = Path(__file__).parents[1]
DOCS, EXAMPLES = ROOT / "docs", ROOT / "docs" / "examples"
PAGES = [path for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md")) if "_build" not in path.parts]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
FENCE = re.compile(r"^```(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"\]\(([^)\s]+)\)|^```\{(?:image|literalinclude)\} (\S+)", re.MULTILINE)


def commands(page: Path) -> Iterator[str]:
    """Every ``unigap ...`` command of a page, as a line."""
    text = page.read_text(encoding="utf-8")
    for name, value in re.findall(r'^([A-Z]+)="(.*)"$', text, re.MULTILINE):
        text = text.replace(f"${name}", value)
    for language, block in FENCE.findall(text):
        if language in ("", "bash", "sh", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.search(r"(?:^|\s)unigap ([^#>|&]*)", line)
                if found and not line.lstrip().startswith("#"):
                    yield found[1].strip()


def slug(heading: str) -> str:
    """The name a heading is linked by."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# -- links and commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for match in TARGET.finditer(page.read_text(encoding="utf-8")):
        target, _, anchor = (match[1] or match[2]).partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (page.parent / target) if target else page
        assert path.exists(), f"{target} is not there"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{target} has no heading {anchor}"


COMMANDS = sorted({command for page in PAGES for command in commands(page)})


def understood(command: str, monkeypatch: pytest.MonkeyPatch, run: Path) -> object:
    """The exit status of a command that shows what it would do instead of doing it; ``compare`` compares ``run``."""
    monkeypatch.syspath_prepend(EXAMPLES)
    words = [word for word in shlex.split(command) if word != "--print_config"]
    if words[0].startswith("--") or "--help" in words:
        return 0 if words[0] in (*VERBS, *HELP.split()) else 2
    if words[0] == "compare":
        for word in words[1:]:
            shutil.copytree(run, word)
        return main(words)
    monkeypatch.chdir(ROOT)
    try:
        return main([*words, "--print_config"])
    except SystemExit as ended:
        return ended.code


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(
    command: str, here: Path, small_demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert understood(command, monkeypatch, small_demo) in (0, None), capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit --config configs/shapes/sft.yaml --data.batch 3", "gap --seeds 3", "gpa"])
def test_a_command_that_is_wrong_is_noticed(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert understood(command, monkeypatch, tmp_path) == 2


def test_the_pages_show_what_there_is() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    unseen = [path.name for path in EXAMPLES.iterdir() if path.is_file() and f"examples/{path.name}" not in text]
    assert not unseen, f"no page shows {unseen}"
    assert {command.split()[0] for command in COMMANDS} >= VERBS.keys(), "every verb is shown"


# -- examples


@pytest.fixture
def examples(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the examples, as in a clone, and their modules to be imported."""
    shutil.copytree(EXAMPLES, here / "docs" / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(here / "docs" / "examples")
    return here


def fit(name: str, *flags: str) -> int:
    return main(["fit", "--config", f"docs/examples/{name}.yaml", *QUIET, *flags])


def curves(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((run / "curves.json").read_text())
    return rows


def test_own_model_learns_with_its_trunk_alone(examples: Path) -> None:
    assert fit("own_model") == 0
    run = examples / "runs" / "own_model"
    first, last = curves(run)[0]["generation"], curves(run)[-1]["generation"]
    assert last > first + 0.1, (first, last)
    untrained = importlib.import_module("own_model").Painter().state_dict()
    trained = state(run / "checkpoints" / "last.ckpt")
    # a frozen weight that moved would be in the file too
    assert trained.keys() == {f"model.{name}" for name in untrained if name.startswith("cell.")}
    assert not any(torch.equal(tensor, untrained[name.removeprefix("model.")]) for name, tensor in trained.items())


def test_every_verb_that_needs_a_model_takes_ones_own(
    examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--trainer.max_epochs", "1", "--trainer.callbacks", "[]", "--model.init_args.model.init_args.seed", "7"]
    assert fit("own_model", *small, "--regrow.plan.candidates", "4", "--model.init_args.eval_plan.candidates", "1") == 0
    run, painter = "runs/own_model", ["--model", "own_model.Painter", "--model.width", "96"]
    trained = state(Path(run) / "checkpoints" / "last.ckpt")
    model = ModelChoice(run).load()
    assert type(model).__name__ == "Painter" and all(
        torch.equal(tensor, model.state_dict()[name.removeprefix("model.")]) for name, tensor in trained.items()
    )
    # by the run's config, and by a class path where there is no run
    for words in (
        ["export", "pool", f"{run}/pool", "--out", "data"],
        ["judge", "export", f"{run}/pool", "--out", "sheet", "--n", "4"],
        ["export", "model", run, "--out", "weights"],
    ):
        assert main(words) == 0, capsys.readouterr().err
    shutil.copytree(f"{run}/pool", "elsewhere/pool")
    assert main(["judge", "export", "elsewhere/pool", "--out", "sheet-2", "--n", "4"]) == 2
    assert "belongs to model" in capsys.readouterr().err
    prompts = ["--prompts", "docs/examples/paintings.jsonl", "--candidates", "1"]
    pairs = ["--captions", "docs/examples/pairs/pairs.jsonl", "--n", "4", "--precision", "0.01"]
    Path(pairs[1]).write_text(captions("docs/examples/pairs/pairs.csv"))
    for words in (
        ["export", "pool", "elsewhere/pool", "--out", "data-2", *painter],
        ["judge", "export", "elsewhere/pool", "--out", "sheet-2", "--n", "4", *painter],
        ["gap", "--checkpoint", run, *prompts],
        ["gap", *painter, *prompts],
        ["calibrate", *painter, *pairs],
        ["calibrate", "--checkpoint", run, *pairs],
    ):
        assert main(words) == 0, (words, capsys.readouterr().err)
    assert "`own_model.Painter`" in Path("data/README.md").read_text()
    shrink_demo(monkeypatch, {"model.init_args.judge": {"class_path": "unigap.judges.RandomJudge"}})
    assert main(["demo", "--out", "demo", *painter]) == 0
    made = json.loads(Path("demo/summary.json").read_text())
    assert made["model"] == "Painter" and "generation" in made["after"]
    assert made["command"] == f"unigap demo --out demo {' '.join(painter)}"


def captions(path: str) -> str:
    """The pictures of a CSV file with their captions, as lines of JSON."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = [{"image": row["image"], "caption": row["caption"]} for row in csv.DictReader(file)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_own_flow_keeps_the_promises_and_learns_with_its_trunk_alone(
    examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(Path("docs/examples/own_flow.py").read_text(encoding="utf-8").splitlines()) < 150
    assert main(["check", "--model", "own_flow.Sketcher"]) == 0, capsys.readouterr()
    assert fit("own_flow") == 0
    run = examples / "runs" / "own_flow"
    first, last = curves(run)[0]["generation"], curves(run)[-1]["generation"]
    assert last > first + 0.05, (first, last)
    untrained = importlib.import_module("own_flow").Sketcher().state_dict()
    trained = state(run / "checkpoints" / "last.ckpt")
    # the number of steps is an option, and the rest is frozen
    assert trained.keys() == {f"model.{name}" for name in untrained if name.startswith("mlp.") or name == "steps"}
    changed = {name for name, tensor in trained.items() if not torch.equal(tensor, untrained[name.split(".", 1)[1]])}
    assert changed == trained.keys() - {"model.steps"}


def test_own_model_keeps_the_promises_of_the_protocol(examples: Path) -> None:
    model = importlib.import_module("own_model").Painter()
    prompts, seeds_BN = model.encode_prompt(["a red picture", "blue"]), torch.arange(6).view(2, 3)
    for recipe in (SamplingRecipe(), SamplingRecipe(cfg=3.0)):
        drawn = model.sample_images(prompts, seeds_BN, recipe)
        codes_RM = drawn.drawings_BN.flatten(0, 1)
        torch.testing.assert_close(model.image_logps(prompts.repeat(3), codes_RM), drawn.logp_BNM.flatten(0, 1))
        acted_RM = model.image_logps(prompts, codes_RM, recipe=recipe)
        torch.testing.assert_close(acted_RM, drawn.behaviour_BNM.flatten(0, 1))
        alone = model.sample_images(model.encode_prompt(["blue"]), seeds_BN[1:, 2:], recipe)
        assert torch.equal(alone.drawings_BN[0, 0], drawn.drawings_BN[1, 2])
        torch.testing.assert_close(alone.logp_BNM[0, 0], drawn.logp_BNM[1, 2])
    pixels_BCHW = model.decode(codes_RM)
    assert torch.equal(model.encode(pixels_BCHW), codes_RM)
    asked = [["is it red?", "blue?"]] * 6
    said_BQT, seen_BQT = model.text_logps(pixels_BCHW, asked, [["y", "yes"]] * 6)
    denied_BQT, _ = model.text_logps(pixels_BCHW, asked, [["n", "n"]] * 6)
    assert seen_BQT.sum(-1).tolist() == [[1, 3]] * 6
    torch.testing.assert_close(said_BQT[..., 0] - denied_BQT[..., 0], model.judge_logit(pixels_BCHW, asked))


def test_own_judge_sees_colours_and_is_stored_beside_the_model(examples: Path) -> None:
    assert fit("own_judge") == 0
    pool = Pool.open(examples / "runs" / "own_judge" / "pool")
    drawn = {candidate.id for candidate in pool.candidates()}
    for name in ("colour", "self"):
        assert {judgment.candidate_id for judgment in pool.judgments(name)} == drawn
    judge = importlib.import_module("own_judge").ColourJudge()
    scene = render(imagine(parse("a red circle left of a blue square"), random.Random(0)))
    texts = ["two red and blue things", "a red circle and a green ring", "something"]
    asked = [Candidate(Prompt(text, text), 0, 0, 0, torch.zeros(16).numpy(), 0.0) for text in texts]
    assert (judge.logits(None, asked, scene.expand(3, -1, -1, -1)) > 0).tolist() == [True, False, True]


def test_an_advantage_for_each_row_reaches_the_step(examples: Path) -> None:
    assert fit("own_advantage") == 0
    pool = Pool.open(examples / "runs" / "own_advantage" / "pool")
    module, candidates, logits = importlib.import_module("own_advantage"), pool.candidates(), pool.logits("self")
    objective = module.GroupAdvantage()
    rows = objective.rows(candidates, logits)
    assert len(curves(examples / "runs" / "own_advantage")) == 2 and len(rows) > 8
    for row in rows:
        group = [torch.tensor(logits[c.id]).sigmoid() for c in candidates if c.prompt == row.prompt]
        spread = torch.stack(group).std(correction=0)
        expected = (torch.tensor(logits[row.candidate.id]).sigmoid() - torch.stack(group).mean()) / spread
        assert row.value == pytest.approx(float(expected), rel=1e-3, abs=1e-4)
    model = Janus("shapes")
    batch = objective.collate(rows[:8], {})
    logp_B = torch.tensor(list(image_likelihoods(model, [row.candidate for row in rows[:8]]).values())) / 16
    expected = -(torch.tensor([row.value for row in rows[:8]]) * logp_B).mean()
    torch.testing.assert_close(objective.step(model, batch).loss, expected.float(), atol=1e-5, rtol=1e-4)
    assert batch.to("meta").advantage_B.device.type == "meta"


def test_own_objective_moves_the_chosen_away_from_the_rejected(examples: Path) -> None:
    assert fit("own_objective") == 0
    assert len(curves(examples / "runs" / "own_objective")) == 2
    model = importlib.import_module("own_model").Painter()
    objective = importlib.import_module("own_objective").MarginPreference(beta=3.0, margin=0.5)
    drawn = model.sample_images(model.encode_prompt(["red", "blue"]), torch.arange(4).view(2, 2), SamplingRecipe())
    pairs = importlib.import_module("own_objective").Pairs
    batch = pairs(("a", "b"), ("red", "blue"), drawn.drawings_BN[:, 0], drawn.drawings_BN[:, 1])
    first = objective.step(model, batch)
    chosen, rejected = drawn.logp_BNM.mean(-1).unbind(1)
    torch.testing.assert_close(first.loss, torch.log1p(torch.exp(0.5 - 3 * (chosen - rejected))).mean())
    optimizer = torch.optim.SGD(model.trunk.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        objective.step(model, batch).loss.backward()
        optimizer.step()
    assert objective.step(model, batch).logs["preference/difference"] > first.logs["preference/difference"]


def test_own_prompts_are_drawn_and_own_pairs_are_watched(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("own_prompts") == 0
    assert "No external judge was asked" in capsys.readouterr().out
    names = {f"mine-{number:02d}" for number in range(1, 9)}
    assert {prompt.id for prompt in Pool.open("runs/own_prompts/pool").prompts()[0]} == names
    kept = torch.load("runs/own_prompts/checkpoints/last.ckpt", weights_only=True)["callbacks"]
    (guard,) = [saved for name, saved in kept.items() if name.startswith("Guard")]
    assert len(guard["history"]) == 2 and len(guard["records"]["accepted"]["start"][0]) == 4
    pairs = importlib.import_module("own_pairs").HardNegatives("docs/examples/pairs/pairs.csv", side=32)
    exam = pairs.load(16)
    assert torch.equal(verdicts([parse(claim) for claim in exam.claims], exam.pixels_BCHW), exam.truth_B)
    with pytest.raises(ValueError, match="18 claims need 9 pictures, it has 8"):
        pairs.load(18)


def test_the_early_stop_of_the_foot_guns_ends_a_run_without_progress(janus_folder: Path, here: Path) -> None:
    page = (DOCS / "foot_guns.md").read_text(encoding="utf-8")
    (block,) = (block for _, block in FENCE.findall(page) if "EarlyStopping" in block)
    (here / "stop.yaml").write_text(block)
    flags = {"config": "stop.yaml", "model.init_args.lr": 1e-12, "trainer.max_epochs": 6}
    assert improve(janus_folder, "sft", flags) == 0
    trained = epochs(here / "runs" / "sft")
    assert len(trained) == 3, "after the first, two that accept no more; the config's own callbacks are still there"


def test_the_theory_example_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "two_heads.py"), run_name="__main__")
    assert f"```text\n{capsys.readouterr().out}```" in (DOCS / "theory.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("script", "picture", "limit"),
    [
        ("gap_picture", "gap", 150_000),
        # images of an untrained model are noise, which compresses badly
        ("samples_picture", "before_after", 200_000),
    ],
)
def test_a_picture_is_drawn_from_a_run(script: str, picture: str, limit: int, small_demo: Path, tmp_path: Path) -> None:
    draw = runpy.run_path(str(DOCS / f"{script}.py"))["draw_picture"]
    draw(small_demo, tmp_path / f"{picture}.png")
    for path in (tmp_path / f"{picture}.png", DOCS / "images" / f"{picture}.png"):
        assert path.stat().st_size < limit
        with Image.open(path) as picture:
            assert picture.format == "PNG" and picture.width > 1000


def test_the_picture_of_samples_shows_every_changed_verdict_that_fits() -> None:
    select = runpy.run_path(str(DOCS / "samples_picture.py"))["select"]

    def gallery(*changed: int) -> list[dict[str, Any]]:
        return [{"n": n, "before": {"external": True}, "after": {"external": n not in changed}} for n in range(24)]

    assert [sample["n"] for sample in select(gallery(5, 6, 23))] == [2, 5, 6, 8, 12, 16, 20, 23]
    assert [sample["n"] for sample in select(gallery(*range(4, 20)))] == [5, 7, 9, 11, 13, 15, 17, 19]


def test_the_glossary_names_what_exists() -> None:
    names = re.findall(r"`((?:unigap|theory)\.[\w.]+)`", (DOCS / "glossary.md").read_text(encoding="utf-8"))
    assert len(names) > 30
    for name in names:
        found = pkgutil.resolve_name(name.removesuffix(".exact_likelihood"))
        assert found is not None
        assert not name.endswith(".exact_likelihood") or "exact_likelihood" in found.__annotations__


# -- pages whose commands run as written


def test_the_page_on_drawing_is_run_as_written(examples: Path) -> None:
    command = next(commands(DOCS / "draw.md"))
    assert command == 'draw "a large red circle" --n 16 --keep 2' and main(shlex.split(command)) == 0
    with (examples / "runs/draw/images.csv").open(newline="") as file:
        kept = {row["seed"] for row in csv.DictReader(file) if row["file"]}
    runpy.run_path(str(EXAMPLES / "best_of.py"), run_name="__main__")
    with Image.open(examples / "best.png") as best:
        assert len(kept) == 2 and best.size == (32, 32)


def test_the_page_on_own_images_is_run_as_written(
    examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "configs", examples / "configs")
    imported, trained = commands(DOCS / "own_images.md")
    assert main(shlex.split(imported)) == 0
    assert "round trip of 8 images" in capsys.readouterr().out
    small = ["--trainer.max_epochs", "1", "--data.eval_per_cell", "1", "--data.exam_pictures", "10"]
    assert main([*shlex.split(trained), *small, "--data.batch_size", "2", "--summary.folder", "", *QUIET]) == 0
    assert len(epochs(examples / "runs/sft_imported")[0]) == 8
    assert main(shlex.split("judge agreement runs/imported")) == 0
    assert "human" in capsys.readouterr().out
