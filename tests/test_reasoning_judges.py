"""Judges that explain before they answer, ask several weighted questions, or mix others: each number by hand."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_stub import MODEL, ChatStub, logit_of
from small_runs import expect_error, improve
from small_vqa import save_clip, save_llava
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel, CLIPProcessor

from unigap.files.images import to_image
from unigap.judges import (
    ClipScoreJudge,
    CritiqueJudge,
    Judge,
    MixtureJudge,
    OpenAIJudge,
    PhrasingsJudge,
    RubricJudge,
    SelfJudge,
    VQAJudge,
)
from unigap.judges.asked import Writing
from unigap.judges.critique import INSTRUCTION, QUESTION
from unigap.models.engine.image_reader import GumbelNoise
from unigap.records import Candidate, Prompt

TEXTS = ["a red circle", "six rings", "two blue squares"]


@pytest.fixture
def stub(here: Path) -> Iterator[ChatStub]:
    """A server with log-probabilities, and an empty working directory."""
    with ChatStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model that answers questions about images."""
    folder = tmp_path_factory.mktemp("reasoning") / "small-llava"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_llava(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random CLIP."""
    folder = tmp_path_factory.mktemp("reasoning") / "small-clip"
    with torch.random.fork_rng():
        torch.manual_seed(2)  # gives cosines above and below 0
        save_clip(folder)
    return folder


def candidates(texts: Sequence[str] = TEXTS) -> list[Candidate]:
    codes = np.zeros(16, dtype=np.int32)
    return [Candidate(Prompt(f"p{i}", text), 0, 0, 0, codes, -1.0) for i, text in enumerate(texts)]


def pictures(n: int = len(TEXTS)) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def p_yes(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# Explanations


@pytest.mark.parametrize("explanations", [1, 3])
def test_the_verdict_comes_after_the_explanation(stub: ChatStub, explanations: int, janus: Any) -> None:
    judge = CritiqueJudge(OpenAIJudge(stub.url, MODEL), explanations=explanations)
    found = judge.answers(janus, candidates(), pictures())
    for text, pixels_CHW, logit in zip(TEXTS, pictures(), found.logit.tolist(), strict=True):
        image, request, question = to_image(pixels_CHW), *(t.replace("{prompt}", text) for t in (INSTRUCTION, QUESTION))
        about = logit_of(image, request)
        said = [f"Brightness {about:.2f}, seed {seed}." for seed in range(explanations)]
        mean = sum(p_yes(logit_of(image, f"{request} {words} {question}")) for words in said) / explanations
        assert logit == pytest.approx(math.log(mean / (1 - mean)), abs=1e-4)
    temperatures = {body["temperature"] for body in stub.received if body["max_tokens"] == 256}
    assert temperatures == ({0.0} if explanations == 1 else {0.7})
    assert judge.name == ("critique-" if explanations == 1 else "critique-of-3-") + "served-judge-7b"
    assert found.mass.tolist() == pytest.approx([0.9] * len(TEXTS))
    assert judge.logits(janus, [], pictures()[:0]).shape == (0,)


def test_a_model_in_this_process_explains_too(llava: Path, janus: Any) -> None:
    judge = VQAJudge(str(llava))
    asked = ["Does this show a ring ?"] * 3
    how = Writing(samples=2, temperature=1.0, max_tokens=6)
    texts = judge.explain(janus, asked, pictures(), how)
    assert [len(row) for row in texts] == [2, 2, 2] and len({text for row in texts for text in row}) > 3
    judge.batch_size = 1
    assert judge.explain(janus, asked, pictures(), how) == texts, "a text depends on its own seed, not on the batch"
    greedy = judge.explain(janus, asked, pictures(), Writing(1, 0.0, 6))
    net, processor = AutoModelForImageTextToText.from_pretrained(llava), AutoProcessor.from_pretrained(llava)
    chat = f"<s>user: <image>{asked[0]} assistant:"
    seen = processor(text=chat, images=to_image(pictures()[0]), add_special_tokens=False, return_tensors="pt")
    ids = net.generate(**seen, do_sample=False, max_new_tokens=6)[0, seen["input_ids"].shape[1] :]
    assert greedy[0] == [processor.tokenizer.decode(ids, skip_special_tokens=True).strip()]
    # the verdict: a plain forward pass over the whole chat
    after = judge.ask_after(janus, [[(asked[0], "a red ring", "Please answer yes or no .")]], pictures()[:1])
    chat = f"<s>user: <image>{asked[0]}user: a red ringuser: Please answer yes or no . assistant:"
    seen = processor(text=chat, images=to_image(pictures()[0]), add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        logp_V = net(**seen).logits[0, -1].log_softmax(-1)
    yes, no = (processor.tokenizer.convert_tokens_to_ids(forms) for forms in (["Yes", "yes"], ["No", "no"]))
    expected = logp_V[yes].logsumexp(0) - logp_V[no].logsumexp(0)
    assert after.logit.item() == pytest.approx(expected.item(), abs=1e-4)
    whole = CritiqueJudge(judge, explanations=3).answers(janus, candidates(), pictures())
    assert whole.logit.shape == (3,) and torch.isfinite(whole.logit).all() and whole.logit.unique().numel() == 3


def test_gumbel_noise_makes_greedy_search_sample() -> None:
    logit_V, n = torch.tensor([2.0, 0.0, 1.0, -1.0]), 4000
    noisy = GumbelNoise(range(n), temperature=2.0)(torch.zeros(n, 1), logit_V.expand(n, -1))
    share = Counter(noisy.argmax(1).tolist())
    for token, p in enumerate((logit_V / 2).softmax(0).tolist()):
        assert abs(share[token] / n - p) < 4 * (p * (1 - p) / n) ** 0.5


def test_the_model_under_training_writes_no_text(
    janus_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {
        "model.init_args.judge": "unigap.judges.CritiqueJudge",
        "model.init_args.judge.init_args.judge": "unigap.judges.SelfJudge",
    }
    expect_error(improve(janus_folder, "sft", flags), capsys, "SelfJudge", "ExplainingJudge")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"instruction": "Explain."}, "instruction 'Explain.' has no"),
        ({"question": "Yes?"}, "question 'Yes.' has no"),
        ({"explanations": 0}, "explanations and max_tokens must be >= 1"),
        ({"max_tokens": 0}, "explanations and max_tokens must be >= 1"),
        ({"temperature": 0.0}, "temperature must be > 0"),
    ],
)
def test_a_critique_that_cannot_be_asked_is_refused(llava: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        CritiqueJudge(VQAJudge(str(llava)), **options)


# Several questions


RUBRIC = (
    ("Does this image describe {prompt}?", 2.0),
    ("Is it a circle?", -0.5),
    ("Does this image describe a ring?", 1),
)


def rubric(path: str, rows: Sequence[tuple[str, object]] = RUBRIC) -> str:
    if path.endswith(".csv"):
        text = "question,weight\n" + "".join(f'"{question}",{weight}\n' for question, weight in rows)
    else:
        text = "".join(json.dumps({"question": q, "weight": w}) + "\n" for q, w in rows)
    Path(path).write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", ["own.csv", "own.jsonl"])
def test_a_rubric_is_a_weighted_mean_of_log_odds(here: Path, janus: Any, path: str) -> None:
    judge = RubricJudge(rubric(path), SelfJudge())
    found = judge.answers(janus, candidates(), pictures())
    texts = [[question.replace("{prompt}", text) for question, _ in RUBRIC] for text in TEXTS]
    logit_BQ = janus.judge_logit(pictures(), texts).detach()
    expected = (2 * logit_BQ[:, 0] - 0.5 * logit_BQ[:, 1] + logit_BQ[:, 2]) / 3.5
    torch.testing.assert_close(found.logit, expected, atol=1e-5, rtol=0)
    assert judge.name == "rubric-own-self" and "sha256" in judge.recipe["path"]
    assert judge.logits(janus, [], pictures()[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("good?", 1)], r"no question has a \{prompt\}"),
        ([("{prompt}?", 0)], "line 1: 'weight' must be a number other than 0, got '0'"),
        ([("{prompt}?", True)], "'weight' must be a number"),
        ([("{prompt}?", "much")], "'weight' must be a number other than 0, got 'much'"),
        ([("{prompt}?", None)], "'weight' must be a number"),
        ([("", 1)], "'question' must be a non-empty string"),
        ([("{prompt}?", 1), ("{prompt}?", 2)], "line 2: the question occurs twice"),
        ([], r"no question has a \{prompt\}"),
    ],
)
def test_a_rubric_that_asks_nothing_is_refused(here: Path, rows: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RubricJudge(rubric("own.jsonl", rows), SelfJudge())


def test_phrasings_are_combined_by_a_rule(here: Path, janus: Any, stub: ChatStub) -> None:
    questions = ["Is this {prompt}?", "does this image show {prompt}?", "{prompt}? is it {prompt}?"]
    mean = PhrasingsJudge(SelfJudge(), questions, "mean").logits(janus, candidates(), pictures())
    torch.testing.assert_close(mean, SelfJudge(questions).ask(janus, TEXTS, pictures()), atol=1e-5, rtol=0)
    served = OpenAIJudge(stub.url, MODEL)
    most = PhrasingsJudge(served, questions)
    found = most.logits(janus, candidates(), pictures())
    for text, pixels_CHW, logit in zip(TEXTS, pictures(), found.tolist(), strict=True):
        each = sorted(logit_of(to_image(pixels_CHW), question.replace("{prompt}", text)) for question in questions)
        assert logit == pytest.approx(each[1], abs=1e-4)
    assert most.name == "majority-of-3-phrasings-served-judge-7b"
    assert most.logits(janus, [], pictures()[:0]).shape == (0,)
    with pytest.raises(ValueError, match="two questions or more, got 1"):
        PhrasingsJudge(served, questions[:1])
    with pytest.raises(ValueError, match=r"no \{prompt\}"):
        PhrasingsJudge(served, ["{prompt}?", "good?"])


# Mixtures and CLIP


class Told(Judge):
    """Says what it is told to."""

    def __init__(self, said: list[float], named: str) -> None:
        self.said, self.named = said, named

    @property
    def name(self) -> str:
        return self.named

    def logits(self, model: Any, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.said)


def test_a_mixture_adds_up_standard_scores(here: Path, janus: Any) -> None:
    Path("s.json").write_text(
        json.dumps({"a": {"mean": 1.0, "std": 2.0, "n": 5}, "b": {"mean": 20.0, "std": 4.0, "n": 5}})
    )
    judges = [Told([1.0, 5.0, -3.0], "a"), Told([20.0, 16.0, 32.0], "b")]
    even = MixtureJudge(judges, "s.json").logits(janus, candidates(), pictures())
    assert even.tolist() == pytest.approx([0.0, (2 - 1) / 2, (-2 + 3) / 2])
    weighted = MixtureJudge(judges, "s.json", [3.0, -1.0])
    assert weighted.logits(janus, candidates(), pictures()).tolist() == pytest.approx([0.0, 7 / 4, -9 / 4])
    assert weighted.name == "mixture-a+b" and weighted.recipe["weights"] == [3.0, -1.0]
    for options, reason in (
        ({"judges": judges[:1]}, "two judges or more, got 1"),
        ({"weights": [1.0]}, "weights: 1 for 2 judges"),
        ({"weights": [1.0, 0.0]}, "weights must be numbers other than 0"),
        ({"judges": [judges[0], Told([], "c")]}, "no scale of 'c', only of a, b"),
        ({"scales": "none.json"}, "no such file"),
    ):
        with pytest.raises(ValueError, match=reason):
            MixtureJudge(**{"judges": judges, "scales": "s.json", **options})  # type: ignore[arg-type]
    row = {"mean": 0.0, "std": 1.0, "n": 2}
    for wrong in ([], {}, {"a": 1}, {"a": row | {"std": 0}}, {"a": {"mean": 0}}, {"a": row | {"mean": "x"}}):
        content = json.dumps(wrong)
        Path("t.json").write_text(content)
        with pytest.raises(ValueError, match=r"scales 't.json'"):
            MixtureJudge(judges, "t.json")


def test_clip_score_is_the_cosine_in_points_above_the_threshold(clip: Path, janus: Any) -> None:
    judge = ClipScoreJudge(str(clip), threshold=5.0)
    found = judge.logits(janus, candidates(), pictures())
    net, processor = CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip)
    images = [to_image(pixels_CHW) for pixels_CHW in pictures()]
    with torch.no_grad():
        out = net(**processor(text=TEXTS, images=images, return_tensors="pt", padding=True))
    cosine_B = torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds)
    torch.testing.assert_close(found, (100 * cosine_B).clamp(min=0) - 5, atol=1e-3, rtol=0)
    assert found[0] > found[1] > found[2] == -5 and judge.name == "clip-small-clip"
    assert judge.logits(janus, [], pictures()[:0]).shape == (0,)
    assert judge.recipe == {"name": "clip-small-clip", "checkpoint": str(clip), "threshold": 5.0}


def test_clip_refuses_what_is_no_clip(llava: Path, janus: Any) -> None:
    with pytest.raises(ValueError, match="is a 'llava' model, not 'clip'"):
        ClipScoreJudge(str(llava), 5.0).logits(janus, candidates(), pictures())
    with pytest.raises(ValueError, match="threshold must be a number"):
        ClipScoreJudge(str(llava), float("nan"))
    with pytest.raises(ValueError, match="no such folder"):
        ClipScoreJudge("./nowhere", 5.0)
