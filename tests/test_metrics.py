"""The metrics against closed forms, brute-force loops, simulated truth and a run on several processes.

Shapes: S samples, C prompts, R resamples.
"""

from __future__ import annotations

import doctest
import importlib
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing
from torchmetrics import MetricCollection
from torchmetrics.functional.classification import binary_auroc

from unigap.metrics import (
    Auroc,
    GenerationAccuracy,
    GroupedMetric,
    JudgeAccuracy,
    JudgePrecision,
    NonUnificationScore,
    TrueNegativeRate,
    TruePositiveRate,
    WeakGenerationShare,
    WinRate,
    YesRate,
    auroc,
    judge_accuracy,
    weak_generation_share,
    win_rate,
)
from unigap.metrics.intervals import (
    Estimate,
    bootstrap_auroc,
    bootstrap_ratio,
    cluster_weights,
    paired_auroc_difference,
    paired_difference,
)
from unigap.metrics.win_rate import matched_yes

SINGLE = {
    "non_unification": NonUnificationScore,
    "yes_rate": YesRate,
    "generation": GenerationAccuracy,
    "weak_generation": WeakGenerationShare,
    "precision": JudgePrecision,
    "accuracy": JudgeAccuracy,
    "tpr": TruePositiveRate,
    "tnr": TrueNegativeRate,
    "auroc": Auroc,
}
GROUPS = ["easy", "medium", "hard"]


def evaluation(samples: int = 240, prompts: int = 40, seed: int = 0) -> dict[str, Tensor]:
    """A judged evaluation set: prompts of unequal difficulty, a judge that knows a little, a later judge, groups."""
    draw = torch.Generator().manual_seed(seed)
    prompt_S = torch.randint(prompts, (samples,), generator=draw)
    ease_C = torch.rand(prompts, generator=draw)
    truth_S = torch.rand(samples, generator=draw) < ease_C[prompt_S]
    logit_S = (3 * torch.randn(samples, generator=draw) + 2 * truth_S).round(decimals=1)  # rounding makes ties
    return {
        "logit_B": logit_S,
        "logit_before_B": logit_S,
        "logit_after_B": logit_S + torch.randn(samples, generator=draw) - 0.5,
        "truth_B": truth_S,
        "prompt_B": 1000 - prompt_S,
        "sample_B": torch.randperm(10 * samples, generator=draw)[:samples] + 2**60,
        "group_B": prompt_S % 2,  # no sample is "hard"
    }


def all_metrics() -> MetricCollection:
    """Every metric, and every metric split by group, in one collection fed by keyword."""
    plain: dict[str, Any] = {name: metric(resamples=200) for name, metric in SINGLE.items()}
    plain["win"] = WinRate(resamples=200)
    grouped = {f"grouped_{name}": GroupedMetric(metric, GROUPS) for name, metric in plain.items()}
    return MetricCollection({**plain, **grouped})


def rows(data: dict[str, Tensor], index: Any) -> dict[str, Tensor]:
    return {name: column[index] for name, column in data.items()}


def without(data: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: column for name, column in data.items() if name not in names}


def brute_force_auroc(score_S: Tensor, truth_S: Tensor, weight_S: Tensor) -> float:
    won = total = 0.0
    for i in truth_S.nonzero().flatten().tolist():
        for j in (~truth_S).nonzero().flatten().tolist():
            pair = float(weight_S[i] * weight_S[j])
            won += pair * (1.0 if score_S[i] > score_S[j] else 0.5 if score_S[i] == score_S[j] else 0.0)
            total += pair
    return won / total if total else math.nan


def percentiles(draws: list[float]) -> tuple[float, float]:
    kept = torch.tensor([draw for draw in draws if not math.isnan(draw)], dtype=torch.float64)
    return kept.quantile(0.025).item(), kept.quantile(0.975).item()


# Intervals


def test_estimate_prints_and_becomes_strict_json() -> None:
    assert str(Estimate(0.3991, 0.361, 0.439, 1000)) == "0.399 [0.36, 0.44] n=1000"
    empty = Estimate(math.nan, math.nan, math.nan, 0)
    assert json.dumps(empty.to_dict(), allow_nan=False) == '{"value": null, "low": null, "high": null, "n": 0}'


