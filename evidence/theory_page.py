"""Write ``theory.md``; each sentence about a result is built from the numbers that it states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from evidence import theory_summary as summary
from evidence.corrections import categories
from evidence.markdown import shown
from evidence.one_step import BUDGETS, READINGS, ROUNDING, SMALL
from evidence.theory_figures import SCORE_NAMES, TITLES, draw_figures
from evidence.theory_plan import TheoryPlan
from unigap.callbacks.dynamics_probes import GROUPS
from unigap.files.durable import make_folder, write_durable
from unigap.files.markdown import table
from unigap.metrics.intervals import Estimate

PARTS = {"predicted": "whole step", "gradient": "current gradient alone", "momentum": "momentum alone"}
Rows = Sequence[Sequence[str]]


def write_page(plan: TheoryPlan, results: summary.Results, out: Path) -> Path:
    """Write the page and its figures.

    Returns:
        The page.
    """
    make_folder(out)
    draw_figures(results, plan.seeds, categories(plan), out)
    sections = (_head, _lemmas, _coupling, _corrections, _confirmation, _bayes)
    text = "\n\n".join(section(plan, results) for section in sections) + "\n"
    write_durable(out / "theory.md", text.encode())
    return out / "theory.md"


def against(estimate: Estimate, chance: float) -> str:
    """Return the side of a value on which an interval lies: above, below, or not significantly different."""
    if math.isnan(estimate.low):
        return "unknown against"
    return ("not significantly different from", "above", "below")[estimate.side(chance)]


def _head(plan: TheoryPlan, results: summary.Results) -> str:
    steps = ", ".join(str(results[f"improve-{seed}"]["steps"]) for seed in plan.seeds)
    seeds, weights = ", ".join(map(str, plan.seeds)), str(plan.recipe()["weights"])[:12]
    return f"""# Learning dynamics, measured on the embedded model

Written by `python -m evidence theory` from `{plan.checkpoint}` (weights {weights}); all results are in
`theory.parquet`.
Seeds {seeds}: each samples its own candidates, trains its own run ({steps} steps of SFT at learning rate
{plan.lr:g}) and samples its own test images. Intervals are 95 %: Student's t over seeds, or, where stated, a bootstrap
over prompts of all seeds. Intervals over seeds are clipped to the range of the figure, e.g. at 1 for R^2 and
correlations. Generation is log pi(image | prompt); understanding is the judge's log-odds of yes. All gradients are over
the shared LLM, the only part that trains."""


def _lemmas(plan: TheoryPlan, results: summary.Results) -> str:
    figures = summary.one_step_table(results, plan.seeds)
    rows = [
        [objective.upper(), TITLES[reading], *(shown(figures[objective, reading][k]) for k in ("r2", "slope", "order"))]
        for objective in ("sft", "dpo")
        for reading in READINGS
    ]
    sizes = [
        [objective.upper(), TITLES[reading], *map(shown, summary.r2_by_step(results, plan.seeds, objective, reading))]
        for objective in ("sft", "dpo")
        for reading in READINGS
    ]
    adamw = summary.adamw_table(results, plan.seeds)
    steps = [
        [head, PARTS[part], *(shown(found[k]) for k in ("r2", "slope", "correlation"))]
        for (head, part), found in adamw.items()
    ]
    worst = min(found["r2"].value for found in figures.values())
    whole = min(found["r2"].value for (_, part), found in adamw.items() if part == "predicted")
    alone = max(found["r2"].value for (_, part), found in adamw.items() if part == "gradient")
    return f"""## 1. Do the lemmas predict one step?

