"""Predict and measure how one step that trains generation only changes both heads of a small model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import theory

# Shape legend: n samples, T tokens, P probes, A alternative prompts of a probe.

PROMPTS, CODES, WIDTH = 4, 8, 24


class TwoHeads(nn.Module):
    """One trunk over the running sum of the token embeddings, with a generation head and an understanding head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(PROMPTS + CODES + 1, WIDTH)
        self.trunk = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.generate, self.answer = nn.Linear(WIDTH, CODES), nn.Linear(WIDTH, PROMPTS)

    def forward(self, tokens_nT: Tensor) -> Tensor:
        """Return the hidden states of all prefixes, shape (n, T, WIDTH)."""
        return self.trunk(self.embed(tokens_nT).cumsum(1))


def image_logp(model: TwoHeads, batch: dict[str, Tensor]) -> Tensor:
    """Return log pi(image | prompt) of rows [prompt | codes], shape (n,)."""
    codes_nT = batch["rows"][:, 1:] - PROMPTS
    logits = model.generate(model(batch["rows"][:, :-1]))
    return logits.log_softmax(-1).gather(-1, codes_nT[..., None])[..., 0].sum(1)


def answer_logp(model: TwoHeads, batch: dict[str, Tensor]) -> Tensor:
    """Return log pi(prompt | image, question) of rows [codes | question], shape (n,)."""
    logits = model.answer(model(batch["asked"])[:, -1])
    return logits.log_softmax(-1).gather(-1, batch["prompt"][:, None])[:, 0]


def main() -> None:
    """Print how good the predictions are."""
    torch.manual_seed(0)
    model = TwoHeads().double().eval()
    prompt_P, image_PT = torch.arange(12) % PROMPTS, PROMPTS + torch.randint(CODES, (12, 5))

    # probes: the first four images, each with all prompts (its own first) and with the question about it
    own = torch.stack([(prompt_P[:4] + shift) % PROMPTS for shift in range(PROMPTS)], 1)
    alternatives_PAT = torch.cat([own[..., None], image_PT[:4, None].expand(-1, PROMPTS, -1)], -1)
    question_P1 = torch.full((12, 1), PROMPTS + CODES)
    asked = {"asked": torch.cat([image_PT, question_P1], 1), "prompt": prompt_P}
    four = {name: tensor[:4] for name, tensor in asked.items()}
    probes = theory.Probes(image_logp, {"rows": alternatives_PAT.flatten(0, 1)}, PROMPTS, (answer_logp, four))

    # training samples: the other eight images, with a loss on their likelihood only
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
        for name, norms in errors.items():
            norms.append(float((getattr(change, name) - eta * getattr(unit, name)).norm()))
    for name, title in (("generation", "Lemma 1"), ("bayes", "Lemma 2"), ("head", "the head's own change")):
        print(f"{title}: order of the error {theory.error_order(etas, torch.tensor(errors[name])):.1f}")

    # AdamW's step is not the gradient: predict along its real step
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    probe = theory.StepProbe(model, optimizer, [(image_logp, train[1]), (answer_logp, asked)])
    for _ in range(2):
        optimizer.zero_grad()
        (-image_logp(model, train[1]).mean()).backward()
        probe.before()
        optimizer.step()
        report = probe.after()
    print(f"AdamW, along the real step: R^2 {report.fit().r2:.3f}")

    # does training on an image change the answer about that image more than answers about other images?
    paired = {"rows": torch.cat([prompt_P[:, None], image_PT], 1)}
    kernel = theory.gram(model, [(image_logp, paired), (answer_logp, asked)])
    coupling = theory.alignment(kernel).own_cosine
    print(f"own pairs: {'above' if coupling.p_value < 0.05 else 'no significant difference from'} chance")


if __name__ == "__main__":
    main()