def test_estimate_takes_a_side_only_with_its_whole_interval() -> None:
    gain = Estimate(0.2, 0.1, 0.3, 100)
    assert [gain.side(of) for of in (0, 0.1, 0.2, 0.3, 0.4)] == [1, 0, 0, 0, -1]
    assert Estimate(0.2, math.nan, math.nan, 100).side() == 0


def test_cluster_weights_are_multinomial_counts() -> None:
    weight_RC = cluster_weights(7, 4000, seed=3)
    assert weight_RC.dtype == torch.float64
    assert torch.equal(weight_RC.sum(1), torch.full((4000,), 7.0, dtype=torch.float64))
    assert torch.allclose(weight_RC.mean(0), torch.ones(7, dtype=torch.float64), atol=0.06)
    assert torch.allclose(weight_RC.var(0), torch.full((7,), 6 / 7, dtype=torch.float64), atol=0.1)
    assert torch.equal(weight_RC, cluster_weights(7, 4000, seed=3))
    assert not torch.equal(weight_RC, cluster_weights(7, 4000, seed=4))


def test_bootstrap_ratio_equals_a_naive_loop_over_the_same_draws() -> None:
    data = evaluation()
    numerator_S, denominator_S, cluster_S = data["logit_after_B"], data["truth_B"], data["prompt_B"]
    estimate = bootstrap_ratio(numerator_S * denominator_S, denominator_S, cluster_S, resamples=150, seed=5)

    clusters = cluster_S.unique().tolist()
    draws = []
    for count_C in cluster_weights(len(clusters), 150, seed=5).tolist():
        above = below = 0.0
        for cluster, count in zip(clusters, count_C, strict=True):
            for value, counts in zip(
                numerator_S[cluster_S == cluster], denominator_S[cluster_S == cluster], strict=True
            ):
                above, below = above + count * float(value) * bool(counts), below + count * bool(counts)
        draws.append(above / below)
    assert estimate.value == pytest.approx(numerator_S[denominator_S].double().mean().item(), abs=1e-12)
    assert (estimate.low, estimate.high) == pytest.approx(percentiles(draws), abs=1e-12)
    assert estimate.n == denominator_S.sum()


def test_bootstrap_auroc_equals_brute_force_with_ties() -> None:
    data = rows(evaluation(), slice(60))
    score_S, truth_S, cluster_S = data["logit_B"].round(), data["truth_B"], data["prompt_B"]
    estimate = bootstrap_auroc(score_S, truth_S, cluster_S, resamples=25, seed=1)
    clusters, index_S = cluster_S.unique(return_inverse=True)
    weights = cluster_weights(len(clusters), 25, seed=1)[:, index_S]
    assert len(score_S.unique()) < 20, "ties are the point of this test"
    assert estimate.value == pytest.approx(brute_force_auroc(score_S, truth_S, torch.ones(60)), abs=1e-12)
    draws = [brute_force_auroc(score_S, truth_S, weight_S) for weight_S in weights]
    assert (estimate.low, estimate.high) == pytest.approx(percentiles(draws), abs=1e-12)


def test_auroc_equals_torchmetrics() -> None:
    data = evaluation(1000)
    ours = auroc(data["logit_B"], data["truth_B"], data["prompt_B"], resamples=1).value
    assert ours == pytest.approx(binary_auroc(data["logit_B"], data["truth_B"].long()).item(), abs=1e-6)


def test_auroc_does_not_depend_on_how_much_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = evaluation()
    whole = bootstrap_auroc(data["logit_B"], data["truth_B"], data["prompt_B"], resamples=50)
    monkeypatch.setattr("unigap.metrics.intervals._ELEMENTS_AT_ONCE", 1000)
    assert bootstrap_auroc(data["logit_B"], data["truth_B"], data["prompt_B"], resamples=50) == whole


