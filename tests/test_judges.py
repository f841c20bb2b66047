"""The model as its own judge, the oracle, and the judges that are wrong on purpose."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import expect_error, improve
from torch import nn

import unigap.judges
from unigap.__main__ import main
from unigap.judges import (
    AlwaysYesJudge,
    DecomposedJudge,
    EnsembleJudge,
    FlippedJudge,
    GrammarQuestions,
    InvertedJudge,
    Judge,
    OracleJudge,
    Question,
    RandomJudge,
    SelfJudge,
    answer_mass,
    judge_recipes,
)
from unigap.judges.questions import all_hold, mean_holds
from unigap.loop.plan import RoundPlan
from unigap.loop.round import run_round
from unigap.models.janus import Janus
from unigap.pool import Pool
from unigap.records import Candidate, Prompt
from unigap.worlds.shapes import prompt_sets
from unigap.worlds.shapes.grammar import parse
from unigap.worlds.shapes.scenes import describes, imagine, render

TEXTS = ["a red circle", "a small red circle left of a large blue square", "six rings", "two blue squares", "a ring"]


def candidates(texts: list[str]) -> list[Candidate]:
    codes = np.zeros(16, dtype=np.int32)
    return [Candidate(Prompt(f"p{i}", text), 0, 0, 0, codes, -1.0) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """A render of each text."""
    rng = random.Random(0)
    return torch.stack([render(imagine(parse(text), rng)) for text in TEXTS])


def test_the_model_is_asked_the_papers_question(janus: Any, pictures: torch.Tensor) -> None:
    expected = janus.judge_logit(pictures, [[f"Does this image describe {text}?"] for text in TEXTS])[:, 0]
    found = SelfJudge().logits(janus, candidates(TEXTS), pictures)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=0)
    assert found.shape == (5,) and found.dtype == torch.float32 and not found.requires_grad
    assert SelfJudge().name == "self"


def test_several_phrasings_are_averaged(janus: Any, pictures: torch.Tensor) -> None:
    questions = ("Is this {prompt}?", "does this image show {prompt}?", "{prompt}? is it {prompt}?")
    singles = [SelfJudge([question]).ask(janus, TEXTS, pictures) for question in questions]
    together = SelfJudge(questions).ask(janus, TEXTS, pictures)
    torch.testing.assert_close(together, torch.stack(singles).mean(0), atol=1e-5, rtol=0)
    last = janus.judge_logit(pictures[:1], [["a red circle? is it a red circle?"]])[0, 0]
    torch.testing.assert_close(singles[2][0], last.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_the_size_of_a_batch_changes_no_verdict(janus: Any, pictures: torch.Tensor, size: int) -> None:
    expected = SelfJudge().ask(janus, TEXTS, pictures)
    torch.testing.assert_close(SelfJudge(batch_size=size).ask(janus, TEXTS, pictures), expected, atol=1e-5, rtol=0)


def test_nothing_to_judge(janus: Any) -> None:
    nothing = torch.zeros(0, 3, 32, 32)
    own = SelfJudge()
    plain = (own, OracleJudge(), RandomJudge(), AlwaysYesJudge(), DecomposedJudge(GrammarQuestions()))
    for judge in (*plain, InvertedJudge(own), FlippedJudge(own), EnsembleJudge(plain)):
        assert judge.logits(janus, [], nothing).shape == (0,)


def test_judging_ignores_dropout_and_leaves_the_mode(new_janus, pictures: torch.Tensor) -> None:
    model = new_janus(lora_rank=2, lora_dropout=0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.fill_(0.1)
    for judge in (SelfJudge(), DecomposedJudge(GrammarQuestions())):
        expected = judge.logits(model.eval(), candidates(TEXTS), pictures)
        model.train()
        assert torch.equal(judge.logits(model, candidates(TEXTS), pictures), expected)
        assert model.training and model.trunk.training


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"questions": ()}, "at least one question"),
        ({"questions": ("Is it good?",)}, r"no \{prompt\}"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
    ],
)
def test_a_self_judge_without_a_question_is_refused(options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SelfJudge(**options)


def test_the_oracle_knows(janus: Any, pictures: torch.Tensor) -> None:
    right = OracleJudge().logits(janus, candidates(TEXTS), pictures)
    wrong = OracleJudge().logits(janus, candidates(TEXTS[1:] + TEXTS[:1]), pictures)
    assert (right > 0).all() and (wrong < 0).all() and torch.isfinite(right).all()
    assert OracleJudge().name == "oracle"


def test_the_oracle_does_not_guess_at_what_it_cannot_read(janus: Any, pictures: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="no word 'unicorn'"):
        OracleJudge().logits(janus, candidates(["a unicorn"]), pictures[:1])


def test_the_inverted_judge_says_the_opposite(janus: Any, pictures: torch.Tensor) -> None:
    for judge in (SelfJudge(), OracleJudge(), RandomJudge()):
        said = judge.logits(janus, candidates(TEXTS), pictures)
        inverted = InvertedJudge(judge)
        assert torch.equal(inverted.logits(janus, candidates(TEXTS), pictures), -said)
        assert torch.equal(InvertedJudge(inverted).logits(janus, candidates(TEXTS), pictures), said)
        assert inverted.name == f"inverted-{judge.name}"


@pytest.mark.parametrize("yes_rate", [0.1, 0.5, 0.8])
def test_the_random_judge_accepts_its_share(janus: Any, yes_rate: float) -> None:
    many = candidates(["a ring"] * 4000)
    nothing = torch.zeros(4000, 0)
    said = RandomJudge(yes_rate).logits(janus, many, nothing)
    assert torch.isfinite(said).all() and said.dtype == torch.float32
    # four standard errors
    assert abs((said > 0).float().mean().item() - yes_rate) < 4 * (yes_rate * (1 - yes_rate) / 4000) ** 0.5
    assert said.unique().numel() > 3900


def test_the_random_judge_knows_a_candidate_again_and_looks_at_nothing_else(janus: Any) -> None:
    many = candidates(["a ring"] * 300)
    said = RandomJudge().logits(janus, many, torch.zeros(300, 0))
    assert torch.equal(RandomJudge().logits(janus, many[::-1], torch.ones(300, 0)).flip(0), said)
    assert torch.equal(RandomJudge().logits(janus, many[7:9], torch.ones(2, 0)), said[7:9])
    other = RandomJudge(seed=1).logits(janus, many, torch.zeros(300, 0))
    assert 0.35 < ((other > 0) == (said > 0)).float().mean() < 0.65


@pytest.mark.parametrize("yes_rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_coin_that_always_falls_the_same_way_is_refused(yes_rate: float) -> None:
    with pytest.raises(ValueError, match="yes_rate must be in"):
        RandomJudge(yes_rate)


def test_the_collapsed_judge_accepts_everything(janus: Any, pictures: torch.Tensor) -> None:
    said = AlwaysYesJudge().logits(janus, candidates(TEXTS), pictures)
    assert said.shape == (5,) and said.dtype == torch.float32 and (said > 0).all() and torch.isfinite(said).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_flipped_judge_turns_its_share_of_verdicts_round(janus: Any, share: float) -> None:
    many, nothing = candidates(["a ring"] * 4000), torch.zeros(4000, 0)
    plain, flipped = RandomJudge(), FlippedJudge(RandomJudge(), share)
    before, after = plain.logits(janus, many, nothing), flipped.logits(janus, many, nothing)
    turned = before != after
    assert torch.equal(after[turned], -before[turned])
    # four standard errors; and the coin is none of the random judge's
    for said in (turned, turned[before > 0]):
        assert abs(said.float().mean().item() - share) < 4 * (share * (1 - share) / len(said)) ** 0.5
    assert torch.equal(flipped.logits(janus, many[::-1], nothing).flip(0), after), "known again in any batch"
    other = FlippedJudge(RandomJudge(), share, seed=1).logits(janus, many, nothing)
    assert not torch.equal(other, after)
    assert flipped.name == f"flipped-{share}-random"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_flips_nothing_or_everything_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share must be in"):
        FlippedJudge(SelfJudge(), share)


# One question about each part


def asked(text: str) -> list[str]:
    return [question.text for question in GrammarQuestions().questions(Prompt("p", text))]


def test_a_prompt_falls_into_itself_and_what_follows_from_it() -> None:
    assert asked("a small red circle left of a blue square") == [
        f"Does this image describe {text}?"
        for text in (
            "a small red circle left of a blue square",
            "a small circle left of a blue square",
            "a red circle left of a blue square",
            "a small red circle left of a square",
            "a blue square right of a small red circle",
        )
    ]
    assert asked("three rings") == ["Does this image describe three rings?"]
    with pytest.raises(ValueError, match="no word 'unicorn'"):
        asked("a unicorn")


def test_what_is_asked_is_true_of_every_picture_of_the_prompt() -> None:
    rng = random.Random(0)
    for prompt in prompt_sets.prompts("test", per_cell=12):
        scene, questions = imagine(parse(prompt.text), rng), asked(prompt.text)
        claims = [parse(re.fullmatch(r"Does this image describe (.*)\?", question)[1]) for question in questions]  # type: ignore[index]
        assert all(describes(claim, scene) for claim in claims), prompt.text
        named = sum(bool(value) for _, thing in parse(prompt.text).groups for value in (thing.color, thing.size))
        assert len(set(questions)) == len(questions)
        # one a named attribute and one for the relation; two objects of a kind share their questions
        assert 1 + named + (" of " in prompt.text or "ab" in prompt.text or "be" in prompt.text) >= len(questions) > 0


def test_the_least_sure_answer_is_that_of_the_whole(janus: Any, pictures: torch.Tensor) -> None:
    said = DecomposedJudge(GrammarQuestions()).logits(janus, candidates(TEXTS), pictures)
    for i, text in enumerate(TEXTS):
        alone = [janus.judge_logit(pictures[i : i + 1], [[question]])[0, 0].item() for question in asked(text)]
        assert said[i].item() == pytest.approx(min(alone), abs=1e-5), text
    assert said.dtype == torch.float32 and not said.requires_grad
    single = SelfJudge().ask(janus, TEXTS, pictures)
    assert (said <= single + 1e-5).all() and (said < single - 1e-3).any(), "never more lenient than the single question"
    assert DecomposedJudge(GrammarQuestions()).name == "decomposed"
    for size in (1, 2, 4):
        smaller = DecomposedJudge(GrammarQuestions(), batch_size=size).logits(janus, candidates(TEXTS), pictures)
        torch.testing.assert_close(smaller, said, atol=1e-5, rtol=0)


def test_the_share_of_the_parts_is_a_graded_reward(janus: Any, pictures: torch.Tensor) -> None:
    judge = DecomposedJudge(GrammarQuestions(), combine="share")
    said = judge.logits(janus, candidates(TEXTS), pictures)
    for i, prompt in enumerate(candidates(TEXTS)):
        parts = GrammarQuestions().questions(prompt.prompt)
        logits = janus.judge_logit(pictures[i : i + 1], [[part.text for part in parts]])[0].tolist()
        assert said[i].sigmoid().item() == pytest.approx(mean_holds(parts, logits), abs=1e-5)
    assert judge.name == judge.recipe["name"] == "decomposed-share"
    with pytest.raises(ValueError, match="unknown combine 'most'"):
        DecomposedJudge(GrammarQuestions(), combine="most")  # type: ignore[arg-type]


def questions(**parents: str) -> list[Question]:
    return [Question(name, f"{name}?", tuple(needed)) for name, needed in parents.items()]


def test_a_child_of_a_no_does_not_count() -> None:
    tree = questions(a="", b="a", c="b", d="")
    assert all_hold(tree, [2, 3, 1, 4]) == 1, "all yes: the least sure"
    assert all_hold(tree, [2, 3, 1, -4]) == -4
    assert all_hold(tree, [-1, 3, -9, 4]) == -1, "what depends on it, at any remove, means nothing"
    assert all_hold(tree, [-1, -9, 3, -2]) == -2
    assert all_hold(tree, [1, -3, -9, 2]) == -3
    assert mean_holds(tree, [0, 0, 0, 0]) == 0.5
    assert mean_holds(tree, [-1000, 9, 9, 1000]) == pytest.approx(1 / 4), "children of a no count 0"


@given(st.lists(st.tuples(st.floats(-9, 9), st.sets(st.integers(0, 5))), min_size=1, max_size=6))
def test_all_must_hold(rows: list[tuple[float, set[int]]]) -> None:
    tree = [
        Question(str(i), "?", tuple(str(parent) for parent in parents if parent < i))
        for i, (_, parents) in enumerate(rows)
    ]
    logits = [logit for logit, _ in rows]
    assert (all_hold(tree, logits) >= 0) == all(logit >= 0 for logit in logits), "the verdict needs no dependencies"
    assert min(logits) <= all_hold(tree, logits) <= max(logits)


# Several judges


class Fixed(Judge):
    """Says what it is told to."""

    def __init__(self, said: list[float]) -> None:
        self.said = said

    @property
    def name(self) -> str:
        return "fixed"

    def logits(self, model: Any, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.said)


@pytest.mark.parametrize(
    ("rule", "expected"), [("mean", [2.0, -2.0, 0.5]), ("min", [-1.0, -6.0, -2.0]), ("majority", [3.0, 0.0, 0.5])]
)
def test_an_ensemble_follows_its_rule(janus: Any, rule: Any, expected: list[float]) -> None:
    judges = [Fixed([4.0, 0.0, 3.0]), Fixed([-1.0, 0.0, -2.0]), Fixed([3.0, -6.0, 0.5])]
    three = EnsembleJudge(judges, rule).logits(janus, candidates(TEXTS[:3]), torch.zeros(3, 0))
    torch.testing.assert_close(three, torch.tensor(expected))
    assert EnsembleJudge([OracleJudge(), SelfJudge()], rule).name == f"{rule}-oracle+self"


def test_the_majority_of_an_even_number_is_that_of_the_firmer(janus: Any) -> None:
    judges = [Fixed([9.0, -9.0]), Fixed([1.0, 2.0]), Fixed([-2.0, -1.0]), Fixed([-3.0, 5.0])]
    said = EnsembleJudge(judges, "majority").logits(janus, candidates(TEXTS[:2]), torch.zeros(2, 0))
    assert said.tolist() == [-0.5, 0.5]


def test_an_ensemble_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="two judges or more, got 1"):
        EnsembleJudge([SelfJudge()])
    with pytest.raises(ValueError, match="unknown rule 'max'"):
        EnsembleJudge([SelfJudge(), OracleJudge()], "max")  # type: ignore[arg-type]


# What a pool remembers of a judge


def test_a_recipe_holds_what_the_verdicts_depend_on() -> None:
    assert RandomJudge(seed=1).recipe == {"name": "random", "yes_rate": 0.5, "seed": 1}
    assert SelfJudge(batch_size=2).recipe == SelfJudge().recipe, "how fast it is does not matter"
    flipped = FlippedJudge(InvertedJudge(SelfJudge(["{prompt}?"])), 0.2).recipe
    inner = {"name": "inverted-self", "judge": {"name": "self", "questions": ["{prompt}?"]}}
    assert flipped == {"name": "flipped-0.2-inverted-self", "judge": inner, "share": 0.2, "seed": 0}
    assert DecomposedJudge(GrammarQuestions()).recipe == {"name": "decomposed", "questions": {"name": "grammar"}}
    ensemble = EnsembleJudge([OracleJudge(), RandomJudge()], "min").recipe
    assert ensemble["rule"] == "min" and ensemble["judges"] == [OracleJudge().recipe, RandomJudge().recipe]
    json.dumps([flipped, ensemble])


def test_a_judge_that_hides_an_argument_is_refused() -> None:
    class Secretive(Fixed):
        def __init__(self, bias: float) -> None:
            super().__init__([bias])

    with pytest.raises(ValueError, match="Secretive must keep its argument 'bias' in an attribute of that name"):
        _ = Secretive(1.0).recipe


def test_two_judges_of_one_name_are_refused() -> None:
    assert judge_recipes([OracleJudge(), SelfJudge(), OracleJudge()]) == [OracleJudge().recipe, SelfJudge().recipe]
    with pytest.raises(ValueError, match="two judges are named 'random' and differ"):
        judge_recipes([RandomJudge(), RandomJudge(seed=1)])


def test_verdicts_of_another_coin_are_not_trained_on(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = "model.init_args.judge"
    flags = {judge: "unigap.judges.RandomJudge", "data.pool": "pool", "trainer.max_epochs": 1}
    assert improve(janus_folder, "sft", flags) == 0
    capsys.readouterr()
    other = {**flags, "run": "runs/other", f"{judge}.init_args.seed": 1}
    expect_error(improve(janus_folder, "sft", other), capsys, "round 0 of pool pool", "another 'random'", "seed differ")
    assert Pool.open("pool").recipe(0)["judges"][0] == RandomJudge().recipe


def test_the_model_selects_by_parts(janus_folder: Path, here: Path) -> None:
    flags = {
        "model.init_args.judge": "unigap.judges.EnsembleJudge",
        "model.init_args.judge.init_args.judges": "[{class_path: unigap.judges.DecomposedJudge, "
        "init_args: {questions: unigap.judges.GrammarQuestions}}, "
        "{class_path: unigap.judges.RandomJudge, init_args: {yes_rate: 0.9}}]",
        "model.init_args.judge.init_args.rule": "mean",
        "trainer.max_epochs": 1,
    }
    assert improve(janus_folder, "sft", flags) == 0
    pool = Pool.open("runs/sft/pool")
    assert {judgment.judge for judgment in pool.judgments()} == {"mean-decomposed+random", "oracle"}
    assert pool.recipe(0)["judges"][0]["judges"][1] == {"name": "random", "yes_rate": 0.9, "seed": 0}


# The documentation


def test_the_documentation_says_what_each_judge_is_for() -> None:
    page = (Path(__file__).parents[1] / "docs" / "judges.md").read_text()
    table = page.partition("| judge | verdict | use it as |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+Judge)`", table))
    general = {name for name in unigap.judges.__all__ if name.endswith("Judge") and name != "Judge"}
    assert named == general | {OracleJudge.__name__}


class OneWord(nn.Module):
    """A head that gives one word a lead over all others."""

    def __init__(self, head: nn.Linear, word: int, lead: float) -> None:
        super().__init__()
        self.head, self.word, self.lead = head, word, lead

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self.head(hidden)
        return logits + self.lead * nn.functional.one_hot(torch.tensor(self.word), logits.shape[-1])


def answering(new_janus: Callable[..., Janus], lead: float) -> Janus:
    """A Janus that would rather begin its answer with ``a``."""
    model = new_janus()
    word = model.processor.tokenizer.convert_tokens_to_ids("a")
    model._understanding._head = OneWord(model.net.lm_head, word, lead)
    return model


def test_the_mass_of_yes_and_no_is_measured(new_janus: Callable[..., Janus], pictures: torch.Tensor) -> None:
    model = answering(new_janus, 0.0)
    asked = [[f"Does this image describe {text}?"] for text in TEXTS]
    found = model.judge_answers(pictures, asked)
    assert torch.equal(found.logit, model.judge_logit(pictures, asked))
    yes_BQT, _ = model.text_logps(pictures, asked, [["yes"]] * len(TEXTS))
    no_BQT, _ = model.text_logps(pictures, asked, [["no"]] * len(TEXTS))
    torch.testing.assert_close(found.mass, (yes_BQT[..., 0].exp() + no_BQT[..., 0].exp()), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("judge", [SelfJudge(), DecomposedJudge(GrammarQuestions())])
def test_a_judge_that_says_neither_yes_nor_no_is_refused(
    new_janus: Callable[..., Janus], pictures: torch.Tensor, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_mass._warn.cache_clear()
    drawn, rarely = candidates(TEXTS), answering(new_janus, 12.0)
    for _ in range(2):
        judge.logits(rarely, drawn, pictures)
    told = capsys.readouterr().err
    assert told.count(f"warning: judge '{judge.name}' answers yes or no with a probability below 0.1%") == 1
    with pytest.raises(ValueError, match=f"judge '{judge.name}' answers neither yes nor no .*; ask another question"):
        judge.logits(answering(new_janus, 40.0), drawn, pictures)


def test_masses_are_stored_beside_verdicts(janus: Janus, here: Path) -> None:
    pool = Pool.create("pool", janus.drawing_digest())
    prompts = [Prompt(f"p{i}", text) for i, text in enumerate(TEXTS)]
    run_round(janus, prompts, [SelfJudge(), OracleJudge()], pool, 0, RoundPlan(candidates=2))
    said = pool.judgments("self")
    drawn = {candidate.id: candidate for candidate in pool.candidates()}
    codes_BM = torch.from_numpy(np.stack([drawn[judgment.candidate_id].drawing for judgment in said])).long()
    asked = [[f"Does this image describe {drawn[judgment.candidate_id].prompt.text}?"] for judgment in said]
    expected = janus.judge_answers(janus.decode(codes_BM), asked).mass[:, 0]
    torch.testing.assert_close(torch.tensor([judgment.mass for judgment in said]), expected, atol=1e-5, rtol=1e-3)
    assert {judgment.mass for judgment in pool.judgments("oracle")} == {None}


def test_agreement_shows_how_much_a_judge_means_yes_or_no(
    janus: Janus, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test_masses_are_stored_beside_verdicts(janus, here)
    mean = np.mean([judgment.mass for judgment in Pool.open("pool").judgments("self")])
    assert main(["judge", "agreement", "pool"]) == 0
    shown = capsys.readouterr().out
    assert "P(yes or no), in %" in shown and f"{100 * mean:.3g}" in shown
