"""VILA-U: equal to its authors' code, and residual codes that are sampled, scored, stored and read in one order."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peak_bytes import PeakBytes
from small_runs import FICKLE, improve, state
from small_vila_u import CODES, DEPTH, POSITIONS, published_shape
from vila_u_official import ANSWERS, CFG, PROMPTS, QUESTIONS, SEEDS, TOP_K, TOP_P, images

from unigap.loop.sampling import stack_drawings
from unigap.models.base import SamplingRecipe
from unigap.models.vila_u import VilaU, likelihood
from unigap.models.vila_u.checkpoint import USUAL_CFG, published_name
from unigap.models.vila_u.image_tokenizer import ResidualQuantizer
from unigap.models.vila_u.network import VilaUNetwork
from unigap.pool import Pool
from unigap.records import DrawingFormat

OFFICIAL = Path(__file__).with_name("vila_u_official.npz")
PLACES = (0, 1, 2, 3, 16, 29, 45, 46, 47)
"""Some of the 48 codes of an image: every depth, first and last positions."""
CLOSE = {"atol": 1e-4, "rtol": 0.0}
RECIPE = SamplingRecipe(cfg=CFG, top_k=TOP_K, top_p=TOP_P)
Loader = Callable[..., VilaU]


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    """What the authors' code computes on the same weights (tests/models/vila_u_official.py)."""
    return {name: torch.from_numpy(array) for name, array in np.load(OFFICIAL).items()}