def test_paired_difference_equals_a_naive_loop_and_pairing_narrows_it() -> None:
    draw = torch.Generator().manual_seed(0)
    ease_C = torch.rand(50, generator=draw)
    before_prompt, after_prompt = torch.arange(50).repeat(6), torch.arange(50).repeat(4)
    before = (torch.rand(300, generator=draw) < ease_C[before_prompt], torch.ones(300), before_prompt)
    after = (torch.rand(200, generator=draw) < ease_C[after_prompt] + 0.1, torch.ones(200), after_prompt)
    change = paired_difference(before, after, resamples=300, seed=2)

    draws = [
        float((count_C[after_prompt] * after[0]).sum() / count_C[after_prompt].sum())
        - float((count_C[before_prompt] * before[0]).sum() / count_C[before_prompt].sum())
        for count_C in cluster_weights(50, 300, seed=2)
    ]
    assert change.value == pytest.approx(float(after[0].double().mean() - before[0].double().mean()), abs=1e-12)
    assert (change.low, change.high) == pytest.approx(percentiles(draws), abs=1e-12)
    assert change.n == 200
    arms = bootstrap_ratio(*before), bootstrap_ratio(*after)
    unpaired_width = math.hypot(*(arm.high - arm.low for arm in arms))
    assert change.high - change.low < 0.8 * unpaired_width


def test_paired_auroc_difference_equals_brute_force_and_is_nothing_for_equal_arms() -> None:
    data = rows(evaluation(), slice(50))
    before = (data["logit_before_B"], data["truth_B"], data["prompt_B"])
    after = (data["logit_after_B"], data["truth_B"], data["prompt_B"])
    change = paired_auroc_difference(before, after, resamples=20, seed=4)
    clusters, index_S = data["prompt_B"].unique(return_inverse=True)
    draws = [
        brute_force_auroc(*after[:2], weight_S) - brute_force_auroc(*before[:2], weight_S)
        for weight_S in cluster_weights(len(clusters), 20, seed=4)[:, index_S]
    ]
    assert (change.low, change.high) == pytest.approx(percentiles(draws), abs=1e-12)
    same = paired_auroc_difference(before, (2 * before[0] + 1, *before[1:]))
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_interval_covers_the_truth_in_95_of_100_clustered_samples() -> None:
    draw = torch.Generator().manual_seed(0)
    trials, prompts, each = 400, 60, 8
    ease = torch.distributions.Beta(torch.tensor(0.8), torch.tensor(1.2))  # mean 0.4, strong clustering
    torch.manual_seed(0)
    prompt_S = torch.arange(prompts).repeat_interleave(each)
    covered = covered_unclustered = 0
    for trial in range(trials):
        truth_S = torch.rand(prompts * each, generator=draw) < ease.sample((prompts,))[prompt_S]
        ones_S = torch.ones(prompts * each)
        clustered = bootstrap_ratio(truth_S, ones_S, prompt_S, resamples=400, seed=trial)
        single = bootstrap_ratio(truth_S, ones_S, torch.arange(prompts * each), resamples=400, seed=trial)
        covered += clustered.low <= 0.4 <= clustered.high
        covered_unclustered += single.low <= 0.4 <= single.high
    assert 0.91 <= covered / trials <= 0.98
    assert covered_unclustered / trials < 0.8, "the simulated data must need clustering, or the test above shows little"


@pytest.mark.parametrize("statistic", [bootstrap_ratio, bootstrap_auroc])
def test_nothing_to_estimate_is_nan_with_n_0(statistic: Any) -> None:
    for samples in (0, 5):
        zeros_S = torch.zeros(samples)
        estimate = statistic(zeros_S, zeros_S, torch.arange(samples))
        assert math.isnan(estimate.value) and math.isnan(estimate.low) and math.isnan(estimate.high) and estimate.n == 0


def test_one_cluster_shows_no_spread() -> None:
    estimate = bootstrap_ratio(torch.tensor([1.0, 0.0]), torch.ones(2), torch.zeros(2).long())
    assert estimate.value == 0.5 and math.isnan(estimate.low) and math.isnan(estimate.high)


def test_share_of_all_or_none_gets_the_exact_binomial_end() -> None:
    prompt_S, wrong_S = torch.arange(30).repeat(2), torch.zeros(60).bool()
    all_wrong = weak_generation_share(torch.full((60,), -1.0), wrong_S, prompt_S)
    assert (all_wrong.value, all_wrong.high, all_wrong.n) == (1.0, 1.0, 60)
    assert all_wrong.low**30 == pytest.approx(0.025)  # 30 prompts all agree with probability 0.025 at this share
    none_right = judge_accuracy(torch.full((60,), 1.0), wrong_S, prompt_S)
    assert (none_right.value, none_right.low) == (0.0, 0.0)
    assert none_right.high == pytest.approx(1 - all_wrong.low)


