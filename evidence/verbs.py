"""The verbs that repeat the measurements behind the documentation, one function a topic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

OUT = "docs/evidence"


def guard(
    out: str = OUT,
    checkpoint: str = "shapes",
    seeds: int = 2,
    jobs: int = 2,
) -> None:
    """Count how often the guard detects corrupted selection, and how often it raises a false alarm.

    Args:
        out: Folder for the page and for the results, guard.parquet; stored runs are not repeated.
        checkpoint: The model: the shipped one, or a folder.
        seeds: Runs of each corrupted arm; each clean arm has three times as many, and twice as many for choosing
            tolerances.
        jobs: Runs in parallel, each on one thread.
    """
    from evidence.guard import guard_evidence
    from evidence.guard_arms import GuardPlan

    _print_paths(guard_evidence(GuardPlan(checkpoint, seeds), jobs, Path(out)))


def theory(
    out: str = OUT,
    work: str = "runs/evidence/theory",
    checkpoint: str = "shapes",
    seeds: int = 3,
) -> None:
    """Compare the predictions of the theory with self-improvement: about half an hour on two CPU cores.

    Args:
        out: Folder for the page and for the results, theory.parquet; stored arms are not measured again.
        work: Folder of the pools and weights that later arms read.
        checkpoint: The embedded model: the shipped one, or a folder.
        seeds: Number of seeds, counted from 0; three or more give intervals.
    """
    from evidence.theory import measure_theory
    from evidence.theory_plan import TheoryPlan

    plan = TheoryPlan(checkpoint=checkpoint, seeds=tuple(range(seeds)))
    _print_paths([measure_theory(plan, Path(out), Path(work))])


def claims(
    out: str = OUT,
    checkpoint: str = "shapes",
    only: str = "",
    seeds: int | None = None,
    jobs: int = 2,
    split: Literal["test", "validation"] = "test",
    list: bool = False,
) -> None:
    """Test the claims of the paper with controls: four to five hours on two CPU cores, can be interrupted.

    Args:
        out: Folder for the page and for the results, claims.parquet; stored arms are not run again.
        checkpoint: The embedded model: the shipped one, or a folder.
        only: Claims to test, separated by commas: improvement, replay, replay-hard, co-improvement, degradation,
            ablations, ceiling, better-acceptance, better-questions, better-preferences, better-restraint; empty tests
            all.
        seeds: Seeds of each arm; null is the number of each claim (5 or 3).
        jobs: Arms in parallel, each on one thread.
        split: Prompts to measure on: test prompts, or validation prompts to choose between recipes.
        list: Only print the arms, which of them are stored, and how long the others will take.
    """
    from evidence.claims.command import claims_evidence, list_claims
    from evidence.claims.setting import Setting

    named = [name.strip() for name in only.split(",") if name.strip()]
    if list:
        print(list_claims(named, seeds, jobs, Path(out)))
        return
    _print_paths(claims_evidence(Setting(checkpoint, split=split), named, seeds, jobs, Path(out)))


def architectures(
    out: str = OUT,
    janus: str = "shapes",
    emu3: str = "shapes-emu3",
    emu3_question_first: str = "shapes-emu3-question-first",
    show_o: str = "shapes-show-o",
    seeds: int = 3,
    jobs: int = 2,
) -> None:
    """Compare the gap, the coupling and co-improvement of architectures that share more or less.

    Args:
        out: Folder for the page and for the results, architectures.parquet; stored arms are not run again.
        janus: The small Janus: the shipped one, or a folder.
        emu3: The small Emu3; an image comes before the question.
        emu3_question_first: The small Emu3 in which the question comes first.
        show_o: The small Show-o.
        seeds: Seeds of each arm.
        jobs: Arms in parallel, each on one thread.
    """
    from evidence.architectures.command import architectures_evidence
    from evidence.architectures.plan import ArchitecturesPlan

    plan = ArchitecturesPlan(janus, emu3, emu3_question_first, show_o, seeds)
    _print_paths(architectures_evidence(plan, jobs, Path(out)))


def everything(out: str = OUT, checkpoint: str = "shapes") -> None:
    """Write all evidence: claims, architectures, guard and theory; stored arms are not measured again.

    Args:
        out: Folder for pages, figures and results.
        checkpoint: The embedded model: the shipped one, or a folder.
    """
    claims(out, checkpoint)
    architectures(out, janus=checkpoint)
    guard(out, checkpoint=checkpoint)
    theory(out, checkpoint=checkpoint)


def pretraining(checkpoint: str, out: str = OUT, seeds: int = 3, jobs: int = 2) -> None:
    """Compare what self-improvement gains with a recall control, and the gap with the targets of the pretraining.

    Args:
        checkpoint: A Janus that was pretrained with ``PretrainingCurve``.
        out: Folder for the page and for the results, pretraining.parquet; arms that file holds are not run again.
        seeds: Seeds of both arms.
        jobs: Arms run at once, each on one thread.
    """
    from evidence.pretraining import demo_setting, pretraining_evidence

    _print_paths(pretraining_evidence(demo_setting(checkpoint), seeds, jobs, Path(out)))


def coverage(out: str = OUT, repeats: int = 200) -> None:
    """Simulate how often the intervals of the claims hold the true value.

    Args:
        out: Folder for the page.
        repeats: Simulations of each row.
    """
    from evidence.coverage import coverage_page

    if repeats < 1:
        raise ValueError(f"--repeats must be >= 1, got {repeats}")
    _print_paths(coverage_page(repeats, Path(out)))


def forget(file: str, name: str) -> None:
    """Remove the result of an arm from a results file; the next run measures it again.

    Args:
        file: The results file, e.g. docs/evidence/claims.parquet.
        name: Name of the arm and its seed, e.g. dpo-seed-0.
    """
    from evidence.results_file import ResultsFile

    results = ResultsFile(Path(file))
    if name not in results.results():
        raise ValueError(f"{file} holds no result of {name!r}")
    results.remove(name)
    print(f"{file}: forgot {name}")


def _print_paths(paths: list[Path]) -> None:
    for path in paths:
        print(f"evidence: {path}")


TOPICS: dict[str, Any] = {
    "all": everything,
    "claims": claims,
    "architectures": architectures,
    "guard": guard,
    "theory": theory,
    "pretraining": pretraining,
    "coverage": coverage,
    "forget": forget,
}
