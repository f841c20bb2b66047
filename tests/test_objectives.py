"""The losses against TRL's and by hand, and what an objective makes of rows."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unigap.loop.plan import RoundPlan
from unigap.loop.references import image_likelihoods
from unigap.loop.sampling import sample_candidates
from unigap.models.base import SamplingRecipe
from unigap.models.engine.rectified_flow import training_draws
from unigap.objectives import DPO, SFT, RowBatch
from unigap.objectives.base import step_noise
from unigap.objectives.losses import dpo_loss, sft_loss
from unigap.records import Candidate, Pair, Prompt

TEXTS = ("a red circle", "a small red circle left of a large blue square", "six rings")
PROMPTS = [Prompt(f"p{i}", text) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def candidates(janus: Any) -> list[Candidate]:
    """Two drawings for each prompt."""
    return [c for d in sample_candidates(janus, PROMPTS, 2, 0, 0, SamplingRecipe()) for c in d.candidates]


@pytest.fixture(scope="module")
def pairs(candidates: list[Candidate]) -> list[Pair]:
    """The first drawing of each prompt against the second."""
    return [Pair(*candidates[i : i + 2]) for i in range(0, 6, 2)]


def tokens(seed: int, dtype: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    return -torch.rand(7, 16, generator=torch.Generator().manual_seed(seed), dtype=dtype) * scale


# The losses


def test_dpo_is_ln_2_where_policy_and_reference_agree() -> None:
    chosen_B, rejected_B = tokens(0, torch.float64).sum(1), tokens(1, torch.float64).sum(1)
    for beta in (0.01, 0.1, 5.0):
        terms = dpo_loss(chosen_B, rejected_B, chosen_B, rejected_B, beta)
        assert terms.loss.item() == pytest.approx(math.log(2), abs=1e-15)
        assert (terms.margin_B == 0).all() and terms.accuracy == 0
        assert dpo_loss(chosen_B + 1, rejected_B, chosen_B, rejected_B, beta).loss < math.log(2)
        assert dpo_loss(chosen_B, rejected_B + 1, chosen_B, rejected_B, beta).loss > math.log(2)


def test_dpo_by_hand() -> None:
    chosen_B, rejected_B = torch.tensor([-10.0, -20.0]).double(), torch.tensor([-12.0, -15.0]).double()
    terms = dpo_loss(chosen_B, rejected_B, chosen_B - 3, rejected_B + 1, beta=0.5)
    assert terms.margin_B.tolist() == [2.0, 2.0]  # 0.5 * (3 - -1)
    assert terms.loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-2.0))))
    assert terms.chosen_B.tolist() == [3.0, 3.0] and terms.rejected_B.tolist() == [-1.0, -1.0]
    assert terms.accuracy == 1
    mixed = dpo_loss(chosen_B, rejected_B, chosen_B + torch.tensor([1.0, -1.0]), rejected_B, beta=0.5)
    assert mixed.accuracy == 0.5


def test_dpo_stays_finite_far_from_the_reference() -> None:
    far = torch.tensor([1e4], requires_grad=True)
    terms = dpo_loss(-far, far, torch.zeros(1), torch.zeros(1), beta=1.0)
    terms.loss.backward()
    assert terms.loss.item() == pytest.approx(2e4) and far.grad is not None and far.grad.item() == pytest.approx(2.0)


def trl_loss(
    trainer: Any,
    chosen_BM: torch.Tensor,
    rejected_BM: torch.Tensor,
    reference_B2: torch.Tensor,
    beta: float,
    kind: str = "sigmoid",
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """TRL's own DPO loss, its model replaced by one that answers with the given log-probabilities."""
    logp = torch.cat([chosen_BM, rejected_BM])
    still = torch.zeros_like(logp).detach()
    answer = SimpleNamespace(log_probs=logp, entropy=still, mean_logits=still, is_top1=still.bool())
    ids = torch.zeros(logp.shape[0], logp.shape[1] + 1, dtype=torch.int64)
    completion = torch.ones_like(ids)
    completion[:, 0] = 0  # the prompt, one token
    state = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", gather=lambda t: t, gather_for_metrics=lambda t: t),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=label_smoothing,
        use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": completion,
        "ref_chosen_logps": reference_B2[:, 0],
        "ref_rejected_logps": reference_B2[:, 1],
    }
    return trainer._compute_loss(state, lambda **_: answer, inputs, return_outputs=False)


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dpo_equals_trls_on_the_same_log_probabilities(beta: float, dtype: torch.dtype) -> None:
    trainer = pytest.importorskip("trl").DPOTrainer
    reference_B2 = torch.stack([tokens(2, dtype).sum(1), tokens(3, dtype).sum(1)], 1)
    ours, theirs = ([tokens(seed, dtype).requires_grad_() for seed in (0, 1)] for _ in range(2))
    terms = dpo_loss(ours[0].sum(1), ours[1].sum(1), reference_B2[:, 0], reference_B2[:, 1], beta)
    expected = trl_loss(trainer, theirs[0], theirs[1], reference_B2, beta)
    torch.testing.assert_close(terms.loss, expected, atol=1e-6, rtol=0)
    terms.loss.backward()
    expected.backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None and mine.grad.abs().min() > 0
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["robust", "ipo"])
def test_the_kin_of_dpo_equal_trls(kind: Any) -> None:
    trainer = pytest.importorskip("trl").DPOTrainer
    chosen_BM, rejected_BM = tokens(0, torch.float64), tokens(1, torch.float64)
    reference_B2 = torch.stack([tokens(2, torch.float64).sum(1), tokens(3, torch.float64).sum(1)], 1)
    smoothing = 0.0 if kind == "ipo" else 0.2
    logps = [chosen_BM.sum(1), rejected_BM.sum(1), reference_B2[:, 0], reference_B2[:, 1]]
    expected = trl_loss(trainer, chosen_BM, rejected_BM, reference_B2, 0.3, kind, smoothing)
    if kind == "ipo":  # TRL divides by the number of tokens, as our objective does
        logps = [logp_B / chosen_BM.shape[1] for logp_B in logps]
    terms = dpo_loss(*logps, beta=0.3, kind=kind, label_smoothing=smoothing)
    torch.testing.assert_close(terms.loss, expected, atol=1e-6, rtol=0)