# Metrics


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_values_equal_counts(name: str, threshold: float) -> None:
    data = evaluation()
    yes_S, truth_S = data["logit_B"].sigmoid() >= threshold, data["truth_B"]
    hits, counted = {
        "non_unification": (~yes_S, torch.ones(240)),
        "yes_rate": (yes_S, torch.ones(240)),
        "generation": (truth_S, torch.ones(240)),
        "weak_generation": (~yes_S & ~truth_S, ~yes_S),
        "precision": (yes_S & truth_S, yes_S),
        "accuracy": (yes_S == truth_S, torch.ones(240)),
        "tpr": (yes_S & truth_S, truth_S),
        "tnr": (~yes_S & ~truth_S, ~truth_S),
        "auroc": (None, torch.ones(240)),
    }[name]
    metric = SINGLE[name]() if name in ("generation", "auroc") else SINGLE[name](threshold=threshold)
    for batch in (rows(data, slice(100)), rows(data, slice(100, 240))):
        metric.update(**metric._filter_kwargs(**batch))
    estimate = metric.compute()
    if hits is not None:
        assert estimate.value == pytest.approx(float(hits.sum() / counted.sum()), abs=1e-6)
    assert estimate.n == counted.sum()
    assert estimate.low < estimate.value < estimate.high
    assert metric.is_differentiable is False


def test_order_batches_and_repeats_change_nothing() -> None:
    data = evaluation()
    whole, pieces = all_metrics(), all_metrics()
    whole.update(**data)
    shuffled = torch.randperm(240, generator=torch.Generator().manual_seed(1))
    shuffled = torch.cat([shuffled, shuffled[:37]])
    for part in shuffled.split(50):
        pieces.update(**rows(data, part))
    assert repr(pieces.compute()) == repr(whole.compute())  # repr: nan equals nan


def test_groups_equal_the_metric_on_each_part() -> None:
    data = evaluation()
    metric = GroupedMetric(JudgeAccuracy(resamples=100), GROUPS)
    batch = without(data, "logit_before_B", "logit_after_B")
    metric.update(**batch)
    result = metric.compute()
    assert list(result) == ["all", *GROUPS]
    for name, part in (("all", slice(None)), ("easy", data["group_B"] == 0), ("medium", data["group_B"] == 1)):
        own = rows(data, part)
        order = own["sample_B"].argsort()
        expected = judge_accuracy(*(own[key][order] for key in ("logit_B", "truth_B", "prompt_B")), resamples=100)
        assert result[name] == expected
    assert result["hard"].n == 0 and math.isnan(result["hard"].value)
    metric.reset()
    metric.update(**rows(batch, slice(3)))
    assert metric.compute()["all"].n == 3


def test_nothing_judged_is_nan_with_n_0() -> None:
    data = rows(evaluation(), slice(0))
    metrics = all_metrics()
    metrics.update(**data)
    for result in metrics.compute().values():
        for part in result.to_dict().values() if hasattr(result, "win_rate") else [result.to_dict()]:
            assert part == {"value": None, "low": None, "high": None, "n": 0}


def test_metric_survives_forward_move_and_copy() -> None:
    data = evaluation()
    batch = {name: data[name] for name in ("logit_B", "truth_B", "prompt_B", "sample_B")}
    metric = JudgeAccuracy(resamples=50)
    first = metric(**rows(batch, slice(100)))
    metric.update(**rows(batch, slice(100, 240)))
    assert first.n == 100
    assert metric.to("cpu").compute().n == 240
    assert metric.to("cpu").clone().compute() == metric.compute()  # moved with a computed result in hand
    metric.reset()
    metric.update(**rows(batch, slice(10)))
    assert metric.compute().n == 10


@pytest.mark.parametrize("name", [*SINGLE, "win", "grouped_tpr", "grouped_win"])
def test_plot_shows_value_and_interval(name: str, tmp_path: Path) -> None:
    metric = all_metrics()[name]
    metric.update(**metric._filter_kwargs(**evaluation()))
    figure, axes = metric.plot()
    result = metric.compute()
    drawn = [list(line.get_xdata()) for line in axes.lines]  # for each estimate its interval, then its value
    if isinstance(result, Estimate):
        assert drawn == [[result.low, result.high], [result.value]]
    else:
        assert len(drawn) == 2 * {"win": 2, "grouped_tpr": 4, "grouped_win": 8}[name]
    figure.savefig(tmp_path / "plot.png")
    assert metric.plot(result, axes)[0] is figure


