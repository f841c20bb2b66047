"""Online runs: the behaviour log-likelihoods in the pool, parts of the prompts, steps an epoch, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from kill_points import Killed, armed, at_call, flags_of, kill
from small_runs import SUMMARY, epochs, expect_error, improve

from unigap.callbacks import run_summary
from unigap.data import EpochBatches
from unigap.loop.behaviour import with_behaviour
from unigap.loop.counts import count_round
from unigap.loop.members import stage_members
from unigap.loop.plan import RoundPlan
from unigap.loop.sampling import stack_drawings
from unigap.loop.selection import select
from unigap.loop.verdict_columns import LazyRows
from unigap.models.base import FlowTerms, PromptBatch, SamplingRecipe
from unigap.objectives import GRPO, NFT, Joint, Reward, SwapNegatives
from unigap.objectives.grpo import RewardedBatch
from unigap.pool import Pool
from unigap.pool.drawings import StoredRow
from unigap.records import Prompt
from unigap.stages import RedrawSchedule
from unigap.worlds.shapes.negatives import ShapesNegatives

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
RECIPE = SamplingRecipe(cfg=2.0, temperature=0.9)
SMALL: dict[str, object] = {
    "trainer.max_epochs": 2,
    "trainer.limit_train_batches": "null",
    "trainer.limit_val_batches": 0,
    "data.exam_pictures": 0,
    "data.batch_size": 8,
    "model.init_args.schedule.prompts": 4,
    "model.init_args.schedule.every_n_steps": 3,
    "regrow.plan.sampling.cfg": RECIPE.cfg,
    "regrow.plan.sampling.temperature": RECIPE.temperature,
}
PARTS = "{class_path: unigap.judges.DecomposedJudge, init_args: {combine: share, questions: {class_path: QUESTIONS}}}"
FURTHER = (
    "[{judge: {class_path: unigap.judges.RandomJudge, init_args: {yes_rate: 0.5}}, weight: 0.5, of: accepted}, "
    "{judge: PARTS, weight: 2.0, of: p_yes}]"
).replace("PARTS", PARTS.replace("QUESTIONS", "unigap.worlds.shapes.questions.GrammarQuestions"))


@pytest.fixture(scope="module")
def ran(janus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An online run of two rounds, with a second judge in the reward."""
    folder = tmp_path_factory.mktemp("online")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        further = {"model.init_args.objective.init_args.reward.further": FURTHER}
        assert improve(janus_folder, "grpo", {**SMALL, **further}) == 0
    return folder / "runs" / "grpo"


def test_the_pool_stores_the_likelihood_of_the_policy_that_acted(ran: Path, janus: Any) -> None:
    pool = Pool.open(ran / "pool")
    candidates = pool.candidates(0)
    assert pool.verify() == []
    assert all(candidate.behaviour is None for candidate in candidates), "they are read only where asked for"
    acted = candidates.with_behaviour(0)
    prompt = janus.encode_prompt([candidate.prompt.text for candidate in candidates])
    with torch.no_grad():
        forced_BM = janus.image_logps(prompt, stack_drawings(candidates), recipe=RECIPE)
    stored_BM = torch.from_numpy(np.stack([candidate.behaviour_M for candidate in acted]))
    torch.testing.assert_close(stored_BM, forced_BM, atol=1e-5, rtol=0)
    table = pq.read_table(ran / "pool" / "round-00000" / "candidates.parquet")
    np.testing.assert_allclose(table["behaviour"].to_numpy(), stored_BM.double().sum(-1).numpy(), atol=1e-9)


def test_rows_hold_places_of_the_pool_and_read_behaviours_in_any_order(ran: Path) -> None:
    pool = Pool.open(ran / "pool")
    objective = GRPO(reuse=1)
    for selection in (select(pool, "self", 0.5, 1), select(pool, "self", 0.5, 0)):
        newest = selection.candidates[-1].round
        acted = with_behaviour(pool, selection, range(newest, newest + 1), RECIPE)
        rows = objective.rows(acted.candidates, acted.logits)
        plain = objective.rows([*acted.candidates], {**acted.logits})
        assert isinstance(rows, LazyRows) and isinstance(plain, list) and [*rows] == plain
        assert {row.candidate.round for row in rows} == {newest}
        places = np.arange(len(rows))[::-1]
        stage_members(rows, places, objective.members)
        table = pq.read_table(ran / "pool" / f"round-{newest:05d}" / "candidates.parquet")
        names = zip(*(table[name].to_pylist() for name in ("prompt_id", "round", "index")), strict=True)
        stored = dict(zip([f"{p}@{r}.{i}" for p, r, i in names], table["behaviour_tokens"].to_pylist(), strict=True))
        for place in places:
            candidate = rows[int(place)].candidate
            assert isinstance(candidate.behaviour, StoredRow)
            np.testing.assert_array_equal(candidate.behaviour_M, np.float32(stored[candidate.id]))
    old = with_behaviour(pool, select(pool, "self", 0.5, 1), range(1, 2), RECIPE).candidates
    assert {candidate.round for candidate in old if candidate.behaviour is None} == {0}


