"""A round is the same however many processes draw it and however often they are killed."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unigap.judges import InvertedJudge, OracleJudge, RandomJudge, SelfJudge
from unigap.loop.allocation import FixedCandidates, UntilAccepted
from unigap.loop.judging import judge_samples
from unigap.loop.plan import RoundPlan
from unigap.loop.ranks import Ranks
from unigap.loop.references import image_likelihoods
from unigap.loop.round import run_round
from unigap.loop.sampling import sample_candidates
from unigap.models.base import SamplingRecipe
from unigap.pool import Pool
from unigap.records import Prompt

TEXTS = ("a red circle", "a small red circle left of a large blue square", "six rings", "two blue squares", "a ring")
PROMPTS = [Prompt(f"p{i}", text, "any", "easy", "improve", str(i)) for i, text in enumerate(TEXTS)]
JUDGES = (SelfJudge(), OracleJudge(), RandomJudge())
PLAN = RoundPlan(candidates=2, images_per_batch=2, seed=3)


class Killed(Exception):
    """What ends a process in these tests."""


def new_pool(folder: Path, model: Any) -> Pool:
    return Pool.create(folder, model.drawing_digest())


def collect(pool: Pool, model: Any, prompts: list[Prompt] = PROMPTS, round: int = 0, **options: Any) -> int:
    """Draws a round; gives the number of images that were drawn."""
    drawn: list[int] = []
    run_round(model, prompts, JUDGES, pool, round, options.pop("plan", PLAN), progress=drawn.append, **options)
    return sum(drawn)


def check_same(pool: Pool, expected: Pool) -> None:
    """Equal rounds, bit for bit."""
    assert pool.rounds == expected.rounds and pool.prompts() == expected.prompts()
    assert all(pool.recipe(round) == expected.recipe(round) for round in pool.rounds)
    for mine, other in zip(pool.candidates(), expected.candidates(), strict=True):
        assert (mine.id, mine.prompt, mine.seed, mine.drawing.tolist()) == (
            other.id, other.prompt, other.seed, other.drawing.tolist()
        )  # fmt: skip
        assert mine.logp == other.logp
    assert pool.judgments() == expected.judgments()
    assert pool.verify() == []


@pytest.fixture(scope="module")
def whole(janus: Any, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A round drawn by one process without interruption."""
    pool = new_pool(tmp_path_factory.mktemp("whole") / "pool", janus)
    assert collect(pool, janus) == 10
    return pool


def test_a_round_holds_every_candidate_and_every_verdict(whole: Pool, janus: Any) -> None:
    candidates = whole.candidates()
    assert [c.id for c in candidates] == [f"p{i}@0.{k}" for i in range(5) for k in range(2)]
    assert whole.prompts() == {0: PROMPTS}
    assert len(whole.judgments()) == 30
    sampled = next(sample_candidates(janus, PROMPTS, 2, 0, 3, SamplingRecipe()))
    assert [c.drawing.tolist() for c in candidates] == [c.drawing.tolist() for c in sampled.candidates]
    for judge in JUDGES:
        expected = judge.logits(janus, sampled.candidates, sampled.pixels_BCHW).tolist()
        assert [j.logit for j in whole.judgments(judge.name)] == pytest.approx(expected, abs=1e-4)


def run_ranks(world: int, work: Callable[[Ranks], None]) -> None:
    """Does ``work`` as so many processes would: in threads, which meet whenever they tell each other something."""
    meet = threading.Barrier(world, timeout=60)
    heard = [""] * world
    failures: list[BaseException] = []

    def gather(rank: int, said: str) -> list[str]:
        heard[rank] = said
        meet.wait()
        everything = list(heard)
        meet.wait()
        return everything

    def process(rank: int) -> None:
        try:
            work(Ranks(rank, world, functools.partial(gather, rank)))
        except BaseException as error:
            failures.append(error)
            meet.abort()

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("world", [2, 3, 7])
def test_several_ranks_draw_what_one_draws(whole: Pool, janus: Any, new_janus, tmp_path: Path, world: int) -> None:
    folder = new_pool(tmp_path / "pool", janus).folder
    drawn = [0] * world
    share = [2 * len(PROMPTS[rank::world]) for rank in range(world)]
    first_is_through = threading.Event()
    models = [new_janus() for _ in range(world)]

    def work(ranks: Ranks) -> None:
        def report(images: int) -> None:
            drawn[ranks.rank] += images
            if ranks.rank == 0 and drawn[0] == share[0]:
                first_is_through.set()
            # rank 0, which commits, is the first to be through, and has to wait for the others
            assert ranks.rank == 0 or first_is_through.wait(60)

        run_round(models[ranks.rank], PROMPTS, JUDGES, Pool.open(folder), 0, PLAN, ranks, report)

    run_ranks(world, work)
    assert drawn == share
    check_same(Pool.open(folder), whole)


