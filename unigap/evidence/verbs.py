"""The verbs that repeat the measurements behind the documentation, one function a topic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal


def evidence_guard(
    out: str = "docs/evidence",
    work: str = "runs/evidence/guard",
    checkpoint: str = "shapes",
    seeds: int = 10,
    epochs: int = 4,
    jobs: int = 2,
) -> None:
    """Count how often the co-degradation guard notices corrupted selection, and how often it is wrong.

    Args:
        out: Folder for ``guard.md`` and ``guard.json``.
        work: Folder of the runs; those it holds are not made again.
        checkpoint: The model: the shipped one, or a folder.
        seeds: Runs of each corrupted arm; the clean one has twice as many.
        epochs: Epochs of a run.
        jobs: Runs made at once, each on one thread.
    """
    from unigap.evidence.guard import GuardPlan, guard_evidence

    for path in guard_evidence(GuardPlan(checkpoint, seeds, epochs), jobs, out, work):
        print(f"evidence: {path}")


def evidence_theory(
    out: str = "docs/evidence",
    work: str = "runs/evidence/theory",
    checkpoint: str = "shapes",
    seeds: int = 3,
) -> None:
    """Measure what theory says of self-improvement, and whether it is true: about half an hour on two CPU cores.

    Args:
        out: Folder for ``theory.md``, its figures and ``theory.json``.
        work: Folder of the arms; those it holds are not measured again.
        checkpoint: The embedded model: the shipped one, or a folder.
        seeds: Number of seeds, counted from 0; three or more give intervals.
    """
    from unigap.evidence.theory import measure_theory
    from unigap.evidence.theory_plan import TheoryPlan

    plan = TheoryPlan(checkpoint=checkpoint, seeds=tuple(range(seeds)))
    print(f"evidence: {measure_theory(plan, Path(out), Path(work))}")


def evidence_claims(
    out: str = "docs/evidence",
    work: str = "docs/evidence/claims",
    checkpoint: str = "shapes",
    only: str = "",
    seeds: int | None = None,
    jobs: int = 2,
    split: Literal["test", "validation"] = "test",
    list: bool = False,
) -> None:
    """Test what the paper claims, each claim with its controls: four to five hours on two CPU cores, resumed by arm.

    Args:
        out: Folder for ``claims.md``, its figures and ``evidence.json``.
        work: Folder of the arms; those it holds are not run again.
        checkpoint: The embedded model: the shipped one, or a folder.
        only: Claims to test, with commas between them: improvement, replay, replay-hard, co-improvement, degradation,
            ablations, ceiling, better-acceptance, better-questions, better-preferences, better-restraint; all where
            left out.
        seeds: Seeds of every arm; each claim's own number (5 or 3) where left out.
        jobs: Arms run at once, each on one thread.
        split: Prompts to measure on: fresh test prompts, or validation prompts to choose between recipes.
        list: Say which arms are needed, which of them are there and how long the others will take, and run nothing.
    """
    from unigap.evidence.claims.command import claims_evidence, list_claims
    from unigap.evidence.claims.setting import Setting

    named = [name.strip() for name in only.split(",") if name.strip()]
    if list:
        print(list_claims(named, seeds, jobs, Path(work)))
        return
    setting = Setting(checkpoint, split=split)
    for path in claims_evidence(setting, named, seeds, jobs, Path(out), Path(work)):
        print(f"evidence: {path}")


def evidence_architectures(
    out: str = "docs/evidence",
    work: str = "docs/evidence/architectures",
    janus: str = "shapes",
    emu3: str = "shapes-emu3",
    emu3_question_first: str = "shapes-emu3-question-first",
    show_o: str = "shapes-show-o",
    seeds: int = 3,
    jobs: int = 2,
) -> None:
    """Ask what the degree of sharing changes: the gap, the coupling of both branches, and co-improvement.

    Args:
        out: Folder for ``architectures.md``, its figure and ``architectures.json``.
        work: Folder of the arms; those it holds are not run again.
        janus: The small Janus: the shipped one, or a folder.
        emu3: The small Emu3, which reads an image before the question.
        emu3_question_first: One that reads the question first.
        show_o: The small Show-o.
        seeds: Seeds of every arm.
        jobs: Arms run at once, each on one thread.
    """
    from unigap.evidence.architectures.command import architectures_evidence
    from unigap.evidence.architectures.plan import ArchitecturesPlan

    plan = ArchitecturesPlan(janus, emu3, emu3_question_first, show_o, seeds)
    for path in architectures_evidence(plan, jobs, Path(out), Path(work)):
        print(f"evidence: {path}")


def evidence_all(out: str = "docs/evidence", checkpoint: str = "shapes") -> None:
    """Write all the evidence: claims, architectures, guard and theory, one after the other; what is there is kept.

    Args:
        out: Folder for the pages, their figures and their numbers.
        checkpoint: The embedded model: the shipped one, or a folder.
    """
    evidence_claims(out, f"{out}/claims", checkpoint)
    evidence_architectures(out, f"{out}/architectures", janus=checkpoint)
    evidence_guard(out, checkpoint=checkpoint)
    evidence_theory(out, checkpoint=checkpoint)


EVIDENCE: dict[str, Any] = {
    "all": evidence_all,
    "claims": evidence_claims,
    "architectures": evidence_architectures,
    "guard": evidence_guard,
    "theory": evidence_theory,
}