def test_prompts_that_wait_for_their_part_are_not_discarded(ran: Path) -> None:
    pool, prompts = Pool.open(ran / "pool"), []
    for number, part in pool.prompts().items():
        prompts += part
        selection = select(pool, "self", 0.999999, number)
        waiting = [Prompt(f"later-{i}", "a red circle") for i in range(5)]
        counts = count_round(pool, selection, {}, [*prompts, *waiting], 0, number)
        assert counts["discarded"] == len(selection.discarded(prompts)) <= 4 * (number + 1)
        assert len(selection.discarded([*prompts, *waiting])) == counts["discarded"] + 5


def test_every_round_names_its_reward_and_draws_its_part(ran: Path) -> None:
    pool = Pool.open(ran / "pool")
    first, second = (pool.recipe(number) for number in (0, 1))
    assert first["reward"] == second["reward"] and first["weights"] != second["weights"]
    assert first["reward"]["further"] == [
        {"judge": "random", "of": "accepted", "weight": 0.5},
        {"judge": "decomposed-share", "of": "p_yes", "weight": 2.0},
    ]
    assert [judge["name"] for judge in first["judges"]] == ["self", "random", "decomposed-share", "oracle"]
    prompts = pool.prompts()
    assert [len(part) for part in prompts.values()] == [4, 4]
    assert {p.id for p in prompts[0]}.isdisjoint(p.id for p in prompts[1])
    assert [len(rows) for rows in epochs(ran)] == [24, 24], "three steps of eight rows: more than a pass over a round"


