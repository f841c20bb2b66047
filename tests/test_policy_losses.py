"""GRPO, its kin and NFT as numbers: equal to TRL's, to the published formulas, and to closed forms."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unigap.judges import RandomJudge
from unigap.loop.verdict_columns import verdict_columns
from unigap.objectives import GRPO, NFT, JudgeReward, Reward
from unigap.objectives.policy_losses import advantages, k3, nft_code_loss, nft_flow_loss, policy_loss
from unigap.records import Candidate, Prompt

# Shape legend: B images, M tokens, N candidates of a group.

B, M = 6, 5


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logps(seed: int) -> torch.Tensor:
    return -numbers(seed, B, M).abs() - 0.5


def trl_loss(
    name: str,
    logp_BM: torch.Tensor,
    old_BM: torch.Tensor,
    reference_BM: torch.Tensor,
    advantage_B: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """TRL's own loss, its model replaced by one that answers with the given log-probabilities."""
    trl = pytest.importorskip("trl")
    trainer = {"grpo": trl.GRPOTrainer, "rloo": trl.RLOOTrainer}[name]
    keep = SimpleNamespace(gather=lambda t: t, reduce=lambda t, reduction: t, gather_for_metrics=lambda t: t)
    state = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=keep,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp_BM, torch.zeros_like(logp_BM).detach(), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=M,
        _entropy_bonus_enabled=False,
        use_adaptive_entropy=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        **{"beta": 0.0, "loss_type": "grpo", "importance_sampling_level": "token", **options},
    )
    ones = torch.ones(B, M, dtype=torch.int64)
    inputs = {
        "prompt_ids": ones[:, :1],
        "prompt_mask": ones[:, :1],
        "completion_ids": ones,
        "completion_mask": ones,
        "advantages": advantage_B,
        "old_per_token_logps": old_BM,
        "old_logps": old_BM.sum(-1),
        "ref_per_token_logps": reference_BM,
    }
    loss: torch.Tensor = trainer._compute_loss(state, None, inputs)
    return loss


@pytest.mark.parametrize(
    ("name", "ratio_of", "clips", "options"),
    [
        ("grpo", "token", (0.2, 0.2), {}),
        ("grpo", "token", (0.2, 0.28), {"beta": 0.04}),
        ("grpo", "token", (0.1, 0.3), {"loss_type": "dr_grpo", "beta": 0.01}),
        ("grpo", "token", (0.2, 0.2), {"loss_type": "bnpo"}),
        ("grpo", "sequence", (3e-4, 4e-4), {"importance_sampling_level": "sequence"}),
        ("grpo", "sequence", (0.02, 0.03), {"importance_sampling_level": "sequence", "beta": 0.1}),
        ("rloo", "image", (0.2, 0.2), {}),
    ],
    ids=["grpo", "dapo clip and kl", "dr grpo", "bnpo", "gspo", "gspo and kl", "rloo"],
)
def test_losses_and_gradients_equal_trls(name: str, ratio_of: Any, clips: Any, options: dict[str, Any]) -> None:
    old_BM, reference_BM, advantage_B = logps(1), logps(2), numbers(3, B)
    ours, theirs = ((old_BM + 0.2 * numbers(4, B, M)).requires_grad_() for _ in range(2))
    terms = policy_loss(ours, old_BM, advantage_B, *clips, ratio_of)
    loss = terms.loss + options.get("beta", 0.0) * k3(ours, reference_BM)
    epsilons = {"epsilon_low": clips[0], "epsilon_high": clips[1]}
    expected = trl_loss(name, theirs, old_BM, reference_BM, advantage_B, **epsilons, **options)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    loss.backward()
    expected.backward()
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=0)
    assert 0 < terms.clipped < 1


def test_advantages_are_those_of_the_published_code() -> None:
    reward_N = torch.tensor([0.0, 1.0, 1.0, 0.25], dtype=torch.float64)
    mean, std = reward_N.mean(), reward_N.std()
    torch.testing.assert_close(advantages(reward_N), (reward_N - mean) / (std + 1e-4))
    torch.testing.assert_close(advantages(reward_N, scale_by_std=False), reward_N - mean)
    others = torch.stack([reward_N[torch.arange(4) != i].mean() for i in range(4)])
    torch.testing.assert_close(advantages(reward_N, "leave_one_out", False), reward_N - others)


