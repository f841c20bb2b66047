"""Show-o through the whole loop: what trains, what is saved of it, a pool, SFT, DPO, and the command line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import FICKLE, POOL, TRAINER, epochs, state, words

from unigap.__main__ import main
from unigap.judges import OracleJudge, SelfJudge
from unigap.loop.plan import RoundPlan
from unigap.loop.references import image_likelihoods
from unigap.loop.round import run_round
from unigap.loop.sampling import sample_candidates
from unigap.models.base import PromptBatch, SamplingRecipe
from unigap.models.showo import ShowO
from unigap.models.showo.masks import seeded_masks
from unigap.objectives import DPO, SFT, KLToBase, RowBatch
from unigap.objectives.losses import sft_loss
from unigap.pool import Pool
from unigap.records import Pair, Prompt

TEXTS = ("a red circle", "a small red circle left of a large blue square", "six rings")
PROMPTS = [Prompt(f"p{i}", text, "any", "easy", "improve") for i, text in enumerate(TEXTS)]
CODES = torch.randint(64, (3, 16), generator=torch.Generator().manual_seed(0))
TRUNK = ("net.llm.model.layers.", "net.llm.model.final_layernorm.")
LORA = {"lora_rank": 3, "lora_alpha": 6}


def logps(model: ShowO) -> torch.Tensor:
    return model.image_logps(model.encode_prompt(TEXTS), CODES)


def train(model: ShowO, loss: Any, steps: int = 3) -> list[float]:
    """The loss before each step and after the last."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(steps):
        found = loss(model)
        losses.append(found.item())
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
    return [*losses, loss(model).item()]


def test_a_path_gives_the_trunk_a_gradient(showo_folder: Path) -> None:
    model = ShowO(str(showo_folder), gradient_checkpointing=True)
    model.trunk.train()
    prompt = model.encode_prompt(TEXTS[:1])
    _, path = model.sample_paths(prompt, torch.zeros(1, 1, dtype=torch.int64), SamplingRecipe())
    plain = ShowO(str(showo_folder)).sample_paths(prompt, torch.zeros(1, 1, dtype=torch.int64), SamplingRecipe())[1]
    assert torch.equal(path.codes_RM, plain.codes_RM), "checkpointed layers draw the same"
    model.path_logps(prompt, path).sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}


def test_gradients_of_many_images_at_once_are_those_of_each(showo_folder: Path) -> None:
    model = ShowO(str(showo_folder), attn_implementation="eager")
    torch.testing.assert_close(logps(model), logps(ShowO(str(showo_folder))), atol=2e-5, rtol=1e-5)
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    prompt = model.encode_prompt(TEXTS)

    class Likelihood(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *row: torch.Tensor) -> torch.Tensor:
            ids_1L, mask_1L, code_1M = (tensor[None] for tensor in row)
            return model.image_logps(PromptBatch(ids_1L, mask_1L, ids_1L, mask_1L), code_1M).sum()

    likelihood = Likelihood()

    def logp(weights: dict[str, torch.Tensor], *row: torch.Tensor) -> Any:
        return torch.func.functional_call(likelihood, {f"model.{name}": w for name, w in weights.items()}, row)

    rows = (prompt.ids_BL, prompt.mask_BL, CODES)
    together = torch.func.vmap(torch.func.grad(logp), (None, 0, 0, 0))(weights, *rows)
    for image in range(3):
        model.zero_grad()
        likelihood(*(tensor[image] for tensor in rows)).backward()
        for name, gradient in together.items():
            torch.testing.assert_close(gradient[image], model.get_parameter(name).grad, atol=1e-4, rtol=1e-3)


def test_an_adapter_lies_on_the_language_model(showo_folder: Path, tmp_path: Path) -> None:
    model = ShowO(str(showo_folder), **LORA)
    train(model, lambda model: sft_loss(logps(model)))
    model.save(tmp_path / "adapter", adapter_only=True)
    assert "model.net.llm.load_adapter(FOLDER)" in (tmp_path / "adapter" / "README.md").read_text()
    adapted = ShowO(str(showo_folder))
    adapted.net.llm.load_adapter(str(tmp_path / "adapter"))
    torch.testing.assert_close(logps(adapted), logps(model), atol=1e-4, rtol=1e-5)


def test_a_round_is_drawn_judged_and_kept(showo_folder: Path, tmp_path: Path) -> None:
    model = ShowO(str(showo_folder), steps=6)
    pool = Pool.create(tmp_path / "pool", model.drawing_digest())
    plan = RoundPlan(candidates=3, images_per_batch=4, seed=3, sampling=SamplingRecipe(cfg=2.0))
    run_round(model, PROMPTS, [SelfJudge(), OracleJudge()], pool, 0, plan)
    kept = pool.candidates()
    drawn = list(sample_candidates(model, PROMPTS, 3, 0, 3, plan.sampling))
    assert [c.drawing.tolist() for c in kept] == [c.drawing.tolist() for d in drawn for c in d.candidates]
    asked = SelfJudge().ask(model, [c.prompt.text for c in kept], torch.cat([d.pixels_BCHW for d in drawn]))
    assert [j.logit for j in pool.judgments("self")] == pytest.approx(asked.tolist(), abs=1e-4)
    assert len(pool.judgments()) == 18 and asked.std() > 1e-2
    with pytest.raises(ValueError, match="drawn by other weights or another recipe"):
        run_round(ShowO(str(showo_folder), steps=5), PROMPTS, [SelfJudge(), OracleJudge()], pool, 0, plan)


