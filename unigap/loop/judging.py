"""Judging sampled candidates: every judge that answers at once gives each a log-odds of yes."""

from __future__ import annotations

from collections.abc import Iterable

from unigap.console import tasks
from unigap.judges import Judge, immediate
from unigap.judges.answer_mass import AnsweringJudge
from unigap.loop.sampling import SampledBatch
from unigap.models.base import UnifiedModel
from unigap.records import Judgment


def judge_samples(model: UnifiedModel, sampled: SampledBatch, judges: Iterable[Judge]) -> list[Judgment]:
    """Ask every judge about every candidate.

    Args:
        model: The model that sampled them, which a self-judge asks.
        sampled: The candidates with their pixels.
        judges: Those that answer later are left out; one that is named twice is asked once.
    """
    judgments = []
    named = {judge.name: judge for judge in immediate(judges)}
    for name, judge in named.items():
        with tasks.part("judging", len(sampled.candidates) / len(named)):
            logits, masses = _answers(judge, model, sampled)
        rows = zip(sampled.candidates, logits, masses, strict=True)
        judgments += [Judgment(candidate.id, name, logit, mass) for candidate, logit, mass in rows]
    return judgments


def _answers(judge: Judge, model: UnifiedModel, sampled: SampledBatch) -> tuple[list[float], list[float | None]]:
    """Log-odds of yes and, for a judge that answers in words, P(yes) + P(no)."""
    if isinstance(judge, AnsweringJudge):
        answers = judge.answers(model, sampled.candidates, sampled.pixels_BCHW)
        return answers.logit.tolist(), answers.mass.tolist()
    logits = judge.logits(model, sampled.candidates, sampled.pixels_BCHW).tolist()
    return logits, [None] * len(logits)