With SGD, at the step that lowers the loss by {BUDGETS[1]} nats to first order, the lowest of the six R^2 is
{worst:.3f}. Along AdamW's actual step, over all watched steps of self-improvement, R^2 is at least {whole:.3f}. The
current gradient alone (the kernel of the lemmas with AdamW's scaling) reaches at most {alone:.3f}. DPO starts from the
model after SFT, with the base model as reference; otherwise all margins would be zero.

{table(["objective", "what changes", "R^2", "slope", "order of the error in eta"], rows)}

R^2 by step size. Columns: first-order decrease of the loss, in nats.

{table(["objective", "what changes", *map(str, BUDGETS)], sizes)}

AdamW, over all watched steps of self-improvement:

{table(["head", "prediction along", "R^2", "slope", "correlation"], steps)}

All correlations of this section are over the probes of a seed, across categories, because the results do not store
the category of a probe. The order is fitted over the steps whose error lies between {ROUNDING:g} nats (float32
rounding) and {SMALL:.0%} of the change; a dash means that no seed has two such steps.

![Predicted and measured change of one SGD step](theory-lemmas.png)"""


def _coupling(plan: TheoryPlan, results: summary.Results) -> str:
    figures = summary.coupling_table(results, plan.seeds)
    rows = [
        [
            subject,
            shown(row["own_cosine"], 4),
            shown(row["own_cosine_null"], 4),
            f"{row['own_cosine_p']:.3f}",
            shown(row["coupling"], 4),
            f"{row['coupling_p']:.3f}",
            f"{shown(row['cka'], 2)} (null {shown(row['cka_null'], 2)})",
        ]
        for subject, row in figures.items()
    ]
    base, improved, parts = figures["base"], figures["improved"], summary.part_table(results, plan.seeds)
    apart = figures["two trunks"]
    first, second = sorted(parts, key=lambda name: -parts[name][0].value)[:2]
    return f"""## 2. How large is the coupling, and where is it?

The mean cosine between the two gradients of one image is {shown(base["own_cosine"], 4)} in the base model. If the
questions are permuted among the images it is {shown(base["own_cosine_null"], 4)} (largest p of a seed
{base["own_cosine_p"]:.3f}). After self-improvement it is {shown(improved["own_cosine"], 4)}. Without the direction that
is common to all images, the coupling is {shown(base["coupling"], 4)} (largest p {base["coupling_p"]:.3f}). Two trunks
without shared weights give {apart["own_cosine"].value:g}. The parts that contribute most are {first}
({shown(parts[first][0], 4)}) and {second} ({shown(parts[second][0], 4)}). CKA is listed because it is often reported:
the two trunks without shared weights have {shown(apart["cka"], 2)}.

{table(["model", "own-pair cosine", "its null", "largest p", "coupling", "largest p", "CKA"], rows)}

![Coupling by model, by part of the network, and during self-improvement](theory-coupling.png)"""


def _corrections(plan: TheoryPlan, results: summary.Results) -> str:
    category_of = categories(plan)
    wrong = summary.false_positives(results, plan.seeds, category_of)
    scores = summary.correction_table(wrong)
    kinds = ("auroc", "auroc_within", "rank", "rank_within")
    rows = [[SCORE_NAMES[name], *(shown(found[kind]) for kind in kinds)] for name, found in scores.items()]
    counts = [
        [name, str(count), str(corrected), f"{100 * corrected / count:.0f} %" if count else "-"]
        for name, (count, corrected) in summary.corrections_by_category(wrong, category_of).items()
    ]
    kernel, doubt, category = scores["kernel"], scores["p_yes"], scores["category"]
    best = max(summary.SCORES, key=lambda name: scores[name]["auroc_within"].value if scores[name]["auroc"].n else -1.0)
    return f"""## 3. Does the kernel before training predict which false positives are corrected?

Over all seeds, the base judge wrongly accepts {len(wrong.corrected_F)} held-out images. After self-improvement it
rejects {int(wrong.unmatched_F.sum())} of them at the old threshold, and {int(wrong.corrected_F.sum())} at the threshold
that keeps its yes-rate. The scores below predict the latter. They are fixed before training, and their direction is
given by the theory. The share of corrected false positives differs by category:

{table(["category", "false positives", "corrected", "share"], counts)}

So a score can look good only because it distinguishes categories. The share of a category that was corrected in the
other seeds uses nothing of the image itself, and has AUROC {shown(category["auroc"])}. Over all false positives, the
kernel along the SFT gradient has {shown(kernel["auroc"])} and the judge's own doubt {shown(doubt["auroc"])}. Among
images of the same category and seed, the kernel has {shown(kernel["auroc_within"])},
{against(kernel["auroc_within"], 0.5)} one half, and the judge's own doubt {shown(doubt["auroc_within"])},
{against(doubt["auroc_within"], 0.5)} one half. The highest within a category is {SCORE_NAMES[best]}.

{table(["score", "AUROC", "within category and seed", "rank correlation with the fall", "within"], rows)}

AUROC is for being corrected. The rank correlation is with the decrease of the log-odds, over all false positives.
"Within" compares only images of the same category and seed. Intervals: bootstrap over the prompts of each seed.

![How well each score predicts the corrected false positives](theory-corrections.png)"""


def _confirmation(plan: TheoryPlan, results: summary.Results) -> str:
    figures = summary.coupling_table(results, plan.seeds)
    rows = [
        [
            subject,
            *(
                f"{shown(figures[subject][group], 4)} (null {shown(figures[subject][f'{group}_null'], 4)}, "
                f"p <= {figures[subject][f'{group}_p']:.3f})"
                for group in ("true accept", "false accept")
            ),
        ]
        for subject in ("base", "shared tokens")
    ]
    moved = summary.judge_movement(results, plan.seeds)
    changes = [
        [
            group,
            shown(moved[group]["predicted"]),
            shown(moved[group]["predicted_adam"]),
            shown(moved[group]["realised"]),
        ]
        for group in GROUPS
    ]
    false = {subject: figures[subject]["false accept"] for subject in ("base", "shared tokens")}
    probes = results["shared"]["after"]
    wrong = moved["false accept"]
    return f"""## 4. Does the coupling reinforce wrong verdicts?

If the own-pair cosine is positive on false accepts too, training on a wrongly accepted image raises its log-odds of
yes. On false accepts it is {shown(false["base"], 4)} in the small Janus, {against(false["base"], 0.0)} zero, and
{shown(false["shared tokens"], 4)} in the same model trained to understand its own image tokens,
{against(false["shared tokens"], 0.0)} zero. (That control has an accuracy of
{probes["understanding_renders"]["value"]:.3f} on the probe set after {plan.shared_steps} training steps; there is one
such model, with its own candidates for each seed.)

{table(["model", "true accepts", "false accepts"], rows)}

The table compares the prediction for self-improvement with training, on held-out images: the first-order change of the
log-odds along the SFT gradient and along AdamW's first step, both per unit step, and the realised change. On false
accepts the gradient predicts a change {against(wrong["predicted"], 0.0)} zero, AdamW's first step a change
{against(wrong["predicted_adam"], 0.0)} zero, and the realised change is {against(wrong["realised"], 0.0)} zero.

{table(["held-out images", "predicted, gradient", "predicted, AdamW's first step", "realised (nats)"], changes)}"""


def _bayes(plan: TheoryPlan, results: summary.Results) -> str:
    figures = summary.bayes_table(results, plan.seeds, categories(plan))
    rows = [
        [name, shown(pooled), against(pooled, 0.0) + " zero", "not stored" if within is None else shown(within)]
        for name, (pooled, within) in figures.items()
    ]
    whole, within = figures["all of SFT self-improvement, measured"]
    assert within is not None
    lemma = summary.one_step_table(results, plan.seeds)["sft", "bayes"]["r2"]
    return f"""## 5. Does Bayes' form of Delta U agree with the understanding head?

Lemmas 2 and 4 are about understanding computed by Bayes' formula from the generation branch, over a prompt and
{plan.alternatives - 1} hard negatives of it. The understanding head is another function of the shared LLM. Over all of
self-improvement, the changes of the two have rank correlation {shown(whole)} on held-out images,
{against(whole, 0.0)} zero; within a category {shown(within)}, {against(within, 0.0)} zero.
This does not test the derivation: Lemma 2 predicts the change of the Bayes form itself with R^2 {shown(lemma)} in one
step. It tests whether the quantity of the lemma is the understanding that one measures by asking the model.

{table(["Bayes' change against the head's", "rank correlation", "it is", "within a category"], rows)}

The results of the one-step experiment do not store the category of an image.

![Change through Bayes against the understanding head's](theory-bayes.png)"""
