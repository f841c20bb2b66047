"""The cost model against what torch counts, and the scripts that print it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import full_size, hardware, one_gpu, scale
from benchmarks.cost_model import Costs, janus_pro


def test_what_is_predicted_is_what_is_counted() -> None:
    found = {name: (predicted, measured) for name, predicted, measured in scale.compare()}
    assert len(found) == 7
    for name, (predicted, measured) in found.items():
        assert predicted == measured > 0, name


def test_the_sizes_are_those_that_are_known() -> None:
    assert Costs(janus_pro("7B")).trained / 1e9 == pytest.approx(6.07, abs=0.01)
    assert Costs(janus_pro("1B")).trained / 1e9 == pytest.approx(1.23, abs=0.01)
    assert Costs(janus_pro("7B")).image == 576


def test_a_table_for_every_size_and_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    for size, gpu in (("7B", "h200"), ("1B", "a800")):
        printed = scale.report(size, scale.DEVICES[gpu])
        rows = [line.split("|")[1:3] for line in printed.splitlines()[-6:]]
        wanted = [[f" {prompts:,} ", f" {gpus} "] for prompts in scale.SIZES for gpus in scale.GPUS]
        assert rows == wanted and "computed, not measured" in printed


def test_more_gpus_take_less_time_and_no_less_work() -> None:
    costs = Costs(janus_pro("7B"))
    spent = {gpus: scale.hours(costs, scale.DEVICES["h200"], 1_000_000, gpus).total for gpus in scale.GPUS}
    assert spent[1] > spent[4] > spent[64]
    assert spent[64] * 64 >= 0.999 * spent[1]


def test_the_script_for_a_gpu_runs_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    full_size.main(["--size", "small", "--device", "cpu", "--images", "2", "--judged", "2", "--rows", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert "on CPU" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[3:]] == [
        "sampling, guided",
        "decoding",
        "judging",
        "forward and backward",
    ]
    assert all(float(line.split("|")[4]) > 0 for line in lines[3:])


def test_the_hardware_page_shows_what_its_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    hardware.main()
    page = (Path(__file__).parents[1] / "docs" / "hardware.md").read_text(encoding="utf-8")
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page


def test_the_hardware_page_shows_the_configs_for_one_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    one_gpu.main()
    page = (Path(__file__).parents[1] / "docs" / "hardware.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() in page


@pytest.mark.parametrize("name", one_gpu.CARDS)
def test_a_config_for_one_gpu_states_what_it_needs(name: str) -> None:
    text = (one_gpu.CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    found = one_gpu.need(name)
    assert f"{found.peak / 1e9:.0f} GB at most, {found.hours:.0f} h on" in text and "Computed, not measured" in text
    assert f"with {one_gpu.CARDS[name].memory / 1e9:.0f} GB" in text
    assert found.peak < 0.9 * one_gpu.CARDS[name].memory
