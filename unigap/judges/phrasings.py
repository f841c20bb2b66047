"""Self-consistency over phrasings: one judge, asked the same thing in several ways."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unigap.judges.answer_mass import AnsweringJudge, check_mass
from unigap.judges.asked import AskedJudge
from unigap.judges.ensemble import Rule, check_rule, combined
from unigap.models.base import Answers, UnifiedModel
from unigap.records import Candidate


class PhrasingsJudge(AnsweringJudge):
    """Asks another judge the same question in several phrasings, and combines the answers.

    The log-odds are the mean, the minimum or the median of those of the phrasings; with ``majority``, the median, the
    verdict is that of most phrasings.

    Args:
        judge: The judge that is asked, such as ``SelfJudge``, ``VQAJudge`` or ``OpenAIJudge``; its own question is not
            asked.
        questions: Two phrasings or more, with a ``{prompt}`` in each.
        rule: ``mean``, ``min`` or ``majority``, see ``EnsembleJudge``.
    """

    def __init__(self, judge: AskedJudge, questions: Sequence[str], rule: Rule = "majority") -> None:
        if len(questions) < 2:
            raise ValueError(f"PhrasingsJudge needs two questions or more, got {len(questions)}; use the judge itself")
        for question in questions:
            if "{prompt}" not in question:
                raise ValueError(f"question {question!r} has no {{prompt}} to put the prompt in")
        check_rule(rule)
        self.judge, self.questions, self.rule = judge, tuple(questions), rule

    @property
    def name(self) -> str:
        return f"{self.rule}-of-{len(self.questions)}-phrasings-{self.judge.name}"

    @torch.no_grad()
    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        if not candidates:
            return Answers(pixels_BCHW.new_zeros(0), pixels_BCHW.new_zeros(0))
        texts = [[q.replace("{prompt}", candidate.prompt.text) for q in self.questions] for candidate in candidates]
        answers_BQ = self.judge.ask_each(model, texts, pixels_BCHW)
        answers = Answers(combined(answers_BQ.logit.T, self.rule), answers_BQ.mass.mean(1))
        check_mass(self.name, answers.mass)
        return answers
