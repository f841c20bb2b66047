"""Cards for the Hugging Face hub: what a pool is made of, and what a run knows of the model it trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from unigap.files.markdown import table
from unigap.report.run_folder.contents import Reading, Readings
from unigap.report.run_folder.findings import GAP, JUDGE, PERCENT, amount, interval

LICENSE = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
UNKNOWN = "unknown"
"""The hub's own word for data nobody has given a licence to."""
METRICS = {metric.key: metric for metric in (*GAP, *JUDGE)}
METHOD = "[Turning Internal Gap into Self-Improvement](https://arxiv.org/abs/2507.16663)"


@dataclass(frozen=True)
class RoundFacts:
    """A round of a pool in numbers.

    Attributes:
        prompts: Prompts drawn for.
        images: Images drawn.
        accepted: Images that the judge that selects accepts.
        unjudged: Images that it has not judged.
    """

    prompts: int
    images: int
    accepted: int
    unjudged: int = 0


@dataclass(frozen=True)
class PoolFacts:
    """What the card of a pool states.

    Attributes:
        name: Name of the data set.
        license: Licence of the data, as the hub writes it.
        base: The model that drew the images: folder or hub id.
        judge: Who selects: its verdict decides what is accepted.
        external: Judges that were asked for comparison only.
        threshold: Least probability of yes that counts as accepted.
        rounds: Its rounds.
        figures: Readings by metric.
        sampling: How the images were drawn, by name.
        sha256: Digest of the pool's manifests.
        exact_likelihood: Whether the stored log-likelihoods are exact; else they are estimates.
    """

    name: str
    license: str
    base: str
    judge: str
    external: Sequence[str]
    threshold: float
    rounds: Sequence[RoundFacts]
    figures: Readings
    sampling: Mapping[str, Any]
    sha256: str
    exact_likelihood: bool


@dataclass(frozen=True)
class RunFacts:
    """What a run adds to the card of the model it trained.

    Attributes:
        license: Licence of the weights, as the hub writes it.
        judge: Who selected the training data.
        rounds: Rounds of drawing and judging it was trained on.
        epochs: Epochs it was trained for.
        figures: Readings by metric; empty where the run measured none.
        versions: Version by package.
    """

    license: str
    judge: str
    rounds: int
    epochs: int
    figures: Readings
    versions: Mapping[str, str]


def check_license(license: str) -> str:
    """A licence as the hub writes it.

    Raises:
        ValueError: It is not written so; the hub would refuse the card.

    >>> check_license("cc-by-4.0")
    'cc-by-4.0'
    """
    if not LICENSE.fullmatch(license):
        raise ValueError(
            f"license {license!r} is not written as the hub writes it; give an id such as apache-2.0 or cc-by-4.0"
        )
    return license


def figure_rows(figures: Readings) -> list[tuple[str, str, str, str, str]]:
    """Name, value, interval, number of samples and meaning of every metric there is a reading of."""
    rows = []
    for key, metric in METRICS.items():
        reading = figures.get(key)
        if reading is not None and reading.value is not None:
            unit = PERCENT if metric.share else ""
            value = f"{amount(reading.value, metric.share)}{unit}"
            rows.append((metric.name, value, interval(reading, metric.share), f"{reading.n:,}", metric.meaning))
    return rows


def figures_section(figures: Readings) -> str:
    """The readings as a table, or a sentence that there are none."""
    rows = figure_rows(figures)
    if not rows:
        return "Nothing was measured."
    return table(("metric", "value", f"95{PERCENT} interval", "n", "what it says"), rows)


def header(entries: Mapping[str, Any]) -> str:
    """The YAML between dashes that the hub reads."""
    return f"---\n{yaml.safe_dump(dict(entries), sort_keys=False, allow_unicode=True)}---\n"


def told_license(license: str) -> str:
    """The licence in words."""
    return "none was given: ask before you use it" if license == UNKNOWN else license