def test_conservative_dpo_is_least_where_it_is_as_sure_as_the_labels_are() -> None:
    reference_B = torch.zeros(1, dtype=torch.float64)
    for sure, pull in ((0.7, -1), (0.8, 0), (0.9, 1)):
        chosen_B = torch.tensor([math.log(sure / (1 - sure))], dtype=torch.float64, requires_grad=True)
        dpo_loss(chosen_B, reference_B, reference_B, reference_B, beta=1.0, label_smoothing=0.2).loss.backward()
        assert chosen_B.grad is not None and round(10 * chosen_B.grad.item()) == pull


def test_ipo_stops_pulling_at_its_margin() -> None:
    reference_B = torch.zeros(1, dtype=torch.float64)
    for distance, pull in ((0.0, -10.0), (5.0, 0.0), (6.0, 2.0)):
        chosen_B = torch.tensor([distance], dtype=torch.float64, requires_grad=True)
        dpo_loss(chosen_B, reference_B, reference_B, reference_B, beta=0.1, kind="ipo").loss.backward()
        assert chosen_B.grad is not None and chosen_B.grad.item() == pytest.approx(pull)


def test_sft_is_the_mean_negative_log_likelihood_of_a_token() -> None:
    logp_BM = tokens(0, torch.float64)
    expected = -sum(sum(row) for row in logp_BM.tolist()) / (7 * 16)
    assert sft_loss(logp_BM).item() == pytest.approx(expected, rel=1e-12)


# The objectives