def test_sft_makes_accepted_images_likelier(showo_folder: Path) -> None:
    model, objective = ShowO(str(showo_folder)), SFT(keep=1)
    candidates = [c for d in sample_candidates(model, PROMPTS, 2, 0, 0, SamplingRecipe()) for c in d.candidates]
    rows = objective.rows(candidates, {c.id: 1.0 if c.index == 0 else -1.0 for c in candidates})
    batch = objective.collate(rows, {})
    assert batch.drawings_B.shape == (3, 16)
    before = image_likelihoods(model, candidates)
    train(model, lambda model: objective.step(model, batch).loss, steps=12)
    after = image_likelihoods(model, candidates)
    assert all(after[row.id] > before[row.id] for row in rows)


def test_dpo_starts_at_ln_2_because_all_are_measured_with_the_same_masks(showo_folder: Path) -> None:
    """Policy and reference, chosen and rejected are compared at the masks of the step, which are new in each step."""
    torch.manual_seed(0)  # the masks of a step come from torch's generator
    model = ShowO(str(showo_folder))
    model.reference_state = model.trainable_state()
    candidates = [c for d in sample_candidates(model, PROMPTS, 2, 0, 0, SamplingRecipe()) for c in d.candidates]
    pairs = [Pair(*candidates[i : i + 2]) for i in range(0, 6, 2)]
    objective = DPO(nll_weight=0.0)
    batch = objective.collate(pairs, {})
    first, second = objective.step(model, batch), objective.step(model, batch)
    assert first.loss.item() == second.loss.item() == pytest.approx(math.log(2), abs=1e-5)
    assert first.logs["dpo/margin_estimate"] == second.logs["dpo/margin_estimate"] == 0
    fixed = objective.collate(pairs, image_likelihoods(model, candidates, batch_size=4))
    assert abs(objective.step(model, fixed).loss.item() - math.log(2)) > 1e-3, "other masks, no common measure"
    losses = train(model, lambda model: objective.step(model, batch).loss, steps=4)
    assert losses[-1] < losses[0] - 0.01
    last = objective.step(model, batch)
    assert last.logs["dpo/accuracy"] == 1 and last.logs["dpo/margin_estimate"] > 0


def test_figures_made_of_estimates_say_so(showo_folder: Path, tmp_path: Path) -> None:
    model = ShowO(str(showo_folder))
    model.reference_state = model.trainable_state()
    candidates = [c for d in sample_candidates(model, PROMPTS, 2, 0, 0, SamplingRecipe()) for c in d.candidates]
    held = KLToBase(DPO())
    rows = held.rows(candidates, {c.id: 1.0 - 2 * c.index for c in candidates})
    logs = held.step(model, held.collate(rows, {})).logs
    named = {"kl/to_base", "dpo/margin", "dpo/margin_per_token", "dpo/chosen", "dpo/rejected"}
    assert {f"{name}_estimate" for name in named} <= logs.keys() and not named & logs.keys()
    pool = Pool.create(tmp_path / "pool", model.drawing_digest())
    run_round(model, PROMPTS, [SelfJudge()], pool, 0, RoundPlan(2))
    words = ["export", "pool", str(pool.folder), "--out", str(tmp_path / "data"), "--checkpoint", str(showo_folder)]
    assert main(words) == 0
    assert "an estimate; the model has no exact likelihood" in (tmp_path / "data" / "README.md").read_text()


def test_commands_that_are_given_a_folder_find_its_family(
    showo_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["gap", "--checkpoint", str(showo_folder), "--per_cell", "1", "--candidates", "1", "--out", "gap.json"]
    assert main(given) == 0
    assert "The gap" in capsys.readouterr().out
    assert (here / "gap.json").is_file()


@pytest.mark.parametrize("config", ["sft", "dpo"])
def test_a_shipped_config_trains_a_show_o(showo_folder: Path, here: Path, config: str) -> None:
    flags = {
        **TRAINER,
        **POOL,
        **FICKLE,
        "model.init_args.model.class_path": "unigap.models.showo.ShowO",
        "model.init_args.model.init_args.checkpoint": showo_folder,
        "model.init_args.model.init_args.steps": 4,
    }
    assert main(words("fit", config, flags)) == 0
    old = {f"model.{name}": tensor for name, tensor in ShowO(str(showo_folder), steps=4).state_dict().items()}
    new = state(here / "runs" / config / "checkpoints" / "last.ckpt")
    # a frozen weight that moved would be in the file too; options are kept
    moved = {name for name, tensor in new.items() if not torch.equal(tensor, old[name])}
    assert moved == {name for name in old if name.startswith(tuple(f"model.{part}" for part in TRUNK))}
    assert new.keys() - moved == {f"model.{name}" for name in ShowO.options}
    assert [len(rows) > 0 for rows in epochs(here / "runs" / config)] == [True, True]
    assert Pool.open(here / "runs" / config / "pool").verify() == []


def test_sft_masks_anew_at_each_step_and_alike_at_the_same_one(showo_folder: Path) -> None:
    model, batch = ShowO(str(showo_folder)), RowBatch(("1", "2", "3"), TEXTS, CODES)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(SFT().step(model, batch).loss.item())
    assert losses[0] == losses[1] != losses[2]
    assert sft_loss(logps(model)).item() not in losses


def test_every_number_of_masked_tokens_is_equally_likely() -> None:
    masked = seeded_masks(torch.arange(4000), 1, 8)[:, 0]
    share = torch.bincount(masked.sum(1), minlength=9)[1:] / 4000
    assert (share - 1 / 8).abs().max() < 0.03
    assert (masked.float().mean(0) - 4.5 / 8).abs().max() < 0.03, "every token is masked as often as the others"