def pool_card(facts: PoolFacts) -> str:
    """The dataset card of a pool.

    Returns:
        The text of ``README.md``.
    """
    drawn, accepted, unjudged = (
        sum(getattr(row, name) for row in facts.rounds) for name in ("images", "accepted", "unjudged")
    )
    entries = {
        "license": facts.license,
        "pretty_name": facts.name,
        "task_categories": ["text-to-image", "visual-question-answering"],
        "tags": ["unigap", "self-improvement", "synthetic"],
        "size_categories": [size_category(drawn)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    others = ", ".join(f"`{name}`" for name in facts.external) or "nobody"
    statements = [
        ("images drawn by", f"`{facts.base}`"),
        ("judge that selects", f"`{facts.judge}`, accepting at a probability of yes of {facts.threshold} or more"),
        ("judges that only measure", others),
        ("rounds", len(facts.rounds)),
        ("images", f"{drawn:,}, of which {accepted:,} accepted" + (f", {unjudged:,} not judged" if unjudged else "")),
        ("data licence", told_license(facts.license)),
        ("pool digest", f"`{facts.sha256}`"),
        ("`logp`", "exact" if facts.exact_likelihood else "an estimate: the model has no exact likelihood"),
    ]
    rounds = [
        (number, row.prompts, row.images, row.accepted, f"{row.accepted / max(row.images - row.unjudged, 1):.1%}")
        for number, row in enumerate(facts.rounds)
    ]
    return "\n".join(
        [
            header(entries),
            f"# {facts.name}\n",
            "Images a unified multimodal model drew for prompts, with what every judge said of each, collected by "
            f"`unigap`. The method is {METHOD}: a model learns from those of its own drawings that its own "
            "understanding accepts. `verdicts` holds each judge's probability of yes; `codes` the image tokens as they "
            "were sampled, which is what to train on (encoding an image again gives other tokens).\n",
            table(("", ""), statements),
            "\n## Rounds\n",
            table(("round", "prompts", "images", "accepted", "share of those judged"), rounds),
            "\n## Figures\n",
            figures_section(facts.figures),
            "\n## How the images were drawn\n",
            table(("setting", "value"), list(facts.sampling.items())),
            "",
        ]
    )


def with_run(card: str, facts: RunFacts) -> str:
    """A saved model's card with what the run knows of it, put before the recipe.

    Args:
        card: What ``UnifiedModel.save`` wrote.
        facts: What the run knows.
    """
    _, head, body = card.split("---\n", 2)
    about, recipe = body.split("## Recipe\n", 1)
    statements = [
        ("judge that selected the training data", f"`{facts.judge}`"),
        ("rounds of drawing and judging", facts.rounds),
        ("epochs", facts.epochs),
        ("licence", told_license(facts.license)),
        *((f"{name} version", version) for name, version in facts.versions.items()),
    ]
    return "\n".join(
        [
            header({"license": facts.license, **yaml.safe_load(head)}) + about.rstrip(),
            f"\nThe method is self-improvement, {METHOD}: the model drew images, a judge said which show what was "
            "asked, and the shared language model learned from them.\n",
            table(("", ""), statements),
            "\n## Figures after training, on held-out prompts\n",
            figures_section(facts.figures),
            "\nNon-unification alone proves nothing: it also falls when a judge starts to say yes to everything. Read "
            "it beside generation accuracy and the precision of yes.",
            f"\n## Recipe\n{recipe}",
        ]
    )


def size_category(rows: int) -> str:
    """The hub's name for how many rows a data set has.

    >>> size_category(12), size_category(20_000), size_category(5_000_000)
    ('n<1K', '10K<n<100K', '1M<n<10M')
    """
    steps = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for most, name in steps if rows < most), "1M<n<10M" if rows < 10_000_000 else "n>10M")


def readings_of(figures: Mapping[str, Mapping[str, Any]]) -> Readings:
    """Readings from figures as ``Estimate.to_dict`` writes them."""
    return {name: Reading(**figure) for name, figure in figures.items()}