# Win rate


def fixed_set() -> tuple[Tensor, Tensor, Tensor]:
    """2,000 images and a base judge whose least confident yes are mostly wrong, as a lenient judge's are."""
    draw = torch.Generator().manual_seed(0)
    truth_S = torch.rand(2000, generator=draw) < 0.4
    logit_S = 1.5 + torch.where(truth_S, 2.0, -2.5) + 1.5 * torch.randn(2000, generator=draw)
    return logit_S, truth_S, torch.arange(2000) // 4


def test_a_drifting_threshold_wins_but_not_when_matched() -> None:
    before_S, truth_S, prompt_S = fixed_set()
    doubtful_S = before_S.masked_fill(before_S < 0, torch.inf).topk(40, largest=False).indices
    after_S = before_S.clone()
    after_S[doubtful_S] -= before_S[doubtful_S].max() + 1e-4  # their order among themselves stays
    after_S[before_S < 0] -= 10  # still below: the ranking of all images is the base judge's
    result = win_rate(before_S, after_S, truth_S, prompt_S)
    assert result.win_rate.n == 40
    assert result.win_rate.value > 0.7 and result.win_rate.low > 0.5, "the bare win rate praises an unchanged judge"
    assert result.matched_win_rate.n == 0 and math.isnan(result.matched_win_rate.value)
    assert result.delta_auroc.value == 0 and (result.delta_auroc.low, result.delta_auroc.high) == (0, 0)
    assert result.delta_tpr.value < 0 < result.delta_tnr.value


def test_a_judge_that_learned_wins_when_matched_too() -> None:
    before_S, truth_S, prompt_S = fixed_set()
    after_S = before_S + torch.where(truth_S, 0.8, -0.8)
    result = win_rate(before_S, after_S, truth_S, prompt_S)
    assert result.win_rate.value == 1.0 and result.win_rate.n > 20
    assert result.matched_win_rate.low > 0.6
    assert result.delta_auroc.low > 0 and result.delta_tnr.low > 0 and result.delta_tpr.value > 0
    assert result.logit_change_true_positives.value == pytest.approx(0.8, abs=1e-6)
    assert result.logit_change_false_positives.value == pytest.approx(-0.8, abs=1e-6)
    false_positives = int(((before_S >= 0) & ~truth_S).sum())
    assert result.logit_change_false_positives.n == false_positives


def test_unchanged_judge_has_no_win_rate_instead_of_one_half() -> None:
    before_S, truth_S, prompt_S = fixed_set()
    result = win_rate(before_S, before_S, truth_S, prompt_S)
    assert math.isnan(result.win_rate.value) and result.win_rate.n == 0
    assert (result.delta_tpr.value, result.delta_tnr.value, result.logit_change_true_positives.value) == (0, 0, 0)


def test_win_rate_counts_equal_a_loop() -> None:
    data = evaluation()
    before_S, after_S, truth_S = data["logit_before_B"], data["logit_after_B"], data["truth_B"]
    metric = WinRate(threshold=0.6, resamples=50)
    metric.update(before_S, after_S, truth_S, data["prompt_B"], data["sample_B"])
    result = metric.compute()
    cut = math.log(0.6 / 0.4)
    wins = [
        (after >= cut) == truth
        for before, after, truth in zip(before_S.tolist(), after_S.tolist(), truth_S.tolist(), strict=True)
        if (before >= cut) != (after >= cut)
    ]
    assert (result.win_rate.value, result.win_rate.n) == (pytest.approx(sum(wins) / len(wins)), len(wins))
    tpr = [((logit_S >= cut) & truth_S).sum() / truth_S.sum() for logit_S in (before_S, after_S)]
    assert result.delta_tpr.value == pytest.approx(float(tpr[1] - tpr[0]), abs=1e-6)
    assert list(result.to_dict()) == [
        "win_rate",
        "matched_win_rate",
        "delta_auroc",
        "delta_tpr",
        "delta_tnr",
        "logit_change_true_positives",
        "logit_change_false_positives",
    ]


