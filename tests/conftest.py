"""Fixtures for all tests: a small untrained model of each family with its real processor, and a small demo run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import lightning.pytorch  # noqa: F401  first imported in a test, its log handler would keep that test's closed stderr
import pytest
import torch

from unigap.console.allocator import keep_freed_memory
from unigap.seeds import VARIABLE

# every command does this; tests that train without a command need it too
keep_freed_memory()

# a single example can take long on a busy machine
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")


@pytest.fixture(scope="session")
def janus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder in transformers' layout; copy it before changing it."""
    from unigap.worlds.shapes.untrained.janus import make_model, make_processor

    folder = tmp_path_factory.mktemp("small-janus")
    processor = make_processor()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make_model(processor, hidden_size=64, layers=2, vision_layers=1, n_codes=64).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def new_janus(janus_folder: Path) -> Callable[..., Any]:
    """Load a new small Janus, for tests that change it; takes the options of ``Janus``."""
    from unigap.models.janus import Janus

    return lambda **options: Janus(str(janus_folder), **options)


@pytest.fixture(scope="session")
def janus(new_janus: Callable[..., Any]) -> Any:
    """The small Janus that all tests share; do not change it."""
    return new_janus()


@pytest.fixture(scope="session")
def showo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder in the layout of ``ShowO.save``; copy it before changing it."""
    from small_showo import small_showo

    folder = tmp_path_factory.mktemp("small-showo")
    small_showo().save(folder)
    return folder


@pytest.fixture(scope="session")
def new_showo(showo_folder: Path) -> Callable[..., Any]:
    """Load a new small Show-o, for tests that change it; takes the options of ``ShowO``."""
    from unigap.models.showo import ShowO

    return lambda **options: ShowO(str(showo_folder), **options)


@pytest.fixture(scope="session")
def showo(new_showo: Callable[..., Any]) -> Any:
    """The small Show-o that all tests share; do not change it."""
    return new_showo()


@pytest.fixture(scope="session")
def emu3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder in transformers' layout; copy it before changing it."""
    from small_emu3 import save_small_emu3

    folder = tmp_path_factory.mktemp("small-emu3")
    save_small_emu3(folder)
    return folder


@pytest.fixture(scope="session")
def new_emu3(emu3_folder: Path) -> Callable[..., Any]:
    """Load a new small Emu3, for tests that change it; takes the options of ``Emu3``."""
    from unigap.models.emu3 import Emu3

    return lambda **options: Emu3(str(emu3_folder), **options)


@pytest.fixture(scope="session")
def emu3(new_emu3: Callable[..., Any]) -> Any:
    """The small Emu3 that all tests share; do not change it."""
    return new_emu3()


@pytest.fixture(scope="session")
def bagel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder in BAGEL's published layout; copy it before changing it."""
    from benchmarks.small_bagel import save_small_bagel

    folder = tmp_path_factory.mktemp("small-bagel")
    save_small_bagel(folder)
    return folder


@pytest.fixture(scope="session")
def new_bagel(bagel_folder: Path) -> Callable[..., Any]:
    """Load a new small BAGEL, for tests that change it; takes the options of ``Bagel``."""
    from benchmarks.small_bagel import QUICK
    from unigap.models.bagel import Bagel

    return lambda **options: Bagel(str(bagel_folder), **{**QUICK, **options})


@pytest.fixture(scope="session")
def bagel(new_bagel: Callable[..., Any]) -> Any:
    """The small BAGEL that all tests share; do not change it."""
    return new_bagel()


@pytest.fixture(scope="session")
def janus_flow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder in JanusFlow's published layout; copy it before changing it."""
    from benchmarks.small_janus_flow import save_small_janus_flow

    folder = tmp_path_factory.mktemp("small-janus-flow")
    save_small_janus_flow(folder)
    return folder


@pytest.fixture(scope="session")
def vila_u_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder in VILA-U's published layout; copy it before changing it."""
    from small_vila_u import save_small_vila_u

    folder = tmp_path_factory.mktemp("small-vila-u")
    save_small_vila_u(folder)
    return folder


@pytest.fixture(scope="session")
def new_janus_flow(janus_flow_folder: Path) -> Callable[..., Any]:
    """Load a new small JanusFlow, for tests that change it; takes the options of ``JanusFlow``."""
    from benchmarks.small_janus_flow import QUICK
    from unigap.models.janus_flow import JanusFlow

    return lambda **options: JanusFlow(str(janus_flow_folder), **{**QUICK, **options})


@pytest.fixture(scope="session")
def janus_flow(new_janus_flow: Callable[..., Any]) -> Any:
    """The small JanusFlow that all tests share; do not change it."""
    return new_janus_flow()


@pytest.fixture(scope="session")
def new_vila_u(vila_u_folder: Path) -> Callable[..., Any]:
    """Load a new small VILA-U, for tests that change it; takes the options of ``VilaU``."""
    from unigap.models.vila_u import VilaU

    return lambda **options: VilaU(str(vila_u_folder), **options)


@pytest.fixture(scope="session")
def vila_u(new_vila_u: Callable[..., Any]) -> Any:
    """The small VILA-U that all tests share; do not change it."""
    return new_vila_u()


@pytest.fixture(autouse=True)
def no_seed_of_an_earlier_run() -> Iterator[None]:
    """Remove the seed that a run leaves in the environment for its other processes."""
    yield
    os.environ.pop(VARIABLE, None)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def small_demo(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small demo run with a random judge; copy it before changing it."""
    from small_runs import SMALL_DEMO

    from unigap.cli.commands.demo import run_demo, start_of
    from unigap.report.pages.report import write_report

    folder = tmp_path_factory.mktemp("demo")
    judge = {"model.init_args.judge": {"class_path": "unigap.judges.RandomJudge"}}
    run_demo(start_of(str(janus_folder)), folder, 0, {**SMALL_DEMO, **judge})
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def desk(janus_folder: Path, janus: Any, small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of everything that a user could name by mistake; do not change it."""
    from desk import set_desk

    folder = tmp_path_factory.mktemp("desk")
    set_desk(folder, janus_folder, janus.drawing_digest(), small_demo)
    return folder