def test_sft_step_is_the_loss_of_each_row_one_at_a_time(janus: Any, candidates: list[Candidate]) -> None:
    objective = SFT()
    batch = objective.collate(candidates, {})
    assert batch.ids == tuple(c.id for c in candidates)
    assert batch.drawings_B.dtype == torch.int64 and batch.drawings_B.tolist() == [
        c.drawing.tolist() for c in candidates
    ]
    likelihoods = [-image_likelihoods(janus, [c])[c.id] / 16 for c in candidates]
    assert objective.step(janus, batch).loss.item() == pytest.approx(sum(likelihoods) / 6, abs=1e-5)
    assert objective.members(candidates[0]) == (candidates[0],) and not objective.needs_reference


@pytest.mark.parametrize("options", [{}, {"lora_rank": 4}], ids=["full", "lora"])
def test_dpo_step_starts_at_ln_2_and_moves_with_the_policy(new_janus, pairs: list[Pair], options: dict) -> None:
    model = new_janus(**options)
    objective = DPO(nll_weight=0.0)
    start = model.trainable_state()
    batch = objective.collate(pairs, image_likelihoods(model, [c for pair in pairs for c in objective.members(pair)]))
    first = objective.step(model, batch)
    assert first.loss.item() == pytest.approx(math.log(2), abs=1e-5)
    assert first.logs["dpo/margin"].abs() < 1e-4
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    first.loss.backward()
    optimizer.step()
    second = objective.step(model, batch)
    assert second.loss.item() < math.log(2) - 1e-3
    assert second.logs["dpo/margin"] > 0 and second.logs["dpo/accuracy"] > 0.5
    with model.with_state(start):
        assert objective.step(model, batch).loss.item() == pytest.approx(math.log(2), abs=1e-5)


def test_dpo_step_by_hand(janus: Any, pairs: list[Pair]) -> None:
    objective = DPO(beta=0.2, nll_weight=0.7)
    true = image_likelihoods(janus, [c for pair in pairs for c in objective.members(pair)])
    references = {name: logp + 3 * i for i, (name, logp) in enumerate(true.items())}
    batch = objective.collate(pairs, references)
    assert batch.ids == tuple(f"{pair.chosen.id}>{pair.rejected.id}" for pair in pairs)
    assert batch.reference_B2.dtype == torch.float64
    result = objective.step(janus, batch)
    shift = {name: true[name] - references[name] for name in true}
    margins = [0.2 * (shift[pair.chosen.id] - shift[pair.rejected.id]) for pair in pairs]
    preference = sum(math.log1p(math.exp(-margin)) for margin in margins) / 3
    likelihood = -sum(true[pair.chosen.id] for pair in pairs) / (3 * 16)
    assert result.loss.item() == pytest.approx(preference + 0.7 * likelihood, abs=1e-4)
    assert result.logs["dpo/loss"].item() == pytest.approx(preference, abs=1e-4)
    assert result.logs["dpo/margin"].item() == pytest.approx(sum(margins) / 3, abs=1e-4)
    assert result.logs["dpo/margin_per_token"].item() == pytest.approx(sum(margins) / 48, abs=1e-4)
    assert result.logs["dpo/chosen"].item() == pytest.approx(sum(shift[p.chosen.id] for p in pairs) / 3, abs=1e-4)
    assert result.logs["dpo/rejected"].item() == pytest.approx(sum(shift[p.rejected.id] for p in pairs) / 3, abs=1e-4)
    assert result.logs["dpo/accuracy"].item() == sum(margin > 0 for margin in margins) / 3
    assert objective.needs_reference and not any(value.requires_grad for value in result.logs.values())


