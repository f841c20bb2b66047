"""Critique judge: the judge explains what it sees, and its verdict comes after the explanation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import logsigmoid

from unigap.judges.answer_mass import AnsweringJudge, check_mass
from unigap.judges.asked import ExplainingJudge, Writing
from unigap.models.base import Answers, UnifiedModel
from unigap.records import Candidate

# Shape legend: B images, K explanations an image.

INSTRUCTION = (
    'Compare this image with the description "{prompt}". Name each part of the description and say whether the image '
    "shows it. Be brief, and give no verdict yet."
)
QUESTION = 'So does this image show "{prompt}"? Please answer yes or no.'


class CritiqueJudge(AnsweringJudge):
    """Lets another judge explain before it answers (chain of thought).

    The log-odds are those of yes against no as the first token after the explanation. With several explanations, they
    are the log-odds of the mean probability of yes over all of them (self-consistency), which estimates the probability
    of yes whatever the explanation.

    The judge must write text, as ``OpenAIJudge`` and ``VQAJudge`` do. The model under training cannot be asked: its
    protocol has no text generation.

    Args:
        judge: The judge that explains and answers; its own question is not asked.
        instruction: What it explains, with a ``{prompt}`` in it.
        question: The question after the explanation, with a ``{prompt}`` in it.
        explanations: Explanations for each image. One is written greedily; several are sampled.
        temperature: Sampling temperature of several explanations, > 0.
        max_tokens: Most tokens of an explanation; a longer one is cut off.
    """

    def __init__(
        self,
        judge: ExplainingJudge,
        instruction: str = INSTRUCTION,
        question: str = QUESTION,
        explanations: int = 1,
        temperature: float = 0.7,
        max_tokens: int = 256,
    ) -> None:
        for name, text in (("instruction", instruction), ("question", question)):
            if "{prompt}" not in text:
                raise ValueError(f"{name} {text!r} has no {{prompt}} to put the prompt in")
        if explanations < 1 or max_tokens < 1:
            raise ValueError(f"explanations and max_tokens must be >= 1, got {explanations} and {max_tokens}")
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0, got {temperature}; a single explanation is greedy anyway")
        self.judge, self.instruction, self.question = judge, instruction, question
        self.explanations, self.temperature, self.max_tokens = explanations, temperature, max_tokens

    @property
    def name(self) -> str:
        several = f"-of-{self.explanations}" if self.explanations > 1 else ""
        return f"critique{several}-{self.judge.name}"

    @torch.no_grad()
    def answers(self, model: UnifiedModel, candidates: Sequence[Candidate], pixels_BCHW: torch.Tensor) -> Answers:
        prompts = [candidate.prompt.text for candidate in candidates]
        requests = [self.instruction.replace("{prompt}", text) for text in prompts]
        how = Writing(self.explanations, self.temperature if self.explanations > 1 else 0.0, self.max_tokens)
        explained = self.judge.explain(model, requests, pixels_BCHW, how)
        chats_BK = [
            [(request, explanation, self.question.replace("{prompt}", text)) for explanation in explanations]
            for request, text, explanations in zip(requests, prompts, explained, strict=True)
        ]
        answers_BK = self.judge.ask_after(model, chats_BK, pixels_BCHW)
        answers = Answers(log_odds_of_mean(answers_BK.logit), answers_BK.mass.mean(1))
        check_mass(self.name, answers.mass)
        return answers


def log_odds_of_mean(logit_BK: torch.Tensor) -> torch.Tensor:
    """Return the log-odds (B,) of the mean probability over K log-odds, without rounding probabilities to 0 or 1.

    >>> log_odds_of_mean(torch.tensor([[2.0, 2.0], [3.0, -3.0]]))
    tensor([2., 0.])
    """
    return logsigmoid(logit_BK).logsumexp(1) - logsigmoid(-logit_BK).logsumexp(1)