@pytest.mark.parametrize("count", [0, 1, 4, 7, 10])
def test_matched_threshold_comes_as_near_as_ties_allow(count: int) -> None:
    logit_S = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, -1.0, 2.0, -3.0, -3.0, 5.0])
    reachable = [int((logit_S >= cut).sum()) for cut in [*logit_S.tolist(), math.inf]]
    verdict_S = matched_yes(logit_S, count)
    assert abs(int(verdict_S.sum()) - count) == min(abs(total - count) for total in reachable)
    assert not verdict_S.any() or verdict_S.all() or logit_S[verdict_S].min() > logit_S[~verdict_S].max()


# Several processes


def gather(rank: int, world_size: int, meeting: str, shares: list[Tensor], out: str) -> None:
    """One process: update every metric with its share of the samples, compute with all, write the results."""
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    data, metrics, lopsided = evaluation(), all_metrics(), WinRate(resamples=200)
    for part in shares[rank].split(40):
        metrics.update(**rows(data, part))
    if rank == 0:  # the other process has no sample at all, of which torchmetrics rightly warns
        lopsided.update(**lopsided._filter_kwargs(**data))
    with warnings.catch_warnings(action="ignore"):
        text = repr({**metrics.compute(), "lopsided": lopsided.compute()})
    metrics.update(**rows(data, shares[rank][:1]))  # its own rows are back after the gather
    assert len(torch.cat(metrics["win"].sample)) == len(shares[rank]) + 1
    Path(out, f"{rank}.txt").write_text(text)
    torch.distributed.destroy_process_group()


def test_two_processes_give_exactly_the_numbers_of_one(tmp_path: Path) -> None:
    data = evaluation()
    order = torch.randperm(240, generator=torch.Generator().manual_seed(2))
    shares = [order[:131], torch.cat([order[131:], order[:9]])]  # ragged, nine samples judged by both
    single, lopsided = all_metrics(), WinRate(resamples=200)
    single.update(**data)
    lopsided.update(**lopsided._filter_kwargs(**data))
    expected = repr({**single.compute(), "lopsided": lopsided.compute()})

    arguments = (2, f"file://{tmp_path}/meeting", shares, str(tmp_path))
    multiprocessing.spawn(gather, args=arguments, nprocs=2, join=True)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == [expected, expected]


# Mistakes


@pytest.mark.parametrize("metric", [NonUnificationScore, YesRate, JudgePrecision, WinRate])
@pytest.mark.parametrize("threshold", [0.0, 1.0, -2.0, math.nan])
def test_threshold_must_be_a_probability(metric: Any, threshold: float) -> None:
    with pytest.raises(ValueError, match=r"threshold must be a probability between 0 and 1, got .*; 0\.5"):
        metric(threshold=threshold)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logit_B": torch.tensor([0.0, math.nan, 1.0])}, "logit_B holds nan at position 1"),
        ({"logit_B": torch.tensor([0.0, 1.0, -math.inf])}, "logit_B holds -inf at position 2"),
        ({"logit_B": torch.zeros(3, 1)}, r"logit_B must have shape \(samples,\), got \(3, 1\)"),
        ({"logit_B": torch.tensor(0.0)}, r"logit_B must have shape \(samples,\), got \(\)"),
        ({"truth_B": torch.ones(2).bool()}, "truth_B holds 2 samples but logit_B holds 3"),
        ({"truth_B": torch.ones(3)}, "truth_B must be torch.bool, got torch.float32"),
        ({"logit_B": torch.ones(3).long()}, "logit_B must be floating point, got torch.int64"),
        ({"prompt_B": torch.ones(3)}, "prompt_B must be torch.int64, got torch.float32"),
        ({"sample_B": torch.ones(3).int()}, "sample_B must be torch.int64, got torch.int32"),
    ],
)
def test_a_bad_batch_is_refused_whole(change: dict[str, Tensor], message: str) -> None:
    ids_B = torch.arange(3)
    good = {"logit_B": torch.zeros(3), "truth_B": torch.ones(3).bool(), "prompt_B": ids_B, "sample_B": ids_B}
    metric = JudgeAccuracy(resamples=10)
    with pytest.raises(ValueError, match=message) as caught:
        metric.update(**{**good, **change})
    assert "\n" not in str(caught.value)
    metric.update(**good)
    assert metric.compute().n == 3