def codes(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(CODES, (count, POSITIONS, DEPTH), generator=torch.Generator().manual_seed(seed))


def every_code(model: VilaU, prompt: str, image_MD: torch.Tensor, recipe: SamplingRecipe | None = None) -> torch.Tensor:
    """Log-probability (places, V) of every code at some places, given the codes of an image before them."""
    found = []
    for place in PLACES:
        image_VI = image_MD.flatten().repeat(CODES, 1)
        image_VI[:, place] = torch.arange(CODES)
        logps = model.image_logps(model.encode_prompt([prompt]), image_VI.view(CODES, *image_MD.shape), recipe=recipe)
        found.append(logps[:, place].detach())
    return torch.stack(found)


# The authors' code


@pytest.mark.parametrize("index", range(2))
def test_the_logits_of_every_depth_are_those_of_the_authors_training_loss(
    vila_u: VilaU, official: dict, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, seen = official[f"trained_{index}_codes"], []
    score = likelihood.code_logps

    def seeing(head: Any, hidden: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
        seen.append(head(hidden).detach())
        return score(head, hidden, *given, **options)

    monkeypatch.setattr(likelihood, "code_logps", seeing)
    logps = vila_u.image_logps(vila_u.encode_prompt([PROMPTS[index]]), image[None]).detach()
    torch.testing.assert_close(seen[0].view(POSITIONS, DEPTH, CODES), official[f"trained_{index}_logits"], **CLOSE)
    expected = official[f"trained_{index}_logits"].log_softmax(-1).gather(-1, image[..., None])
    torch.testing.assert_close(logps.view(POSITIONS, DEPTH, 1), expected, **CLOSE)
    assert official[f"trained_{index}_logits"].std() > 0.3


def test_guided_logits_of_the_authors_sampling_loop_are_those_of_the_likelihood(vila_u: VilaU, official: dict) -> None:
    found = every_code(vila_u, PROMPTS[1], official["trained_0_codes"], SamplingRecipe(cfg=CFG))
    places = list(PLACES)
    torch.testing.assert_close(found, official["forced_logits"].log_softmax(-1).flatten(0, 1)[places], **CLOSE)
    filtered = every_code(vila_u, PROMPTS[1], official["trained_0_codes"], RECIPE)
    torch.testing.assert_close(filtered.exp(), official["forced_probs"].flatten(0, 1)[places], **CLOSE)
    kept = (official["forced_probs"] > 0).sum(-1)
    assert kept.max() <= TOP_K and kept.float().mean() < TOP_K - 1, "top_p removes codes too"


def test_images_are_sampled_as_by_the_authors_loop(vila_u: VilaU, official: dict) -> None:
    samples = vila_u.sample_images(vila_u.encode_prompt(PROMPTS), torch.tensor(SEEDS)[:, None], RECIPE)
    for index, image in enumerate(samples.drawings_BN[:, 0]):
        assert torch.equal(image, official[f"sampled_{index}_codes"])
        probs = official[f"sampled_{index}_probs"].gather(-1, image[..., None])
        behaviour = samples.behaviour_BNM[index, 0]
        torch.testing.assert_close(behaviour, probs.log().flatten(), **CLOSE)
        pixels = vila_u.decode(image[None])
        torch.testing.assert_close(pixels, official[f"sampled_{index}_pixels"], **CLOSE)


def test_a_decoder_of_another_grid_is_the_authors(vila_u: VilaU, official: dict, monkeypatch: Any) -> None:
    tokenizer = vila_u.net.image_tokenizer
    monkeypatch.setattr(tokenizer, "shape", dataclasses.replace(tokenizer.shape, decoder_grid=(6, 6)))
    assert tokenizer.shape.side == 48
    torch.testing.assert_close(vila_u.decode(official["sampled_0_codes"][None])[0], official["resized"], **CLOSE)


def test_images_are_read_as_by_the_authors_code(vila_u: VilaU, official: dict) -> None:
    found = vila_u.encode(images())
    for index, image in enumerate(found):
        assert torch.equal(image, official[f"trained_{index}_codes"])
        torch.testing.assert_close(vila_u.net.embed_codes(image).detach(), official[f"features_{index}"], **CLOSE)


def test_the_next_token_after_a_question_is_that_of_the_authors_code(vila_u: VilaU, official: dict) -> None:
    tails = [[vila_u._template.question_ids(question) for question in QUESTIONS]] * 2
    hidden, ends = vila_u._understanding._read(images(), tails)
    found = vila_u.net.llm.lm_head(hidden[torch.arange(2)[:, None], ends]).detach()
    for image in range(2):
        for question in range(len(QUESTIONS)):
            torch.testing.assert_close(found[image, question], official[f"answer_logits_{image}_{question}"], **CLOSE)


def test_verdicts_are_log_odds_of_the_authors_next_token(vila_u: VilaU, official: dict) -> None:
    words = vila_u.tokenizer.convert_tokens_to_ids(["▁Yes", "▁yes", "▁No", "▁no"])
    assert vila_u._template.yes == sorted(words[:2]) and vila_u._template.no == sorted(words[2:])
    logits = official["answer_logits_1_0"]
    expected = logits[words[:2]].logsumexp(0) - logits[words[2:]].logsumexp(0)
    answers = vila_u.judge_answers(images()[1:], [[QUESTIONS[0]]])
    torch.testing.assert_close(answers.logit.detach()[0, 0], expected, **CLOSE)
    torch.testing.assert_close(answers.mass[0, 0], logits.softmax(0)[words].sum(), **CLOSE)


@pytest.mark.parametrize("index", range(2))
def test_answers_are_as_likely_as_under_the_authors_training_loss(vila_u: VilaU, official: dict, index: int) -> None:
    assert vila_u._template.answer_ids(ANSWERS[index]) == official[f"answer_ids_{index}"].tolist()
    logp, mask = vila_u.text_logps(images()[index : index + 1], [[QUESTIONS[index]]], [[ANSWERS[index]]])
    assert mask.all()
    torch.testing.assert_close(logp.detach()[0, 0], official[f"answer_{index}"], **CLOSE)


def test_prompts_and_questions_have_the_authors_token_ids(vila_u: VilaU, official: dict) -> None:
    template = vila_u._template
    for index, prompt in enumerate(PROMPTS):
        assert template.prompt_ids(f" {prompt} ") == official[f"prompt_ids_{index}"].tolist()
    assert template.null_prompt == official["null_ids"].tolist()
    for index, question in enumerate(QUESTIONS):
        ids = official[f"question_ids_{index}"].tolist()
        at = ids.index(-200)
        assert template.before_image == ids[:at] and template.question_ids(f"{question} ") == ids[at + 1 :]


def test_names_and_shapes_at_the_published_size_are_those_of_the_authors_code(official: dict) -> None:
    with torch.device("meta"):
        net = VilaUNetwork(published_shape())
    shapes = {published_name(name): tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    lines = "\n".join(sorted(f"{name} {shape}" for name, shape in shapes.items()))
    assert hashlib.sha256(lines.encode()).digest() == bytes(official["layout"].tolist())


def test_the_page_names_the_authors_results() -> None:
    page = (Path(__file__).parents[2] / "docs" / "vila_u.md").read_text(encoding="utf-8")
    assert hashlib.sha256(OFFICIAL.read_bytes()).hexdigest() in page


# Residual codes


def test_an_image_is_as_likely_as_its_codes_in_order(vila_u: VilaU) -> None:
    image, prompt = codes(1), vila_u.encode_prompt(PROMPTS[:1])
    before = vila_u.image_logps(prompt, image)
    assert before.shape == (1, POSITIONS * DEPTH)
    changed = image.clone()
    changed[0, 5, 1] = (image[0, 5, 1] + 1) % CODES
    moved = (vila_u.image_logps(prompt, changed) - before)[0].abs() > 1e-5
    first = 5 * DEPTH + 1
    assert not moved[:first].any() and moved[first:].float().mean() > 0.9


def test_other_shapes_of_codes_are_refused(vila_u: VilaU) -> None:
    prompt = vila_u.encode_prompt(PROMPTS[:1])
    for image in (codes(1).flatten(1), codes(1)[..., :2], codes(1)[:, :4]):
        with pytest.raises(ValueError, match=r"images have shape .*, VILA-U's codes \(16, 3\)"):
            vila_u.image_logps(prompt, image)


def test_each_code_is_nearest_to_what_is_left() -> None:
    quantizer, features = ResidualQuantizer(3, 8, 4, shared=False), torch.randn(2, 5, 4)
    found, left = quantizer.codes(features), features
    for depth in range(3):
        table = quantizer.table(depth)
        assert torch.equal(found[..., depth], torch.cdist(left, table).argmin(-1))
        left = left - table[found[..., depth]]
    torch.testing.assert_close(features - quantizer.sums(found)[..., -1, :], left)
    assert len({quantizer.table(depth).data_ptr() for depth in range(3)}) == 3


def test_the_padding_code_is_never_chosen() -> None:
    quantizer = ResidualQuantizer(2, 4, 3, shared=True)
    with torch.no_grad():
        quantizer.codebooks[0].weight[:4] += 10
    assert quantizer.codes(torch.zeros(1, 6, 3)).max() < 4


def test_a_run_of_the_whole_loop_stores_two_axes_of_codes(vila_u: VilaU, vila_u_folder: Path, here: Path) -> None:
    small = {"model.init_args.model.class_path": "unigap.models.vila_u.VilaU", "run": "run"}
    assert improve(vila_u_folder, "dpo", {**FICKLE, **small}) == 0
    pool = Pool.open(Path("run/pool"))
    assert pool.format == DrawingFormat("int32", (POSITIONS, DEPTH))
    first = next(iter(pool.candidates(0)))
    image = stack_drawings([first]).long()
    assert image.shape == (1, POSITIONS, DEPTH)
    logp = vila_u.image_logps(vila_u.encode_prompt([first.prompt.text]), image).sum().item()
    assert logp == pytest.approx(first.logp, abs=1e-3)
    before = {f"model.{name}": tensor for name, tensor in vila_u.state_dict().items()}
    after = state(Path("run/checkpoints/last.ckpt"))
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("model.net.llm.model.") for name in changed)


def test_decoding_takes_the_memory_it_is_counted_with(vila_u: VilaU) -> None:
    counted = vila_u.drawing_bytes(SamplingRecipe())
    with PeakBytes() as bytes_of:
        vila_u.decode(codes(4))
    assert 0.9 * counted < bytes_of.peak / 4 < 1.1 * counted


def test_what_decodes_differently_has_another_digest(new_vila_u: Loader) -> None:
    model = new_vila_u()
    digests, tokenizer = {model.drawing_digest()}, model.net.image_tokenizer
    for part in (tokenizer.decoder.conv_out, tokenizer.post_quant_conv):
        with torch.no_grad():
            part.weight[0] += 1
        digests.add(model.drawing_digest())
    assert len(digests) == 3
    with torch.no_grad():
        next(model.trunk.parameters()).add_(1)
    assert model.drawing_digest() in digests


def test_the_recommended_guidance_is_the_authors(vila_u: VilaU) -> None:
    assert vila_u.usual_cfg == USUAL_CFG == CFG


def test_an_image_of_another_size_is_resized(vila_u: VilaU) -> None:
    large = torch.nn.functional.interpolate(images(), scale_factor=2, mode="nearest")
    assert vila_u.encode(large).shape == (2, POSITIONS, DEPTH)
