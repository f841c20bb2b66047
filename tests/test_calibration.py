"""A threshold that makes a judge as precise as asked, chosen on pairs that are known to match or not."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import expect_error

from unigap.__main__ import main
from unigap.evaluation import calibration
from unigap.evaluation.calibration import calibrate, threshold_for_precision
from unigap.evaluation.probe_set import ProbeSet
from unigap.evaluation.probe_sources import ProbeSource, ShapesPairs
from unigap.judges import SelfJudge
from unigap.metrics.scores import says_yes


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.25, 2.0, 5.0]), st.booleans()), min_size=1),
    st.sampled_from([0.3, 0.5, 0.75, 0.9, 1.0]),
)
def test_no_lower_threshold_is_as_precise(rows: list[tuple[float, bool]], precision: float) -> None:
    logit_S, truth_S = torch.tensor([logit for logit, _ in rows]), torch.tensor([truth for _, truth in rows])

    def reached(bar: float) -> bool:
        yes_S = logit_S >= bar
        return int((yes_S & truth_S).sum()) >= precision * int(yes_S.sum())

    enough = [bar for bar in sorted(set(logit_S.tolist())) if reached(bar)]
    if not enough:
        with pytest.raises(ValueError, match=r"at no threshold are .* of the accepted images right, at best"):
            threshold_for_precision(logit_S, truth_S, precision)
        return
    threshold = threshold_for_precision(logit_S, truth_S, precision)
    assert 0 < threshold < 1
    assert torch.equal(says_yes(logit_S, threshold), logit_S >= enough[0])


def test_the_examples_of_the_page_are_true() -> None:
    assert doctest.testmod(calibration).failed == 0 < doctest.testmod(calibration).attempted


@pytest.mark.parametrize("precision", [0.0, -1.0, 1.1, float("nan")])
def test_impossible_precisions_are_refused(precision: float) -> None:
    with pytest.raises(ValueError, match=r"precision must be in \(0, 1\]"):
        threshold_for_precision(torch.zeros(2), torch.tensor([True, False]), precision)


class Numbered(ProbeSource):
    """Pairs whose claims are their numbers; every second one matches."""

    def load(self, n: int) -> ProbeSet:
        exam = ShapesPairs().load(n)
        return ProbeSet(exam.prompts, tuple(map(str, range(n))), exam.pixels_BCHW, exam.truth_B)


class Listed(SelfJudge):
    """Says what it was told to, by the number in the claim."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.listed = logits

    def ask(self, model: object, texts: object, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.tensor([self.listed[int(text)] for text in texts])  # type: ignore[attr-defined]


def test_the_threshold_is_examined_on_other_pairs_than_it_was_chosen_on() -> None:
    # in each four the first two choose: there 1 divides right from wrong, in the others half of what is above is wrong
    found = calibrate(None, Listed([0.0, 2.0, 2.0, 2.0] * 5), Numbered(), 20, 1.0)  # type: ignore[arg-type]
    assert found.threshold == pytest.approx(torch.tensor(1.0).sigmoid().item())
    assert (found.precision.value, found.precision.n) == (0.5, 10)
    assert (found.recall.value, found.recall.n) == (1.0, 5)


def test_calibrate_prints_a_threshold_that_training_takes(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", str(janus_folder), "--n", "20"]
    assert main(["calibrate", *options, "--precision", "0.3"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"of the accepted, right: [01]\.\d+ \[.*\] n=\d+", told)
    flag, value = told.splitlines()[-1].split()
    assert flag == "--model.init_args.objective.init_args.threshold" and 0 < float(value) < 1
    expect_error(main(["calibrate", *options, "--precision", "1.5"]), capsys, "precision must be in (0, 1]")
    expect_error(main(["calibrate", *options[:2], "--n", "3"]), capsys, "n must be at least 4")
    expect_error(main(["calibrate", *options, "--captions", "none.jsonl"]), capsys, "'none.jsonl'", "no such file")