@pytest.mark.parametrize(
    ("column", "second"),
    [("prompt_B", torch.tensor([9])), ("truth_B", torch.tensor([False])), ("logit_B", torch.tensor([1.5]))],
)
def test_one_sample_id_for_two_samples_is_refused(column: str, second: Tensor) -> None:
    batch = {
        "logit_B": torch.tensor([1.0]),
        "truth_B": torch.tensor([True]),
        "prompt_B": torch.tensor([3]),
        "sample_B": torch.tensor([7]),
    }
    metric = JudgeAccuracy()
    metric.update(**batch)
    metric.update(**{**batch, "logit_B": torch.tensor([1.01])})  # noise of another batch make-up
    assert metric.compute().n == 1
    metric.update(**{**batch, column: second})
    with pytest.raises(ValueError, match=r"sample 7 came with .*; give each sample its own id and reset\(\)"):
        metric.compute()


def test_other_mistakes_are_named() -> None:
    ones_S, ids_S = torch.ones(3), torch.arange(3)
    with pytest.raises(ValueError, match="resamples must be >= 1, got 0"):
        Auroc(resamples=0)
    with pytest.raises(ValueError, match="resamples must be >= 1, got 0"):
        bootstrap_ratio(ones_S, ones_S, ids_S, resamples=0)
    with pytest.raises(ValueError, match="denominator_S must be >= 0, got -1"):
        bootstrap_ratio(ones_S, -ones_S, ids_S)
    with pytest.raises(ValueError, match="truth_S must be bool, or 0 and 1 only"):
        bootstrap_auroc(ones_S, 2 * ones_S, ids_S)
    with pytest.raises(ValueError, match="same clusters; evaluate both on the same prompts"):
        paired_difference((ones_S, ones_S, ids_S), (ones_S, ones_S, ids_S + 1))
    with pytest.raises(ValueError, match=r"verdicts must be bool, got torch.int64"):
        weak_generation_share(ones_S, ids_S, ids_S)
    with pytest.raises(ValueError, match="logit_S holds nan"):
        judge_accuracy(ones_S * math.nan, ones_S.bool(), ids_S)
    for names in ([], ["easy", "easy"], ["all"]):
        with pytest.raises(ValueError, match="names must be distinct"):
            GroupedMetric(YesRate(), names)
    grouped = GroupedMetric(YesRate(), ["easy"])
    with pytest.raises(ValueError, match=r"group_B must be in \[0, 1\), got 0 to 2"):
        grouped.update(group_B=ids_S, logit_B=ones_S, prompt_B=ids_S, sample_B=ids_S)
    with pytest.raises(ValueError, match=r"group_B must be int64 of shape \(B,\), got torch.float32"):
        grouped.update(group_B=ones_S, logit_B=ones_S, prompt_B=ids_S, sample_B=ids_S)


@pytest.mark.parametrize(
    "module", ["intervals", "scores", "win_rate", "sample_metric", "grouped_metric", "gap_metrics"]
)
def test_examples_in_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"unigap.metrics.{module}"))
    assert result.attempted > 0 and result.failed == 0


def test_auroc_within_strata_counts_pairs_of_one_stratum_only() -> None:
    """Two implementations: the formula over sorted scores, and all pairs by hand."""
    draw = torch.Generator().manual_seed(0)
    stratum_S = torch.randint(3, (60,), generator=draw)
    truth_S = torch.rand(60, generator=draw) < 0.3 + 0.2 * stratum_S
    score_S = (torch.randn(60, generator=draw) + 2 * stratum_S).round()  # with ties
    won, pairs = 0.0, 0
    for i in truth_S.nonzero().flatten().tolist():
        for j in (~truth_S).nonzero().flatten().tolist():
            if stratum_S[i] == stratum_S[j]:
                pairs += 1
                won += 0.5 + 0.5 * float((score_S[i] - score_S[j]).sign())
    found = bootstrap_auroc(score_S, truth_S, torch.arange(60), stratum_S=stratum_S)
    assert found.value == pytest.approx(won / pairs) and found.low < found.value < found.high
    assert found.value < bootstrap_auroc(score_S, truth_S, torch.arange(60)).value - 0.1, "strata alone tell a lot"
    alone = bootstrap_auroc(score_S, truth_S, torch.arange(60), stratum_S=truth_S.long())
    assert alone.n == 0, "no stratum holds both classes"
    arms = [(side, truth_S, torch.arange(60)) for side in (score_S, -score_S)]
    turned = paired_auroc_difference(*arms, strata=(stratum_S, stratum_S))
    assert turned.value == pytest.approx(1 - 2 * found.value)
