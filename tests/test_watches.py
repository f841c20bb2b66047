"""The sequential test of watched figures: its error rate, what it notices, and the figures by closed forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_vqa import save_dino

from unigap.evaluation.image_features import DinoFeatures, PixelFeatures
from unigap.metrics.judge_figures import auroc_values, judge_figures
from unigap.metrics.picture_figures import code_entropy, duplicates, edge_density, spread
from unigap.metrics.scores import auroc
from unigap.metrics.student import quantile, tail
from unigap.metrics.watches import UnitValues, Watch, WatchRecord, compared, level

LASTING, UNLUCKY = [0.5, 0.43, 0.43, 0.43], [0.5, 0.49, 0.43, 0.49]

# Shape legend: K validations, W watches, U units.


def fires(value_KU: torch.Tensor, watch: Watch, watches: int = 1, error_rate: float = 0.05) -> int:
    """Return the first validation at which a watch fires, 0 if it never does."""
    unit_U = torch.arange(value_KU.shape[1])
    record = WatchRecord(watch, UnitValues(unit_U, value_KU[0].double()))
    for number, value_U in enumerate(value_KU[1:], 1):
        found = record.add(number, UnitValues(unit_U, value_U.double()))
        if found.p_value <= level(error_rate, number, watches):
            return number
    return 0


def test_a_whole_run_raises_a_false_alarm_at_most_as_often_as_stated() -> None:
    rng = torch.Generator().manual_seed(0)
    runs, alarms = 150, 0
    for _ in range(runs):
        hard_U = torch.rand(100, generator=rng)
        yes_KU = (torch.rand(6, 100, generator=rng) < hard_U).double()
        alarms += fires(yes_KU, Watch("accepted", "lower", 0.0), error_rate=0.2) > 0
    assert 0 < alarms / runs < 0.2


def test_the_levels_of_all_validations_sum_to_the_error_rate() -> None:
    total = sum(level(0.05, number, 3) * number * 3 for number in range(1, 10_001))
    assert total == pytest.approx(0.05, rel=2e-4) and total < 0.05


def test_a_fall_from_the_best_validation_is_noticed_though_it_ends_where_it_began() -> None:
    rng = torch.Generator().manual_seed(1)
    noise_KU = 0.2 * torch.randn(6, 200, generator=rng)
    level_K = torch.tensor([0.5, 0.7, 0.7, 0.5, 0.5, 0.5])
    watch = Watch("accepted", "lower", 0.02)
    assert fires(level_K[:, None] + noise_KU, watch, watches=9) == 3
    assert fires(level_K.flip(0)[:, None].clamp(max=0.5) + noise_KU, watch, watches=9) == 0
    assert fires(level_K[:, None] + noise_KU, Watch("accepted", "lower", 0.3), watches=9) == 0


def test_one_unlucky_validation_counts_less_than_lasting_damage() -> None:
    noise_KU = 0.05 * torch.randn(4, 100, generator=torch.Generator().manual_seed(2))
    watch = Watch("accepted", "lower", 0.04)
    lasting, unlucky = (torch.tensor(levels)[:, None] + noise_KU for levels in (LASTING, UNLUCKY))
    assert fires(lasting, watch) == 1
    assert fires(unlucky, watch) == 0


@pytest.mark.parametrize(
    ("watch", "before", "now", "harm"),
    [
        (Watch("x", "lower", 0.1), 0.5, 0.35, True),
        (Watch("x", "lower", 0.1), 0.5, 0.45, False),
        (Watch("x", "higher", 0.1), 0.5, 0.65, True),
        (Watch("x", "higher", 0.1), 0.5, 0.35, False),
        (Watch("x", "lower", 0.4, relative=True), 0.5, 0.25, True),
        (Watch("x", "lower", 0.4, relative=True), 0.5, 0.35, False),
        (Watch("x", "higher", 0.4, relative=True), 0.5, 0.75, True),
        (Watch("x", "away", 0.1), -0.2, -0.35, True),
        (Watch("x", "away", 0.1), -0.2, 0.35, True),
        (Watch("x", "away", 0.1), -0.2, 0.15, False),
        (Watch("x", "away", 0.1), 0.2, 0.0, False),
    ],
)
def test_each_kind_of_watch_knows_its_bad_side(watch: Watch, before: float, now: float, harm: bool) -> None:
    noise_U = 0.1 * torch.randn(200, generator=torch.Generator().manual_seed(3))
    noise_U -= noise_U.mean()
    value_KU = torch.stack([before + noise_U, now + noise_U.flip(0)])
    assert bool(fires(value_KU, watch)) == harm


def test_too_few_common_units_say_nothing() -> None:
    before, now = (UnitValues(torch.arange(at, at + 10), torch.full((10,), float(at))) for at in (5, 0))
    found = compared(now, before)
    assert found.n == 5 and Watch("x", "lower", 0.0).p_value(found) == 1
    assert compared(UnitValues(torch.arange(3), torch.ones(3)), before).n == 0


def test_students_tail_and_quantiles() -> None:
    # 97.5 % and 99.95 % quantiles by degrees of freedom, from tables
    for df, high, higher in ((5, 2.571, 6.869), (9, 2.262, 4.781), (29, 2.045, 3.659), (120, 1.980, 3.373)):
        assert tail(high, df) == pytest.approx(0.025, rel=0.01) and quantile(0.975, df) == pytest.approx(high, rel=3e-3)
        assert tail(higher, df) == pytest.approx(0.0005, rel=0.1)
    assert tail(-1.0, 9) == pytest.approx(1 - tail(1.0, 9))


def test_pseudo_values_of_the_auroc_have_its_mean_and_its_jackknife_variance() -> None:
    rng = torch.Generator().manual_seed(4)
    truth_S = torch.rand(240, generator=rng) < 0.5
    cluster_S = torch.arange(240) // 2
    logit_S = truth_S.double() + torch.randn(240, generator=rng) + torch.randn(120, generator=rng).repeat_interleave(2)
    found = auroc_values(logit_S, truth_S, cluster_S)
    assert found.mean == pytest.approx(auroc(logit_S, truth_S, cluster_S).value)
    left_out = [auroc_values(logit_S[keep], truth_S[keep], cluster_S[keep]).mean for keep in
                (cluster_S != cluster for cluster in range(120))]  # fmt: skip
    jackknife = torch.tensor(left_out).var(correction=0) * 119
    assert (found.value_U.var() / 120).item() == pytest.approx(jackknife.item(), rel=0.03)


def test_a_collapse_into_yes_differs_from_improvement() -> None:
    rng = torch.Generator().manual_seed(0)
    truth_S, image_S = torch.arange(400) % 2 == 0, torch.arange(400) // 2
    sign_S = torch.where(truth_S, 1.0, -1.0)
    base_S = sign_S + 2 * torch.randn(400, generator=rng)

    def harms(before_S: torch.Tensor, after_S: torch.Tensor) -> set[str]:
        watches = (Watch("auroc", "lower", 0.0), Watch("brier", "higher", 0.0), Watch("yes_bias", "away", 0.0))
        before, after = (judge_figures(logit_S, truth_S, image_S) for logit_S in (before_S, after_S))
        values = {w.name: torch.stack([before[w.name].value_U, after[w.name].value_U]) for w in watches}
        return {w.name for w in watches if fires(values[w.name], w, watches=3)}

    assert harms(base_S, base_S) == set() and harms(base_S, base_S + sign_S) == set()
    assert "yes_bias" in harms(base_S, base_S + 2) and "yes_bias" in harms(base_S, base_S - 2)
    assert harms(base_S + 2, base_S) == set(), "back to where yes is as frequent as the truth"
    assert harms(base_S, 20 * base_S) == {"brier"}, "the same ranking, far too sure of itself"
    assert "auroc" in harms(base_S + sign_S, base_S)


def test_figures_of_pictures() -> None:
    black, white = -torch.ones(3, 8, 8), torch.ones(3, 8, 8)
    flat = torch.stack([black, white])
    assert spread(PixelFeatures().of(flat)) == pytest.approx(2)
    assert spread(PixelFeatures().of(flat[:1].repeat(3, 1, 1, 1))) == 0
    assert edge_density(flat) == 0
    checked = ((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1).expand(1, 3, 8, 8)
    assert edge_density(checked) == 1
    assert duplicates(torch.stack([black, white, white, black + 1e-4])) == 0.5
    assert code_entropy(torch.arange(6).view(2, 3)) == pytest.approx(torch.tensor(6.0).log().item())
    deep = torch.stack([torch.arange(6).view(2, 3), torch.zeros(2, 3, dtype=torch.int64)], -1)
    assert code_entropy(deep) == pytest.approx(torch.tensor(6.0).log().item() / 2)


def test_spread_by_a_dino(tmp_path: Path) -> None:
    save_dino(tmp_path)
    pixels = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = DinoFeatures(str(tmp_path)).of(pixels)
    assert features.shape == (3, 16) and torch.allclose(features.norm(dim=-1), torch.ones(3))
    assert spread(features) > 0 and spread(DinoFeatures(str(tmp_path)).of(pixels[:1].repeat(2, 1, 1, 1))) < 1e-3
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match="clip"):
        DinoFeatures(str(tmp_path)).of(pixels)
