"""Cards for the Hugging Face hub: the dataset card of a pool, and the facts a run adds to a model card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, ModelCard

from unigap.files.markdown import table
from unigap.report.run_folder.contents import Estimates
from unigap.report.run_folder.figures import FIGURES
from unigap.report.run_folder.findings import PERCENT, amount, interval

LICENSE = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
UNKNOWN = "unknown"
"""The hub's id for data without a stated licence."""
METHOD = "[Turning Internal Gap into Self-Improvement](https://arxiv.org/abs/2507.16663)"


@dataclass(frozen=True)
class RoundFacts:
    """Counts of one round of a pool.

    Attributes:
        prompts: Number of prompts.
        images: Number of generated images.
        accepted: Images that the selecting judge accepts.
        unjudged: Images that it has not judged.
    """

    prompts: int
    images: int
    accepted: int
    unjudged: int = 0


@dataclass(frozen=True)
class PoolFacts:
    """Facts for the card of a pool.

    Attributes:
        name: Name of the data set.
        license: Licence of the data, a hub id.
        base: The model that generated the images: folder or hub id.
        judge: The judge whose verdict decides which images are accepted.
        external: Judges whose verdicts are stored for comparison only.
        threshold: Smallest probability of yes that accepts an image.
        rounds: The rounds in order.
        figures: Estimates by metric.
        sampling: Sampling settings by name.
        sha256: Digest of the pool's manifests.
        exact_likelihood: Whether the stored log-likelihoods are exact; otherwise they are estimates.
        drawings: Column of the drawings, ``codes`` or ``latents``; empty if they are left out.
        shape: Shape of a drawing; None for codes (M,).
    """

    name: str
    license: str
    base: str
    judge: str
    external: Sequence[str]
    threshold: float
    rounds: Sequence[RoundFacts]
    figures: Estimates
    sampling: Mapping[str, Any]
    sha256: str
    exact_likelihood: bool
    drawings: str = "codes"
    shape: Sequence[int] | None = None


@dataclass(frozen=True)
class RunFacts:
    """Facts that a run adds to the card of the model it trained.

    Attributes:
        license: Licence of the weights, a hub id.
        judge: The judge that selected the training data.
        rounds: Number of rounds of sampling and judging.
        epochs: Number of training epochs.
        figures: Estimates by metric; empty if the run measured none.
        versions: Version by package.
    """

    license: str
    judge: str
    rounds: int
    epochs: int
    figures: Estimates
    versions: Mapping[str, str]


def check_license(license: str) -> str:
    """Return a licence id unchanged.

    Raises:
        ValueError: It does not have the form of a hub id; the hub would refuse the card.

    >>> check_license("cc-by-4.0")
    'cc-by-4.0'
    """
    if not LICENSE.fullmatch(license):
        raise ValueError(
            f"license {license!r} is not written as the hub writes it; give an id such as apache-2.0 or cc-by-4.0"
        )
    return license


def figure_rows(figures: Estimates) -> list[tuple[str, str, str, str, str]]:
    """Return name, value, interval, number of samples and meaning of each metric that has a value."""
    rows = []
    for key, metric in FIGURES.items():
        estimate = figures.get(key)
        if estimate is not None and estimate.measured:
            unit = PERCENT if metric.share else ""
            value = f"{amount(estimate.value, metric.share)}{unit}"
            rows.append((metric.name, value, interval(estimate, metric.share), f"{estimate.n:,}", metric.meaning))
    return rows


def figures_section(figures: Estimates) -> str:
    """Return the estimates as a table, or a sentence that there are none."""
    rows = figure_rows(figures)
    if not rows:
        return "Nothing was measured."
    return table(("metric", "value", f"95{PERCENT} interval", "n", "meaning"), rows)


def license_text(license: str) -> str:
    """Return the licence as text."""
    return "none was given: ask before you use it" if license == UNKNOWN else license