def test_dropped_prompts_learn_under_the_null_prompt(janus: Any, candidates: list[Candidate]) -> None:
    objective = SFT(prompt_dropout=0.5)
    batch = objective.collate(candidates, {})
    torch.manual_seed(7)
    found = objective.step(janus, batch).loss
    torch.manual_seed(7)
    dropped = torch.rand(len(candidates)) < 0.5
    assert 0 < dropped.sum() < len(candidates)
    prompt = janus.encode_prompt(batch.texts)
    plain, null = (
        janus.image_logps(prompt.unconditional(torch.full_like(dropped, every)), batch.drawings_B).mean(1)
        for every in (False, True)
    )
    torch.testing.assert_close(found, -torch.where(dropped, null, plain).mean(), atol=1e-5, rtol=0)
    # without dropout, torch's generator is left alone, and a run draws what it drew before there was the option
    before = torch.get_rng_state()
    torch.testing.assert_close(SFT().step(janus, batch).loss, -plain.mean(), atol=1e-5, rtol=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("beta", [100.0, 5000.0])
def test_the_diffusion_scale_of_beta_is_that_of_the_published_formula(bagel: Any, new_bagel: Any, beta: float) -> None:
    model = new_bagel()
    model.reference_state = model.trainable_state()
    with torch.no_grad():
        for parameter in model.trunk.parameters():
            parameter += 1e-3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    drawn = [c for d in sample_candidates(bagel, PROMPTS, 2, 0, 0, SamplingRecipe()) for c in d.candidates]
    objective = DPO(beta=beta, scale="diffusion", nll_weight=0.0)
    objective.prepare(model, RoundPlan())
    batch = objective.collate([Pair(*drawn[i : i + 2]) for i in range(0, 6, 2)], {})
    torch.manual_seed(1)
    found = objective.step(model, batch)
    torch.manual_seed(1)
    seed_B = step_noise(model, 3)
    prompt = model.encode_prompt(batch.texts)

    def errors(one: Any, drawings_B: torch.Tensor) -> torch.Tensor:
        """Mean squared errors of the velocity, from the definition."""
        _time_B, noise_B = training_draws(seed_B, drawings_B.shape[1:], 1.0)
        velocity = one.velocity_terms(prompt, drawings_B, seed_B).velocity_RMC.double()
        return (velocity - (noise_B - drawings_B).double()).square().mean((1, 2))

    chosen, rejected = (
        errors(model, images) - errors(bagel, images) for images in (batch.drawings_B, batch.rejected_B)
    )
    inside = -0.5 * beta * (chosen - rejected)
    assert inside.abs().max() > 0.1
    expected = -torch.nn.functional.logsigmoid(inside).mean()
    torch.testing.assert_close(found.loss.double(), expected, atol=1e-6 * beta, rtol=1e-6)
    halved = DPO(beta=beta / 2, per_token=True, nll_weight=0.0)
    torch.manual_seed(1)
    assert torch.equal(halved.step(model, batch).loss, found.loss)


def test_the_loss_in_the_diffusion_scale_is_the_published_one_on_any_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.rand(2, 2, 64, 16, generator=generator, dtype=torch.float64)
    for beta in (100.0, 2000.0, 5000.0):
        # model_diff - ref_diff of the published code, where errors are means over all numbers of an image
        model_diff, reference_diff = (both[0].mean(-1) - both[1].mean(-1) for both in (policy, reference))
        expected = -torch.nn.functional.logsigmoid(-0.5 * beta * (model_diff - reference_diff)).mean()
        chosen, rejected = -policy.mean(-1)
        found = dpo_loss(chosen, rejected, *-reference.mean(-1), beta / 2).loss
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_diffusion_scale_is_refused_for_codes(janus: Any, showo: Any) -> None:
    for model in (janus, showo):
        with pytest.raises(ValueError, match=f"is for flow models, and {type(model).__name__} is none"):
            DPO(beta=2000, scale="diffusion").prepare(model, RoundPlan())


def test_an_objective_picks_its_rows_by_its_own_settings(candidates: list[Candidate]) -> None:
    logits = dict(zip([c.id for c in candidates], [3.0, 1.0, 0.5, -1.0, -2.0, -3.0], strict=True))
    assert SFT(threshold=0.5, keep=1).rows(candidates, logits) == [candidates[0], candidates[2]]
    assert SFT(threshold=0.9).rows(candidates, logits) == [candidates[0]]
    assert DPO().rows(candidates, logits) == [Pair(candidates[2], candidates[3])]
    assert DPO(threshold=0.9).rows(candidates, logits) == [Pair(candidates[0], candidates[1])]
    third = SFT(keep=2, balance=True).rows(candidates, logits)
    assert third == [candidates[0], candidates[1], candidates[2], candidates[2]], "each prompt twice"


def test_per_token_margins_are_those_of_the_sum_over_the_length(janus: Any, pairs: list[Pair]) -> None:
    true = image_likelihoods(janus, [c for pair in pairs for c in (pair.chosen, pair.rejected)])
    references = {name: logp + 3 * i for i, (name, logp) in enumerate(true.items())}
    whole, shared = DPO(), DPO(per_token=True)
    margins = [o.step(janus, o.collate(pairs, references)).logs["dpo/margin"].item() for o in (whole, shared)]
    assert margins[0] == pytest.approx(16 * margins[1], abs=1e-4) and abs(margins[0]) > 0.1


@pytest.mark.parametrize("per_token", [False, True])
def test_the_objective_ipo_equals_trls_on_the_same_images(janus: Any, pairs: list[Pair], per_token: bool) -> None:
    trainer = pytest.importorskip("trl").DPOTrainer
    objective = DPO(loss="ipo", beta=0.3, nll_weight=0.0, per_token=per_token)
    drawn = [c for pair in pairs for c in objective.members(pair)]
    references = {name: logp + 3 * i for i, (name, logp) in enumerate(image_likelihoods(janus, drawn).items())}
    batch = objective.collate(pairs, references)
    assert batch.rejected_B is not None and batch.reference_B2 is not None
    with torch.no_grad():
        chosen_BM, rejected_BM = (
            janus.image_logps(janus.encode_prompt(batch.texts), codes_BM)
            for codes_BM in (batch.drawings_B, batch.rejected_B)
        )
        expected = trl_loss(trainer, chosen_BM, rejected_BM, batch.reference_B2.float(), 0.3, "ipo")
        assert objective.step(janus, batch).loss.item() == pytest.approx(expected.item(), abs=1e-4)


def test_a_batch_moves_between_devices_as_a_whole(pairs: list[Pair]) -> None:
    batch = DPO().collate(pairs, {c.id: 0.0 for pair in pairs for c in (pair.chosen, pair.rejected)}).to("meta")
    tensors = (batch.drawings_B, batch.rejected_B, batch.reference_B2)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@dataclass(frozen=True)
class RichBatch(RowBatch):
    """A batch of somebody's own: a tensor a row, tensors in a dict and a tuple, another batch, and a plain value."""

    advantage_B: torch.Tensor
    masks: dict[str, torch.Tensor]
    both: tuple[torch.Tensor, torch.Tensor]
    inner: RowBatch
    title: str


def test_a_batch_of_ones_own_keeps_whatever_it_holds_and_moves_it() -> None:
    plain = RowBatch(("a",), ("b",), torch.zeros(1, 2))
    one = torch.ones(1)
    moved = RichBatch(*vars(plain).values(), one, {"m": one}, (one, one), plain, "t").to("meta")
    assert type(moved) is RichBatch and (moved.ids, moved.texts, moved.title) == (("a",), ("b",), "t")
    tensors = (moved.drawings_B, moved.advantage_B, moved.masks["m"], *moved.both, moved.inner.drawings_B)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize("objective", [SFT, DPO])
@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, math.nan])
def test_a_threshold_must_be_a_probability(objective: type, threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must be a probability"):
        objective(threshold=threshold)


@pytest.mark.parametrize(
    ("objective", "options"),
    [(SFT, {"keep": 0}), (SFT, {"prompt_dropout": 1.0}), (SFT, {"prompt_dropout": -0.1}),
     (DPO, {"scale": "nats"}), (DPO, {"beta": 0.0}), (DPO, {"beta": math.nan}), (DPO, {"nll_weight": -1.0}),
     (DPO, {"nll_weight": math.nan}), (DPO, {"per_prompt": 0}), (DPO, {"label_smoothing": 0.5}),
     (DPO, {"label_smoothing": 0.1, "loss": "ipo"})],
)  # fmt: skip
def test_impossible_settings_are_refused(objective: type, options: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        objective(**options)