@pytest.mark.parametrize("ratio_of", ["token", "sequence"])
def test_at_ratio_one_the_gradient_is_that_of_reinforce_on_two_tokens(ratio_of: Any) -> None:
    """A policy sigmoid(theta) over two tokens: d log p(1) = 1 - p, d log p(0) = -p."""
    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    token_B1, advantage_B = torch.tensor([[1.0], [0.0], [1.0]]), torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    logp_BM = torch.where(token_B1 > 0, torch.nn.functional.logsigmoid(theta), torch.nn.functional.logsigmoid(-theta))
    terms = policy_loss(logp_BM, logp_BM.detach(), advantage_B, ratio_of=ratio_of)
    terms.loss.backward()
    p = torch.sigmoid(theta).item()
    expected = -sum(a * (1 - p if token else -p) for a, token in zip([0.5, -2.0, 1.0], [1, 0, 1], strict=True)) / 3
    assert theta.grad is not None and theta.grad.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("online", ["grpo", "nft"])
def test_a_bandit_is_solved(online: str) -> None:
    """Four codes of reward .1, .9, .4, .2; the best gets nearly all probability, off-policy steps included."""
    chance_V = torch.tensor([0.1, 0.9, 0.4, 0.2], dtype=torch.float64)
    logit_V = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer, draw = torch.optim.Adam([logit_V], lr=0.05), torch.Generator().manual_seed(0)
    for _ in range(60):
        old_V = logit_V.detach().log_softmax(-1)
        code_B = torch.multinomial(old_V.exp(), 64, replacement=True, generator=draw)
        reward_B = torch.bernoulli(chance_V[code_B], generator=draw)
        for _ in range(4):
            logp_B1, old_B1 = logit_V.log_softmax(-1)[code_B, None], old_V[code_B, None]
            if online == "grpo":
                loss = policy_loss(logp_B1, old_B1, advantages(reward_B)).loss
            else:
                loss = nft_code_loss(logp_B1, old_B1, reward_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert logit_V.softmax(-1)[1] > 0.95


def test_a_token_that_a_filter_removes_gives_no_gradient_and_no_nan() -> None:
    logit_V = torch.tensor([1.0, 0.0, -1.0], requires_grad=True)
    kept = logit_V.masked_fill(torch.tensor([False, False, True]), -torch.inf).log_softmax(-1)
    logp_BM, old_BM = kept[torch.tensor([[0, 2], [2, 1]])], torch.full((2, 2), -1.0)
    loss = policy_loss(logp_BM, old_BM, torch.tensor([1.0, -1.0])).loss + k3(logp_BM, old_BM)
    loss.backward()
    assert loss.isfinite() and logit_V.grad is not None and logit_V.grad.isfinite().all() and logit_V.grad.any()


# -- NFT


def published_nft(
    v: torch.Tensor,
    old: torch.Tensor,
    x0: torch.Tensor,
    xt: torch.Tensor,
    t: torch.Tensor,
    r: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """DiffusionNFT's formula, image by image."""
    losses = []
    for i in range(len(x0)):
        positive, negative = beta * v[i] + (1 - beta) * old[i], (1 + beta) * old[i] - beta * v[i]
        error = []
        for implicit in (positive, negative):
            guess = xt[i] - t[i] * implicit
            error.append(((guess - x0[i]) ** 2).mean() / (guess - x0[i]).abs().mean().detach())
        losses.append(r[i] * error[0] + (1 - r[i]) * error[1])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_the_flow_loss_is_the_published_one(beta: float) -> None:
    image, noise, old = (numbers(seed, B, 4, 3) for seed in (1, 2, 3))
    velocity = (old + 0.3 * numbers(4, B, 4, 3)).requires_grad_()
    time, reward = torch.linspace(0.1, 1.0, B, dtype=torch.float64), torch.tensor([0, 1, 0.3, 1, 0, 0.5]).double()
    mixed = (1 - time)[:, None, None] * image + time[:, None, None] * noise
    ours = nft_flow_loss(velocity, old, image, mixed, time, reward, beta)
    expected = published_nft(velocity, old, image, mixed, time, reward, beta)
    torch.testing.assert_close(ours, expected)
    pulls = [torch.autograd.grad(loss, velocity, retain_graph=True)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*pulls)


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_the_code_loss_has_its_minimum_at_the_derived_step(beta: float) -> None:
    """Expected loss over four codes with mean reward 1/2: rho = 1 + (2 q - 1) / beta."""
    old_V = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    good_V = torch.tensor([0.9, 0.3, 0.7, 0.35], dtype=torch.float64)
    good_V = good_V + (0.5 - (old_V * good_V).sum())
    logit_V = old_V.log().requires_grad_()
    optimizer = torch.optim.LBFGS([logit_V], max_iter=300, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logp_B1, old_B1 = logit_V.log_softmax(-1)[:, None], old_V.log()[:, None]
        ones = torch.ones(4, dtype=torch.float64)
        yes, no = (
            torch.stack([nft_code_loss(logp_B1[[i]], old_B1[[i]], reward * ones[[i]], beta) for i in range(4)])
            for reward in (1, 0)
        )
        value = (old_V * (good_V * yes + (1 - good_V) * no)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    found_V = logit_V.softmax(-1).detach()
    torch.testing.assert_close(found_V, old_V * (1 + (2 * good_V - 1) / beta), atol=1e-5, rtol=0)


def test_the_code_loss_starts_as_reinforce_with_twice_the_reward_minus_one() -> None:
    logp_BM, reward_B = logps(1).requires_grad_(), torch.tensor([0, 1, 0.3, 1, 0, 0.5]).double()
    loss = nft_code_loss(logp_BM, logp_BM.detach(), reward_B, 0.7)
    loss.backward()
    assert loss == 0 and logp_BM.grad is not None
    expected = -(0.7 * (2 * reward_B - 1))[:, None].expand(B, M) / (B * M)
    torch.testing.assert_close(logp_BM.grad, expected)


# -- rewards and rows


def pool_of(*logit_groups: list[float]) -> tuple[list[Candidate], dict[str, float]]:
    """One group a prompt, all of round 0."""
    candidates, logits = [], {}
    for number, group in enumerate(logit_groups):
        prompt = Prompt(f"p{number}", "a red circle")
        for index, logit in enumerate(group):
            candidate = Candidate(prompt, 0, index, 0, torch.zeros(4, dtype=torch.int32).numpy(), -1.0)
            candidates.append(candidate)
            logits[candidate.id] = logit
    return candidates, logits


def test_groups_without_spread_are_left_out_and_counted() -> None:
    candidates, logits = pool_of([2.0, 3.0, -1.0], [1.0, 1.0, 1.0], [5.0], [-4.0, -3.0])
    accepted, logit = GRPO(reward=Reward(of="accepted")), GRPO(reward=Reward(of="logit"))
    assert [row.candidate.prompt.id for row in accepted.rows(candidates, logits)] == ["p0"] * 3
    assert [row.candidate.prompt.id for row in logit.rows(candidates, logits)] == ["p0"] * 3 + ["p3"] * 2
    assert accepted.count_rows(candidates, logits) == {"groups": 4, "even_groups": 3}
    assert sum(row.value for row in logit.rows(candidates, logits)[:3]) == pytest.approx(0)


def test_a_reward_is_a_weighted_sum_of_judges_each_standardised() -> None:
    judge = RandomJudge(yes_rate=0.5)
    candidates, logits = pool_of([2.0, 0.0, -1.0], [0.5, 4.0])
    other = {candidate.id: float(number * number) for number, candidate in enumerate(candidates)}
    reward = Reward(of="logit", weight=2.0, further=[JudgeReward(judge, -0.5, "logit")], standardise="group")

    def rewards(others: dict[str, float]) -> dict[str, float]:
        found = reward.of_rounds(verdict_columns(candidates, logits), lambda newest: 0, {judge.name: others}, 0.5)
        names = [candidates[place].id for place in found.place_K.tolist()]
        return dict(zip(names, found.reward_K.tolist(), strict=True))

    found = rewards(other)
    for members in (slice(0, 3), slice(3, 5)):
        names = [candidate.id for candidate in candidates[members]]
        mine, theirs = (torch.tensor([d[name] for name in names]).double() for d in (logits, other))
        standard = [(x - x.mean()) / x.std(correction=0) for x in (mine, theirs)]
        expected = 2.0 * standard[0] - 0.5 * standard[1]
        torch.testing.assert_close(torch.tensor([found[name] for name in names]).double(), expected)
    assert reward.recipe()["further"] == [{"judge": judge.name, "of": "logit", "weight": -0.5}]
    assert [*rewards({candidates[0].id: 1.0})] == [candidates[0].id]


def test_nft_learns_from_every_judged_image() -> None:
    candidates, logits = pool_of([2.0, 3.0], [-1.0, -2.0], [1.0, -1.0])
    rows = NFT().rows(candidates, logits)
    assert [row.value for row in rows] == [1, 1, 0, 0, 1, 0]
    centred = NFT(reward=Reward(of="logit"), advantage_clip=5.0).rows(candidates, logits)
    assert [0 <= row.value <= 1 for row in centred] == [True] * 6 and centred[0].value < 0.5 < centred[1].value
    with pytest.raises(ValueError, match=r"rewards in \[0, 1\]"):
        NFT(reward=Reward(of="logit"))