def test_a_pool_of_another_recipe_or_without_likelihoods_is_refused(
    ran: Path, janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {**SMALL, "data.pool": ran / "pool", "regrow.plan.sampling.cfg": 3.0}
    expect_error(improve(janus_folder, "grpo", flags), capsys, "sampled with cfg 2.0 and not 3.0", "round 0")
    assert improve(janus_folder, "sft", {"model.init_args.judge": "unigap.judges.RandomJudge"}) == 0
    columns = pq.read_schema(here / "runs/sft/pool/round-00000/candidates.parquet").names
    assert "behaviour" not in columns and "behaviour_tokens" not in columns
    plain = {**SMALL, "regrow.plan.sampling.cfg": 1.0, "regrow.plan.sampling.temperature": 1.0}
    status = improve(janus_folder, "grpo", {**plain, "data.pool": here / "runs/sft/pool"})
    expect_error(status, capsys, "without the log-likelihoods", "use a new pool folder")


def test_parts_go_through_all_prompts_in_a_new_order_each_time() -> None:
    prompts = [Prompt(str(i), f"{i} rings") for i in range(10)]
    schedule = RedrawSchedule(every_n_steps=1, redraw="all", prompts=4)
    parts = [schedule.part(prompts, number, seed=5) for number in range(6)]
    assert [len(part) for part in parts] == [4, 4, 2] * 2
    passes = [[p.id for part in parts[start : start + 3] for p in part] for start in (0, 3)]
    assert sorted(passes[0]) == sorted(passes[1]) == [p.id for p in prompts] and passes[0] != passes[1]
    assert parts[1] == schedule.part(prompts, 1, seed=5) != schedule.part(prompts, 1, seed=6)


def test_an_epoch_of_given_batches_goes_on_where_it_was_left() -> None:
    whole = [*EpochBatches(10, 2, (0, 1), epoch=3, batches=12)]
    assert len(whole) == 12 and all(
        sorted(row for batch in whole[start : start + 5] for row in batch) == [*range(10)] for start in (0, 5)
    )
    assert whole[:5] == [*EpochBatches(10, 2, (0, 1), epoch=3)] and whole[5:10] != whole[:5]
    assert [*EpochBatches(10, 2, (0, 1), epoch=3, start=7, batches=12)] == whole[7:]
    assert [*EpochBatches(10, 2, (0, 1), epoch=3, batches=3)] == whole[:3]
    assert len(EpochBatches(1, 2, (0,), world=2, batches=4)) == 0


# -- NFT of a flow


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model of the documentation as a flow: its velocity is a multiple of x_t that depends on the prompt."""
    monkeypatch.syspath_prepend(EXAMPLES)
    from own_model import Painter

    class Flow(Painter):
        exact_likelihood = False

        def velocity_terms(self, prompt: PromptBatch, drawings_R: torch.Tensor, noise_R: torch.Tensor) -> FlowTerms:
            draws = [torch.Generator().manual_seed(seed) for seed in noise_R.tolist()]
            noise = torch.stack([torch.randn(drawings_R.shape[1:], generator=draw) for draw in draws])
            time = torch.stack([torch.rand((), generator=draw) for draw in draws]).clamp(0.1)
            mixed = torch.lerp(drawings_R, noise, time[:, None, None])
            state = self._states(prompt.ids_BL, prompt.mask_BL)[:, -1]
            return FlowTerms(mixed * state[:, :3, None].mean(1, keepdim=True) + state[:, None, 3:5], mixed, time)

    return Flow()


def test_nft_moves_a_flow_towards_good_images_and_away_from_bad_ones(flow: Any) -> None:
    objective = NFT()
    objective.prepare(flow, RoundPlan())
    assert objective.needs_reference and objective.reference_follows and not objective.needs_behaviour
    assert objective.first_round(4) == 4
    flow.reference_state = flow.trainable_state()
    image = torch.tensor([1.0, -1.0]).expand(8, 4, 2).clone()
    texts = ("a red circle",) * 8
    prompt = flow.encode_prompt(texts)

    def error() -> float:
        terms = flow.velocity_terms(prompt, image, torch.arange(8))
        guess = terms.mixed_RMC - terms.time_R[:, None, None] * terms.velocity_RMC
        return (guess - image).square().mean().item()

    start, moves = error(), {}
    for reward in (1.0, 0.0):
        with torch.no_grad():
            for name, value in flow.reference_state.items():
                flow.get_parameter(name).copy_(value)
        optimizer = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], lr=1e-3)
        batch = RewardedBatch(texts, texts, image, torch.full((8,), reward), None)
        torch.manual_seed(0)
        for _ in range(20):
            optimizer.zero_grad()
            result = objective.step(flow, batch)
            result.loss.backward()
            optimizer.step()
        assert result.logs["nft/moved"] > 0
        moves[reward] = error() - start
    assert moves[1.0] < 0 < moves[0.0]


def test_nft_refuses_a_model_without_likelihood_and_velocity(showo: Any) -> None:
    with pytest.raises(ValueError, match="ShowO has neither; take SFT or DPO"):
        NFT().prepare(showo, RoundPlan())


def test_a_wrapper_asks_for_what_its_objective_needs(janus: Any) -> None:
    inner = NFT(reward=Reward(of="accepted"))
    joint = Joint(inner, [SwapNegatives(ShapesNegatives())])
    assert not joint.needs_behaviour
    joint.prepare(janus, RoundPlan())
    assert joint.needs_behaviour and joint.learning_recipe()["behaviour"] == "per token"
    recipes: Mapping[str, Any] = joint.learning_recipe()
    assert recipes["reward"]["of"] == "accepted"


def test_the_velocities_of_bagel_give_its_surrogate(bagel: Any) -> None:
    prompt, seed_R = bagel.encode_prompt(["a red circle", "six rings"]), torch.tensor([3, 4])
    image = bagel.sample_images(prompt, torch.tensor([[1], [2]]), SamplingRecipe()).drawings_BN[:, 0].float()
    terms = bagel.velocity_terms(prompt, image, seed_R)
    target = (terms.mixed_RMC - image) / terms.time_R[:, None, None]
    surrogate = -(terms.velocity_RMC - target).square().mean(-1)
    torch.testing.assert_close(surrogate, bagel.image_logps(prompt, image, seed_R), atol=1e-4, rtol=1e-4)
    NFT().prepare(bagel, RoundPlan())


def test_a_continued_run_counts_the_groups_of_every_round(janus_folder: Path, here: Path) -> None:
    """The process that continues counts the rounds of the killed one again."""
    flags = {**flags_of("grpo"), **SUMMARY, "summary.folder": "runs/grpo"}
    killed = (run_summary, "rejudge", lambda function: at_call(1, kill, function), {})
    with pytest.raises(Killed), armed(killed):
        improve(janus_folder, "grpo", flags)
    assert improve(janus_folder, "grpo", {**flags, "resume": "auto"}) == 0
    rounds = json.loads(Path("runs/grpo/summary.json").read_text())["rounds"]
    assert len(rounds) > 1 and all({"groups", "even_groups"} <= counts.keys() for counts in rounds)