def pool_card(facts: PoolFacts) -> str:
    """Return the dataset card of a pool: the text of ``README.md``."""
    images, accepted, unjudged = (
        sum(getattr(row, name) for row in facts.rounds) for name in ("images", "accepted", "unjudged")
    )
    data = DatasetCardData(
        license=facts.license,
        pretty_name=facts.name,
        task_categories=["text-to-image", "visual-question-answering"],
        tags=["unigap", "self-improvement", "synthetic"],
        size_categories=[size_category(images)],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    )
    others = ", ".join(f"`{name}`" for name in facts.external) or "none"
    statements = [
        ("images generated by", f"`{facts.base}`"),
        ("selecting judge", f"`{facts.judge}`, accepting at a probability of yes of {facts.threshold} or more"),
        ("judges for comparison only", others),
        ("rounds", len(facts.rounds)),
        ("images", f"{images:,}, {accepted:,} accepted" + (f", {unjudged:,} not judged" if unjudged else "")),
        ("data licence", license_text(facts.license)),
        ("pool digest", f"`{facts.sha256}`"),
        ("`logp`", "exact" if facts.exact_likelihood else "an estimate; the model has no exact likelihood"),
    ]
    rounds = [
        (number, row.prompts, row.images, row.accepted, f"{row.accepted / max(row.images - row.unjudged, 1):.1%}")
        for number, row in enumerate(facts.rounds)
    ]
    body = [
        f"# {facts.name}\n",
        "Images that a unified multimodal model generated for prompts, with the verdict of each judge, collected by "
        f"`unigap`. The method is {METHOD}: a model learns from those of its own images that its understanding branch "
        f"accepts. `verdicts` holds each judge's probability of yes. {drawings_text(facts)}\n",
        table(("", ""), statements),
        "\n## Rounds\n",
        table(("round", "prompts", "images", "accepted", "share of those judged"), rounds),
        "\n## Figures\n",
        figures_section(facts.figures),
        "\n## Sampling\n",
        table(("setting", "value"), list(facts.sampling.items())),
        "",
    ]
    return str(DatasetCard("\n".join(["---", data.to_yaml(), "---", *body])))


def drawings_text(facts: PoolFacts) -> str:
    """Return what the card says about the drawings."""
    shape = f" (flat; reshape each to {tuple(facts.shape)})" if facts.shape else ""
    if not facts.drawings:
        return "The sampled latents are left out: train on the pool itself, because encoding an image gives others."
    if facts.drawings == "latents":
        return f"`latents` holds the sampled latents{shape}: train on these, because encoding an image gives others."
    return (
        f"`codes` holds the sampled image tokens{shape}: train on these, because encoding an image again gives other "
        "tokens."
    )


def with_run(text: str, facts: RunFacts) -> str:
    """Return a saved model's card with the facts of its run, placed before the recipe.

    Args:
        text: The card that ``UnifiedModel.save`` wrote.
        facts: The facts to add.
    """
    card = ModelCard(text)
    card.data["license"] = facts.license
    about, heading, recipe = card.text.partition("## Recipe\n")
    statements = [
        ("judge that selected the training data", f"`{facts.judge}`"),
        ("rounds of sampling and judging", facts.rounds),
        ("epochs", facts.epochs),
        ("licence", license_text(facts.license)),
        *((f"{name} version", version) for name, version in facts.versions.items()),
    ]
    card.text = "\n".join(
        [
            about.rstrip(),
            f"\nThe method is self-improvement, {METHOD}: the model generated images, a judge decided which of them "
            "match their prompt, and the shared LLM was trained on those.\n",
            table(("", ""), statements),
            "\n## Figures after training, on held-out prompts\n",
            figures_section(facts.figures),
            "\nNon-unification alone proves nothing: it also falls when a judge starts to say yes to everything. Read "
            "it together with generation accuracy and the precision of yes.",
            f"\n{heading}{recipe}",
        ]
    )
    return str(card)


def size_category(rows: int) -> str:
    """Return the hub's size category for a number of rows.

    >>> size_category(12), size_category(20_000), size_category(5_000_000)
    ('n<1K', '10K<n<100K', '1M<n<10M')
    """
    steps = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for most, name in steps if rows < most), "1M<n<10M" if rows < 10_000_000 else "n>10M")