@pytest.mark.parametrize("batches", [1, 3, 5])
def test_a_killed_round_continues_where_it_stopped(whole: Pool, janus: Any, tmp_path: Path, batches: int) -> None:
    pool = new_pool(tmp_path / "pool", janus)
    seen: list[int] = []

    def kill(images: int) -> None:
        seen.append(images)
        if len(seen) == batches:
            raise Killed

    with pytest.raises(Killed):
        run_round(janus, PROMPTS, JUDGES, pool, 0, PLAN, progress=kill)
    assert Pool.open(pool.folder).rounds == ()
    assert collect(Pool.open(pool.folder), janus) == 10 - 2 * batches
    check_same(Pool.open(pool.folder), whole)


def test_a_kill_between_drawing_and_judging_loses_that_batch_only(whole: Pool, janus: Any, tmp_path: Path) -> None:
    pool = new_pool(tmp_path / "pool", janus)

    class Fatal(RandomJudge):
        asked = 0

        def logits(self, *args: Any) -> torch.Tensor:
            self.asked += 1
            if self.asked == 3:
                raise Killed
            return super().logits(*args)

    with pytest.raises(Killed):
        run_round(janus, PROMPTS, (*JUDGES[:2], Fatal()), pool, 0, PLAN)
    assert collect(pool, janus) == 6
    check_same(pool, whole)


def test_a_round_begun_by_one_rank_is_finished_by_others(whole: Pool, janus: Any, tmp_path: Path) -> None:
    pool = new_pool(tmp_path / "pool", janus)

    def killed_at_the_end(said: str) -> list[str]:
        heard.append(said)
        if len(heard) == 2:
            raise Killed
        return [said]

    heard: list[str] = []
    with pytest.raises(Killed):
        collect(pool, janus, ranks=Ranks(1, 2, killed_at_the_end))
    assert collect(pool, janus) == 6
    check_same(pool, whole)


def test_a_round_that_is_there_is_left_as_it_is(janus: Any, tmp_path: Path) -> None:
    pool = new_pool(tmp_path / "pool", janus)
    assert collect(pool, janus, plan=RoundPlan(2, seed=3)) == 10
    state = pool.state()
    assert collect(pool, janus) == 0  # images_per_batch differs, and does not matter
    assert collect(pool, janus, PROMPTS[1:3], round=1) == 4
    assert collect(pool, janus, PROMPTS[1:3], round=1) == 0
    assert pool.state(upto=0) == state and pool.rounds == (0, 1)
    by_round = [[c.drawing.tolist() for c in pool.candidates() if c.round == round] for round in (0, 1)]
    assert not any(codes in by_round[0] for codes in by_round[1])


def altered(new_janus) -> Any:
    model = new_janus()
    with torch.no_grad():
        model.core.language_model.norm.weight[0] += 1e-3
    return model


@pytest.mark.parametrize("half_way", [False, True])
def test_other_weights_recipes_or_judges_are_refused(janus: Any, new_janus, tmp_path: Path, half_way: bool) -> None:
    pool = new_pool(tmp_path / "pool", janus)

    def kill(images: int) -> None:
        if half_way:
            raise Killed

    try:
        run_round(janus, PROMPTS, JUDGES, pool, 0, PLAN, progress=kill)
    except Killed:
        assert half_way
    with pytest.raises(ValueError, match=r"other weights|weights.* was"):
        collect(pool, altered(new_janus))
    for plan in (RoundPlan(3, seed=3), RoundPlan(2, seed=4), RoundPlan(2, SamplingRecipe(cfg=2.0), seed=3)):
        with pytest.raises(ValueError, match="another recipe"):
            collect(pool, janus, plan=plan)
    with pytest.raises(ValueError, match="another recipe"):
        run_round(janus, PROMPTS, (InvertedJudge(SelfJudge()),), pool, 0, PLAN)
    for prompts in (PROMPTS[1:], PROMPTS[:-1]):
        with pytest.raises(ValueError, match=r"other prompts|not among the prompts asked"):
            collect(pool, janus, prompts)
    assert collect(pool, janus) == 0  # those asked with other prompts were drawn before they were refused
    assert pool.rounds == (0,)


# Images that go where they are needed

COIN = (RandomJudge(0.3), OracleJudge())
NEEDED = UntilAccepted(enough=1, wave=1, most=6)
BUDGET = RoundPlan(candidates=3, images_per_batch=2, seed=3)


def spend(pool: Pool, model: Any, plan: RoundPlan = BUDGET, **options: Any) -> int:
    """Draws round 0 until each prompt has an accepted image, as far as the budget goes; the images that were drawn."""
    drawn: list[int] = []
    given = {"progress": drawn.append, "allocation": NEEDED, **options}
    run_round(model, PROMPTS, COIN, pool, 0, plan, **given)
    return sum(drawn)


