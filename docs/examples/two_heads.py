"""Predict and measure how one step of generation training changes both heads of a small model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import theory

# Shape legend: n samples, T tokens, P probes, A alternative prompts of a probe.

PROMPTS, CODES, WIDTH = 4, 8, 24


class TwoHeads(nn.Module):
    """Shared trunk over the cumulative sum of token embeddings, with a generation head and an understanding head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(PROMPTS + CODES + 1, WIDTH)
        self.trunk = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.generation_head, self.understanding_head = nn.Linear(WIDTH, CODES), nn.Linear(WIDTH, PROMPTS)

    def forward(self, tokens_nT: Tensor) -> Tensor:
        """Return the hidden state after each token, shape (n, T, WIDTH)."""
        return self.trunk(self.embed(tokens_nT).cumsum(1))


def image_logp(model: TwoHeads, batch: dict[str, Tensor]) -> Tensor:
    """Return log pi(image | prompt) of rows [prompt | codes], shape (n,)."""
    codes_nT = batch["rows"][:, 1:] - PROMPTS
    logits = model.generation_head(model(batch["rows"][:, :-1]))
    return logits.log_softmax(-1).gather(-1, codes_nT[..., None])[..., 0].sum(1)


def answer_logp(model: TwoHeads, batch: dict[str, Tensor]) -> Tensor:
    """Return log pi(prompt | image, question) of rows [codes | question], shape (n,)."""
    logits = model.understanding_head(model(batch["question_rows"])[:, -1])
    return logits.log_softmax(-1).gather(-1, batch["prompt"][:, None])[:, 0]


def main() -> None:
    """Print the accuracy of the predictions."""
    torch.manual_seed(0)
    model = TwoHeads().double().eval()
    prompt_P, image_PT = torch.arange(12) % PROMPTS, PROMPTS + torch.randint(CODES, (12, 5))

    # probes: the first four images, each with all prompts (its own first), and the question about each
    own = torch.stack([(prompt_P[:4] + shift) % PROMPTS for shift in range(PROMPTS)], 1)
    alternatives_PAT = torch.cat([own[..., None], image_PT[:4, None].expand(-1, PROMPTS, -1)], -1)
    question_P1 = torch.full((12, 1), PROMPTS + CODES)
    questions = {"question_rows": torch.cat([image_PT, question_P1], 1), "prompt": prompt_P}
    four = {name: tensor[:4] for name, tensor in questions.items()}
    probes = theory.Probes(image_logp, {"rows": alternatives_PAT.flatten(0, 1)}, PROMPTS, (answer_logp, four))

    # train on the likelihood of the other eight images
    train = (image_logp, {"rows": torch.cat([prompt_P[4:, None], image_PT[4:]], 1)})
    unit, before = theory.predict_sft(model, probes, train, eta=1.0), theory.read(model, probes)
    etas = torch.tensor([1e-4, 3e-4, 1e-3], dtype=torch.float64)
    errors: dict[str, list[float]] = {"generation": [], "bayes": [], "head": []}
    for eta in etas.tolist():
        stepped = copy.deepcopy(model)
        (-image_logp(stepped, train[1]).mean()).backward()
        with torch.no_grad():
            for parameter in stepped.parameters():
                if parameter.grad is not None:
                    parameter -= eta * parameter.grad
        change = theory.read(stepped, probes).since(before)
        for name, values in errors.items():
            values.append(float((getattr(change, name) - eta * getattr(unit, name)).norm()))
    for name, title in (("generation", "Lemma 1"), ("bayes", "Lemma 2"), ("head", "the head's own change")):
        print(f"{title}: order of the error {theory.error_order(etas, torch.tensor(errors[name])):.1f}")

    # AdamW does not step along the gradient: predict along its actual step
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    probe = theory.StepProbe(model, optimizer, [(image_logp, train[1]), (answer_logp, questions)])
    for _ in range(2):
        optimizer.zero_grad()
        (-image_logp(model, train[1]).mean()).backward()
        probe.before()
        optimizer.step()
        report = probe.after()
    print(f"AdamW, along the actual step: R^2 {report.fit().r2:.3f}")

    # does training on an image change the answer about that image more than the answer about another?
    paired = {"rows": torch.cat([prompt_P[:, None], image_PT], 1)}
    kernel = theory.gram(model, [(image_logp, paired), (answer_logp, questions)])
    coupling = theory.alignment(kernel).own_cosine
    result = "significantly above chance" if coupling.p_value < 0.05 else "no significant difference from chance"
    print(f"own pairs: {result}")


if __name__ == "__main__":
    main()
