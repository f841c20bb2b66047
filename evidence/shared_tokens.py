"""The control with more sharing: a Janus whose understanding branch sees the image tokens that it generates.

Janus sees images through a separate vision encoder. Here the understanding branch gets the tokens of the image
tokenizer, embedded by the generation branch, so both branches see an image through the same weights.
"""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evidence.coupling import coupling_of
from evidence.results_file import Result
from evidence.theory_plan import TheoryPlan
from unigap.callbacks.dynamics_probes import paired_sources, pick_probes
from unigap.evaluation.gap import probe_logits, probe_scores
from unigap.evaluation.probe_set import ProbeSet
from unigap.judges import OracleJudge, SelfJudge
from unigap.loop.judging import judge_samples
from unigap.loop.plan import RoundPlan
from unigap.loop.sampling import sample_candidates
from unigap.models.janus import Janus
from unigap.prompt_sets.loading import load_prompts
from unigap.records import Candidate
from unigap.worlds.shapes.lesson_data import LessonBatch, lesson_batch
from unigap.worlds.shapes.probe_set import shapes_probe_set

LR = 6.0e-4
JUDGE_WEIGHT = 2.0
QUESTION = SelfJudge().questions[0]


class TokenVision(nn.Module):
    """Replace the vision encoder: map pixels in [-1, 1] to the embeddings of their image tokens."""

    def __init__(self, model: Janus) -> None:
        super().__init__()
        # bound methods, not submodules, so that the weights are registered only once
        self._encode, self._embed = model.encode, model.net.prepare_embeddings_for_image_generation

    def forward(self, pixel_values: Tensor, **_: object) -> SimpleNamespace:
        """Return the embeddings (B, M, D) as the last hidden state."""
        embeds = self._embed(self._encode(pixel_values))
        return SimpleNamespace(last_hidden_state=embeds, pooler_output=embeds)


def open_shared(plan: TheoryPlan, weights: Path | None = None) -> Janus:
    """Load the model with shared tokens: as shipped, or with trained weights."""
    model = Janus(plan.checkpoint)
    model.core.vision_model, model.core.aligner = TokenVision(model), nn.Identity()
    if weights is not None:
        model.load_state_dict(load_file(weights), strict=True)
    return model


def teach_shared(plan: TheoryPlan, work: Path) -> Result:
    """Train it on the lessons of pretraining; write ``shared.safetensors`` into ``work``.

    Returns:
        Figures on a probe set of rendered test images, before and after.
    """
    model = open_shared(plan)
    probe_set = shapes_probe_set("test", 300, 0)
    found = {"before": _understanding(model, probe_set)}
    model.requires_grad_(True)
    model.core.vqmodel.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=plan.shared_steps, pct_start=0.1)
    rng = random.Random("shared tokens")
    for _ in range(plan.shared_steps):
        loss = _lesson_loss(model, lesson_batch(rng, plan.shared_batch))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    found["after"] = _understanding(model, probe_set)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, work / "shared.safetensors")
    return found


def shared_coupling(plan: TheoryPlan, seed: int, work: Path) -> Result:
    """Measure the coupling of the trained model on its own candidates, judged by itself."""
    model = open_shared(plan, work / "shared.safetensors")
    judges = (SelfJudge(), OracleJudge())
    prompts = load_prompts("shapes", "improve", plan.shared_per_cell)
    drawn = RoundPlan(4, seed=seed)
    candidates: list[Candidate] = []
    own: dict[str, bool] = {}
    right: dict[str, bool] = {}
    for sampled in sample_candidates(model, prompts, drawn.candidates, 0, drawn.sampling_seed, drawn.sampling):
        candidates += sampled.candidates
        for judgment in judge_samples(model, sampled, judges):
            (own if judgment.judge == judges[0].name else right)[judgment.candidate_id] = judgment.logit >= 0
    probes = pick_probes(candidates, own, right, plan.coupling_probes, seed)
    return coupling_of(model, paired_sources(model, probes.candidates, judges[0].questions), probes)


def _lesson_loss(model: Janus, batch: LessonBatch) -> Tensor:
    codes_BM = model.encode(batch.pixels_BCHW)
    pairs = [(i, caption.text) for i, lesson in enumerate(batch.lessons) for caption in lesson.captions]
    drawn = model.image_logps(model.encode_prompt([text for _, text in pairs]), codes_BM[[i for i, _ in pairs]])
    questions = [[QUESTION.format(prompt=d.text) for d, _ in lesson.statements] for lesson in batch.lessons]
    answers = [["yes" if true else "no" for _, true in lesson.statements] for lesson in batch.lessons]
    # decoded codes, because the judge sees only decoded images when it judges candidates
    logp_BQT, _ = model.text_logps(model.decode(codes_BM), questions, answers)
    return -(drawn.mean() + JUDGE_WEIGHT * logp_BQT.sum(-1).mean())


def _understanding(model: Janus, probe_set: ProbeSet) -> Result:
    scored = probe_scores(probe_set, probe_logits(model, probe_set, SelfJudge()))
    return {name: estimate.to_dict() for name, estimate in scored.items()}
