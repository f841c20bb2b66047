"""Show-o beside a forward pass written out: drawing by unmasking, the estimate of the likelihood, and reading."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from small_showo import small_showo

import unigap.models.showo.network as network_module
import unigap.models.showo.understanding as reading_module
from unigap.models.base import PromptBatch, SamplingRecipe
from unigap.models.engine.tokens import NO_FORMS, YES_FORMS
from unigap.models.showo import ShowO
from unigap.models.showo.likelihood import UnmaskingPath
from unigap.models.showo.masks import choice_temperatures, prompt_masks, unmasking_schedule

PROMPTS = [
    "a red circle",
    "a small red circle left of a large blue square",
    "six rings",
    "two black crosses and a ring",
]
QUESTIONS = ["is it red?", "does this image describe a small red circle left of a large blue square?", "six rings?"]
RECIPES = [
    SamplingRecipe(),
    SamplingRecipe(cfg=3.0, temperature=0.7),
    SamplingRecipe(cfg=2.0, top_k=5),
    SamplingRecipe(top_p=0.6),
    SamplingRecipe(temperature=0, cfg=5),
]
GREEDY = SamplingRecipe(temperature=0)


def seeds(prompts: int, n: int) -> torch.Tensor:
    return torch.arange(prompts * n).view(prompts, n) * 7919 + 2**40


def codes(count: int, seed: int = 0, tokens: int = 16) -> torch.Tensor:
    return torch.randint(64, (count, tokens), generator=torch.Generator().manual_seed(seed))


def pixels(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def some_masked(count: int, seed: int = 0, tokens: int = 16) -> torch.Tensor:
    return torch.rand(count, tokens, generator=torch.Generator().manual_seed(seed)) < 0.6


# A plain forward pass, written out


def ids_of(showo: ShowO, text: str) -> list[int]:
    return showo.tokenizer(text, add_special_tokens=False)["input_ids"]


def plain_logits(showo: ShowO, ids: list[int], image: range) -> torch.Tensor:
    """Logits (S, words) of a row of which the places in ``image`` see each other."""
    size = len(ids)
    bias = torch.full((size, size), torch.finfo(torch.float32).min)
    for query, key in itertools.product(range(size), range(size)):
        if key <= query or (query in image and key in image):
            bias[query, key] = 0
    return showo.net.llm(torch.tensor([ids]), attention_mask=bias[None, None]).logits[0]


def image_words(showo: ShowO, code_M: torch.Tensor, masked_M: torch.Tensor) -> list[int]:
    """An image between its marks: codes stand behind the words, the mask is the last of all."""
    words, last = len(showo.tokenizer), showo.net.llm.config.vocab_size - 1
    start, end = (showo.tokenizer.convert_tokens_to_ids(mark) for mark in ("<|soi|>", "<|eoi|>"))
    inside = [last if hidden else words + code for code, hidden in zip(code_M.tolist(), masked_M.tolist(), strict=True)]
    return [start, *inside, end]


def plain_code_logits(showo: ShowO, text: str, code_M: torch.Tensor, masked_M: torch.Tensor) -> torch.Tensor:
    """Logits (M, V) of an image behind a prompt; no text is the null prompt."""
    draw = showo.tokenizer.convert_tokens_to_ids("<|t2i|>")
    prompt = [draw, showo.tokenizer.bos_token_id, *ids_of(showo, text), showo.tokenizer.eos_token_id]
    ids = prompt + image_words(showo, code_M, masked_M)
    words = len(showo.tokenizer)
    inside = slice(len(prompt) + 1, len(ids) - 1)
    return plain_logits(showo, ids, range(len(prompt), len(ids)))[inside, words : words + 64]


# Drawing


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_log_probabilities_while_sampling_are_the_teacher_forced_ones_of_the_path(
    showo: ShowO, recipe: SamplingRecipe
) -> None:
    prompt = showo.encode_prompt(PROMPTS)
    samples, path = showo.sample_paths(prompt, seeds(4, 3), recipe)
    assert samples.drawings_BN.shape == samples.logp_BNM.shape == (4, 3, 16)
    assert samples.logp_BNM.dtype == torch.float32 and (samples.logp_BNM < 0).all()
    assert torch.equal(path.codes_RM, samples.drawings_BN.flatten(0, 1))
    forced_RM = showo.path_logps(prompt, path)
    torch.testing.assert_close(samples.logp_BNM.flatten(0, 1), forced_RM.detach(), atol=1e-5, rtol=0)
    left = [(path.step_RM > step).sum(1).unique().tolist() for step in range(int(path.step_RM.max()) + 1)]
    assert left == [[count] for count in unmasking_schedule(16, 18)]
    assert torch.equal(showo.sample_images(prompt, seeds(4, 3), recipe).drawings_BN, samples.drawings_BN)


def test_another_order_of_the_same_image_has_another_probability(showo: ShowO) -> None:
    prompt = showo.encode_prompt(PROMPTS)
    samples, path = showo.sample_paths(prompt, seeds(4, 1), SamplingRecipe())
    backwards = UnmaskingPath(path.codes_RM, path.step_RM.max() - path.step_RM)
    change_B = showo.path_logps(prompt, backwards).sum(-1) - samples.logp_BNM.sum((-1, -2))
    assert (change_B.abs() > 1e-2).all()


@pytest.mark.parametrize("masked_BM", [some_masked(4), torch.ones(4, 16, dtype=torch.bool)], ids=["some", "all"])
def test_image_logps_under_a_mask_are_those_of_a_plain_forward_pass(showo: ShowO, masked_BM: torch.Tensor) -> None:
    image_BM = codes(4)
    found_BM = showo.mask_logps(showo.encode_prompt(PROMPTS), image_BM, masked_BM[:, None])
    assert found_BM.dtype == torch.float32 and (found_BM[~masked_BM] == 0).all()
    for row, text in enumerate(PROMPTS):
        logits_MV = plain_code_logits(showo, text, image_BM[row], masked_BM[row])
        logp_M = logits_MV.log_softmax(-1)[range(16), image_BM[row]] * masked_BM[row]
        torch.testing.assert_close(found_BM[row], logp_M * 16 / masked_BM[row].sum(), atol=2e-5, rtol=1e-5)


def test_image_logps_of_a_padded_batch_are_those_of_one_at_a_time_under_a_mask(showo: ShowO) -> None:
    image_BM, masked_BM = codes(4), some_masked(4)
    together = showo.mask_logps(showo.encode_prompt(PROMPTS), image_BM, masked_BM[:, None])
    alone = [
        showo.mask_logps(showo.encode_prompt([text]), image_BM[row : row + 1], masked_BM[row : row + 1, None])
        for row, text in enumerate(PROMPTS)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-5)


def test_greedy_unmasking_needs_no_seed(showo: ShowO) -> None:
    prompt = showo.encode_prompt(PROMPTS)
    samples, path = showo.sample_paths(prompt, seeds(4, 3), GREEDY)
    again, other = showo.sample_paths(prompt, seeds(4, 3) + 12345, GREEDY)
    assert torch.equal(samples.drawings_BN, again.drawings_BN) and torch.equal(path.step_RM, other.step_RM)
    assert (samples.drawings_BN == samples.drawings_BN[:, :1]).all(), "candidates of one prompt"
    assert not torch.equal(samples.drawings_BN[0], samples.drawings_BN[1])


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_guidance_is_show_os_with_a_scale_one_less(cfg: float) -> None:
    at_once = small_showo(steps=1)
    found = at_once.sample_images(at_once.encode_prompt(PROMPTS), seeds(4, 1), SamplingRecipe(temperature=0, cfg=cfg))
    nothing, all_M = torch.zeros(16, dtype=torch.int64), torch.ones(16, dtype=torch.bool)
    without = plain_code_logits(at_once, "", nothing, all_M)
    for row, text in enumerate(PROMPTS):
        given = plain_code_logits(at_once, text, nothing, all_M)
        guided = (1 + (cfg - 1)) * given - (cfg - 1) * without
        assert torch.equal(found.drawings_BN[row, 0], guided.argmax(-1))
        assert torch.equal(guided.argmax(-1), given.argmax(-1)) == (cfg == 1)
        expected = given.log_softmax(-1).gather(1, guided.argmax(-1)[:, None])[:, 0]
        torch.testing.assert_close(found.logp_BNM[row, 0], expected, atol=1e-5, rtol=0)


def test_the_surest_tokens_are_fixed_first(showo: ShowO) -> None:
    nothing, all_M = torch.zeros(16, dtype=torch.int64), torch.ones(16, dtype=torch.bool)
    path = showo.sample_paths(showo.encode_prompt(PROMPTS[:1]), seeds(1, 1), GREEDY)[1]
    logp_M = plain_code_logits(showo, PROMPTS[0], nothing, all_M).log_softmax(-1).amax(-1)
    first = (path.step_RM[0] == 0).nonzero()[:, 0].tolist()
    assert sorted(first) == sorted(logp_M.argsort(descending=True)[: len(first)].tolist())


def test_noise_in_the_choice_changes_the_order_until_it_has_cooled() -> None:
    cold, hot = small_showo(choice_temperature=0.0), small_showo(choice_temperature=50.0)
    prompt, recipe = cold.encode_prompt(PROMPTS), SamplingRecipe(temperature=1e-6)
    steps = [m.sample_paths(prompt, seeds(4, 4), recipe)[1].step_RM.view(4, 4, 16) for m in (cold, hot)]
    assert (steps[0] == steps[0][:, :1]).all() and not (steps[1] == steps[1][:, :1]).all()
    assert choice_temperatures(2.0, 4) == [1.5, 0.75, 0.1875, 0.0]


def test_what_a_token_becomes_does_not_depend_on_the_noise_in_the_choice() -> None:
    hot = small_showo(steps=2, choice_temperature=1e6)
    path = hot.sample_paths(hot.encode_prompt(PROMPTS[:1]), seeds(1, 500), SamplingRecipe())[1]
    nothing, all_M = torch.zeros(16, dtype=torch.int64), torch.ones(16, dtype=torch.bool)
    share_MV = plain_code_logits(hot, PROMPTS[0], nothing, all_M).softmax(-1).detach()
    first_RM = path.step_RM == 0
    torch.testing.assert_close(first_RM.float().mean(0), torch.full((16,), 5 / 16), atol=0.1, rtol=0)
    code_V = torch.arange(64.0)
    mean_M, spread_M = share_MV @ code_V, (share_MV @ code_V**2 - (share_MV @ code_V) ** 2).sqrt()
    standard_RM = (path.codes_RM - mean_M) / spread_M
    assert standard_RM[first_RM].mean().abs() < 4 / int(first_RM.sum()) ** 0.5


def test_the_schedule_is_a_cosine_that_always_moves() -> None:
    published = [math.floor(256 * math.cos(math.pi / 2 * step / 18)) for step in range(1, 18)]
    assert unmasking_schedule(256, 18) == [*published, 0]
    assert unmasking_schedule(16, 1) == [0]
    for tokens, steps in itertools.product((1, 4, 16, 256), (1, 2, 7, 18, 300)):
        left = [tokens, *unmasking_schedule(tokens, steps)]
        assert left[-1] == 0 and len(left) <= steps + 1 and all(a > b for a, b in itertools.pairwise(left))


def test_a_causal_image_is_another_model(showo: ShowO, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, image_BM, masked_BM = showo.encode_prompt(PROMPTS), codes(4), some_masked(4)
    _, path = showo.sample_paths(prompt, seeds(4, 1), SamplingRecipe())
    whole, sampled = showo.mask_logps(prompt, image_BM, masked_BM[:, None]), showo.path_logps(prompt, path)
    right = network_module.generation_mask
    monkeypatch.setattr(network_module, "generation_mask", lambda *given: right(*given).tril())
    assert ((showo.mask_logps(prompt, image_BM, masked_BM[:, None]) - whole).abs().amax(1) > 1e-2).all()
    assert ((showo.path_logps(prompt, path) - sampled).abs().amax(1) > 1e-2).all()


def test_a_masked_token_is_predicted_from_both_sides_and_not_from_itself(showo: ShowO) -> None:
    prompt = showo.encode_prompt(PROMPTS[:1])
    masked_RM = torch.ones(3, 16, dtype=torch.bool)
    masked_RM[:, 15] = False
    image_RM = codes(1).repeat(3, 1)
    image_RM[1, 15] = (image_RM[0, 15] + 1) % 64
    image_RM[2, 3] = (image_RM[0, 3] + 1) % 64
    same, later, itself = showo.mask_logps(prompt, image_RM, masked_RM[:, None])
    assert (same[0] - later[0]).abs() > 1e-3, "the last token is seen by the first"
    others = torch.arange(16) != 3
    torch.testing.assert_close(same[others], itself[others], atol=1e-5, rtol=0)
    assert (same[3] - itself[3]).abs() > 1e-3


def test_prompt_dropout_gives_the_null_prompt_of_guidance(showo: ShowO) -> None:
    prompt = showo.encode_prompt(PROMPTS)
    dropped = prompt.unconditional(torch.tensor([True, False, True, False]))
    image_BM, masked_BM = codes(4), torch.ones(4, 16, dtype=torch.bool)
    found = showo.mask_logps(dropped, image_BM, masked_BM[:, None])
    for row, text in enumerate(["", PROMPTS[1], "", PROMPTS[3]]):
        logits_MV = plain_code_logits(showo, text, image_BM[row], masked_BM[row])
        expected = logits_MV.log_softmax(-1)[range(16), image_BM[row]]
        torch.testing.assert_close(found[row], expected, atol=2e-5, rtol=1e-5)


# The estimate of the likelihood


def test_masks_and_orders_give_the_same_bound() -> None:
    """The mean over masks that ``image_logps`` samples is the mean log-likelihood over all orders: all are counted."""
    tiny = small_showo(grid=2)
    prompt, image_1M = tiny.encode_prompt(PROMPTS[:1]), codes(1, tokens=4)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    along = tiny.path_logps(prompt, UnmaskingPath(image_1M.expand(24, -1), orders)).sum(-1)
    sets = torch.tensor([set_ for set_ in itertools.product([False, True], repeat=4) if any(set_)])
    estimates = tiny.mask_logps(prompt, image_1M.expand(15, -1), sets[:, None]).sum(-1)
    share = torch.tensor([1 / (4 * math.comb(4, int(set_.sum()))) for set_ in sets])
    torch.testing.assert_close((share * estimates).sum(), along.mean(), atol=1e-5, rtol=0)
    assert along.std() > 1e-2, "the order matters to this model"
    assert (estimates - along.mean()).abs().max() > 1e-2


def test_a_model_without_preferences_is_estimated_exactly() -> None:
    even = small_showo()
    torch.nn.init.zeros_(even.net.llm.lm_head.weight)
    torch.nn.init.zeros_(even.net.llm.lm_head.bias)
    total_B = even.image_logps(even.encode_prompt(PROMPTS), codes(4)).sum(-1)
    torch.testing.assert_close(total_B, torch.full((4,), -16 * math.log(64)), atol=1e-4, rtol=0)


def test_all_images_of_a_prompt_are_measured_with_the_same_masks(showo: ShowO) -> None:
    prompt = showo.encode_prompt(PROMPTS)
    one_mask = small_showo(likelihood_masks=1)
    found_RM = one_mask.image_logps(prompt, codes(12))
    used_BNM = (found_RM != 0).view(4, 3, 16)
    assert (used_BNM == used_BNM[:, :1]).all() and len({tuple(row) for row in used_BNM[:, 0].tolist()}) == 4
    text_BL = prompt.mask_BL.bool()
    assert torch.equal(used_BNM[:, 0], prompt_masks(prompt.ids_BL, text_BL, 1, 16)[:, 0])
    assert torch.equal(one_mask.image_logps(prompt, codes(12)), found_RM)
    four = prompt_masks(prompt.ids_BL, text_BL, 4, 16).unbind(1)
    each = [showo.mask_logps(prompt, codes(4), masked[:, None]) for masked in four]
    torch.testing.assert_close(showo.image_logps(prompt, codes(4)), torch.stack(each).mean(0), atol=1e-5, rtol=1e-5)


def test_masks_of_many_prompts_are_even() -> None:
    ids_BL = torch.randint(1, 50_000, (6000, 5), generator=torch.Generator().manual_seed(0))
    masked_BKM = prompt_masks(ids_BL, torch.ones_like(ids_BL, dtype=torch.bool), 3, 8)
    sizes_BK = masked_BKM.sum(-1)
    share_S = torch.bincount(sizes_BK.flatten(), minlength=9) / sizes_BK.numel()
    assert share_S[0] == 0
    torch.testing.assert_close(share_S[1:], torch.full((8,), 1 / 8), atol=0.01, rtol=0)
    assert (sizes_BK.sort(-1).values == sizes_BK).all() and ((sizes_BK[:, 2] - sizes_BK[:, 0]) >= 4).all(), "spread"
    torch.testing.assert_close(masked_BKM.float().mean((0, 1)), torch.full((8,), 4.5 / 8), atol=0.01, rtol=0)
    pairs = masked_BKM[sizes_BK == 2].float()
    together = pairs.T @ pairs / len(pairs)
    off = ~torch.eye(8, dtype=torch.bool)
    torch.testing.assert_close(together[off], torch.full((56,), 1 / 28), atol=0.02, rtol=0)
    text_BL = torch.arange(7)[None] >= 2
    padded = prompt_masks(torch.nn.functional.pad(ids_BL[:9], (2, 0)), text_BL.expand(9, -1), 3, 8)
    assert torch.equal(padded, masked_BKM[:9])
    assert not torch.equal(prompt_masks(ids_BL[:9].flip(1), torch.ones(9, 5, dtype=torch.bool), 3, 8), padded)


def test_noise_that_is_no_seed_an_image_is_refused(showo: ShowO) -> None:
    prompt = showo.encode_prompt(PROMPTS[:1])
    for noise in (torch.zeros(1), torch.zeros(2, dtype=torch.int64), torch.zeros(1, 16, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"noise_R must be int64 of shape \(1,\), one seed an image"):
            showo.image_logps(prompt, codes(1), noise)
    with pytest.raises(ValueError, match="3 images for 2 prompts; give every prompt the same number"):
        showo.image_logps(showo.encode_prompt(PROMPTS[:2]), codes(3))


# Reading


def asked(showo: ShowO, shown_CHW: torch.Tensor, question: str) -> tuple[list[int], range]:
    """A question about a picture as ids, and the places that see each other."""
    code_M = showo.encode(shown_CHW[None])[0]
    image = [showo.tokenizer.convert_tokens_to_ids("<|mmu|>")]
    image += image_words(showo, code_M, torch.zeros(16, dtype=torch.bool))
    return [*image, showo.tokenizer.bos_token_id, *ids_of(showo, f"USER: \n{question} ASSISTANT:")], range(len(image))


def test_judge_logits_are_those_of_a_plain_forward_pass(showo: ShowO) -> None:
    shown = pixels(2)
    packed_BQ = showo.judge_logit(shown, [QUESTIONS, QUESTIONS[::-1]])
    yes, no = (
        sorted({ids[0] for form in forms if len(ids := ids_of(showo, form)) == 1}) for forms in (YES_FORMS, NO_FORMS)
    )
    for row, questions in enumerate((QUESTIONS, QUESTIONS[::-1])):
        for column, question in enumerate(questions):
            logp_V = plain_logits(showo, *asked(showo, shown[row], question))[-1].log_softmax(-1)
            expected = logp_V[yes].exp().sum().log() - logp_V[no].exp().sum().log()
            torch.testing.assert_close(packed_BQ[row, column], expected, atol=1e-5, rtol=0)


def test_answer_logps_are_those_of_a_plain_forward_pass(showo: ShowO) -> None:
    shown = pixels(2)
    questions = [["is it red?", "what does this image show?"], ["what is it?", "six rings?"]]
    answers = [["yes", "a small red circle and a ring"], ["two black crosses", "no"]]
    logp_BQT, mask_BQT = showo.text_logps(shown, questions, answers)
    assert logp_BQT.shape == mask_BQT.shape and mask_BQT.dtype == torch.bool
    assert (logp_BQT[~mask_BQT] == 0).all()
    for row, column in itertools.product(range(2), range(2)):
        ids, image = asked(showo, shown[row], questions[row][column])
        answer = [*ids_of(showo, " " + answers[row][column]), showo.tokenizer.eos_token_id]
        logits_SV = plain_logits(showo, ids + answer, image)[len(ids) - 1 : -1]
        expected = logits_SV.log_softmax(-1)[range(len(answer)), answer]
        torch.testing.assert_close(logp_BQT[row, column][mask_BQT[row, column]], expected, atol=2e-5, rtol=0)


def test_a_causal_reading_is_another_judge(showo: ShowO, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = showo.judge_logit(pixels(2), [QUESTIONS] * 2)
    right = reading_module.understanding_mask
    monkeypatch.setattr(reading_module, "understanding_mask", lambda segment: right(segment).tril())
    assert ((showo.judge_logit(pixels(2), [QUESTIONS] * 2) - expected).abs() > 1e-3).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", "empty"),
        ("a red <|soi|> circle", "'<|soi|>' is a special token of the model's template; remove it"),
        ("a red elephant", "the model has no word 'elephant'; reword it"),
        ("a red circle " * 90, "the context holds 238"),
    ],
)
def test_a_text_the_model_cannot_read_is_refused(showo: ShowO, text: str, message: str) -> None:
    for ask in (lambda: showo.encode_prompt([text]), lambda: showo.judge_logit(pixels(1), [[text]])):
        with pytest.raises(ValueError) as caught:
            ask()
        assert message in str(caught.value)


def test_a_prompt_is_what_show_o_expects(showo: ShowO) -> None:
    prompt: PromptBatch = showo.encode_prompt(["six rings", "a red circle"])
    tokens: Any = showo.tokenizer
    pad, first, last = tokens.pad_token, tokens.bos_token, tokens.eos_token
    read = [tokens.convert_ids_to_tokens(row) for row in prompt.ids_BL]
    assert read == [
        [pad, "<|t2i|>", first, "six", "rings", last],
        ["<|t2i|>", first, "a", "red", "circle", last],
    ]
    assert prompt.mask_BL.tolist() == [[0, 1, 1, 1, 1, 1], [1] * 6]
    assert [tokens.convert_ids_to_tokens(row) for row in prompt.uncond_BL] == [[pad] * 3 + ["<|t2i|>", first, last]] * 2