@pytest.fixture(scope="module")
def spent(janus: Any, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """The same round drawn by one process without interruption."""
    pool = new_pool(tmp_path_factory.mktemp("spent") / "pool", janus)
    spend(pool, janus)
    return pool


def test_images_go_to_the_prompts_that_have_none(spent: Pool, janus: Any) -> None:
    accepted = {j.candidate_id: j.logit >= 0 for j in spent.judgments("random")}
    by_prompt = {p.id: [c for c in spent.candidates() if c.prompt == p] for p in PROMPTS}
    numbers = [len(row) for row in by_prompt.values()]
    assert min(numbers) == 1 < max(numbers) and sum(numbers) <= 15
    for row in by_prompt.values():
        assert [c.index for c in row] == list(range(len(row)))
        assert not any(accepted[c.id] for c in row[:-1]), "nothing is drawn after the first that is accepted"
        assert accepted[row[-1].id] or len(row) == 6 or sum(numbers) == 15
    fixed = next(sample_candidates(janus, PROMPTS, 6, 0, 3, SamplingRecipe())).candidates
    codes = {c.id: c.drawing.tolist() for c in fixed}
    assert all(c.drawing.tolist() == codes[c.id] for c in spent.candidates()), "a candidate depends on its number alone"
    assert spent.recipe(0)["allocation"]["enough"] == 1


@pytest.mark.parametrize("world", [2, 3])
def test_several_ranks_spend_what_one_spends(spent: Pool, janus: Any, new_janus, tmp_path: Path, world: int) -> None:
    folder = new_pool(tmp_path / "pool", janus).folder
    models = [new_janus() for _ in range(world)]
    run_ranks(world, lambda ranks: spend(Pool.open(folder), models[ranks.rank], ranks=ranks) and None)
    check_same(Pool.open(folder), spent)


@pytest.mark.parametrize("batches", [1, 3, 5])
def test_a_killed_round_spends_the_rest_as_it_would_have(
    spent: Pool, janus: Any, new_janus, tmp_path: Path, batches: int
) -> None:
    pool = new_pool(tmp_path / "pool", janus)
    seen: list[int] = []

    def kill(images: int) -> None:
        seen.append(images)
        if len(seen) == batches:
            raise Killed

    with pytest.raises(Killed):
        spend(pool, janus, progress=kill)
    assert pool.verify() == [] and pool.rounds == ()
    left = [0, 0]

    def go_on(ranks: Ranks) -> None:
        left[ranks.rank] = spend(Pool.open(pool.folder), models[ranks.rank], ranks=ranks)

    models = [new_janus() for _ in left]
    run_ranks(2, go_on)
    assert sum(left) + sum(seen) == len(spent.candidates())
    check_same(Pool.open(pool.folder), spent)


def test_a_wave_larger_than_the_budget_is_refused_before_anything_is_begun(janus: Any, tmp_path: Path) -> None:
    pool = new_pool(tmp_path / "pool", janus)
    with pytest.raises(ValueError, match="waves of 4 do not fit a budget of 3 candidates a prompt; lower"):
        spend(pool, janus, allocation=UntilAccepted(wave=4))
    assert not list(pool.folder.glob("round-*"))


def test_another_allocation_or_threshold_is_another_recipe(janus: Any, tmp_path: Path) -> None:
    pool = new_pool(tmp_path / "pool", janus)
    spend(pool, janus)
    for options in ({"allocation": FixedCandidates()}, {"allocation": UntilAccepted(2)}, {"threshold": 0.6}):
        with pytest.raises(ValueError, match="another recipe"):
            spend(pool, janus, **options)
    assert spend(pool, janus) == 0


def test_a_judge_named_twice_speaks_once(janus: Any) -> None:
    sampled = next(sample_candidates(janus, PROMPTS[:2], 1, 0, 0, SamplingRecipe()))
    said = judge_samples(janus, sampled, (OracleJudge(), RandomJudge(), OracleJudge()))
    assert [(j.candidate_id, j.judge) for j in said] == [
        ("p0@0.0", "oracle"), ("p1@0.0", "oracle"), ("p0@0.0", "random"), ("p1@0.0", "random")
    ]  # fmt: skip


def test_likelihoods_are_those_seen_while_drawing(whole: Pool, janus: Any) -> None:
    candidates = whole.candidates()
    for size in (1, 3, 256):
        found = image_likelihoods(janus, candidates, batch_size=size)
        assert list(found) == [c.id for c in candidates]
        assert list(found.values()) == pytest.approx([c.logp for c in candidates], abs=1e-4)
    assert image_likelihoods(janus, []) == {}


def test_likelihoods_ignore_dropout_and_leave_the_mode(whole: Pool, new_janus) -> None:
    model = new_janus(lora_rank=2, lora_dropout=0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.fill_(0.1)
    expected = image_likelihoods(model.eval(), whole.candidates())
    model.train()
    assert image_likelihoods(model, whole.candidates()) == expected
    assert model.training and model.trunk.training


@pytest.mark.parametrize("field", ["candidates", "images_per_batch"])
def test_an_empty_plan_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be >= 1, got 0"):
        RoundPlan(**{field: 0})
