"""Compare judging with transformers' processor and ``generate`` of one token: same weights, images and questions.

Run ``python -m benchmarks.judging``; ``--json FILE`` also writes the rows. unigap judges the output of the image
decoder; transformers gets PIL images, which its processor needs and which are converted before timing. transformers is
measured on whole batches and, as in its model card, image by image. It processes the image again for every question.
"""

from __future__ import annotations

import torch
from PIL import Image

from benchmarks.side_by_side import Row, main, speeds
from benchmarks.small_janus import PROMPTS, small_janus
from unigap.judges.self_judge import QUESTION, SelfJudge
from unigap.models.engine.tokens import NO_FORMS, YES_FORMS
from unigap.models.janus import Janus

CANDIDATES = 8
TEXTS = [text for text in PROMPTS for _ in range(CANDIDATES)]
PHRASINGS = (QUESTION, "Is it {prompt}?", "Does it show {prompt}?", "Is this {prompt}?")


@torch.no_grad()
def transformers(janus: Janus, questions: list[str], images: list[Image.Image]) -> torch.Tensor:
    """Return the log-odds of yes, shape (B,), from the scores of one generated token."""
    chats = [
        janus.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
        )
        for question in questions
    ]
    inputs = janus.processor(text=chats, images=images, padding=True, return_tensors="pt")
    answer = janus.net.generate(
        **inputs,
        generation_mode="text",
        do_sample=False,
        max_new_tokens=1,
        output_scores=True,
        return_dict_in_generate=True,
    )
    tokenizer = janus.processor.tokenizer
    yes, no = (
        sorted({ids[0] for form in forms if len(ids := tokenizer.encode(form, add_special_tokens=False)) == 1})
        for forms in (YES_FORMS, NO_FORMS)
    )
    return answer.scores[0][:, yes].logsumexp(-1) - answer.scores[0][:, no].logsumexp(-1)


def measure() -> list[Row]:
    """Measure images per second."""
    janus, judge = small_janus(), SelfJudge()
    codes_BM = torch.randint(janus.n_codes, (len(TEXTS), janus.image_tokens))
    # 8-bit levels, so that both sides get the same image
    levels_BHWC = ((janus.decode(codes_BM) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    pixels_BCHW = levels_BHWC.permute(0, 3, 1, 2) / 127.5 - 1
    images = [Image.fromarray(levels.numpy()) for levels in levels_BHWC]
    rows = []
    for phrasings, batched in [(PHRASINGS[:1], True), (PHRASINGS, True), (PHRASINGS[:1], False)]:
        judge = SelfJudge(phrasings)
        questions = [phrasing.format(prompt=text) for phrasing in phrasings for text in TEXTS]
        shown = images * len(phrasings)

        def ours(judge: SelfJudge = judge) -> torch.Tensor:
            return judge.ask(janus, TEXTS, pixels_BCHW)

        def peer(
            questions: list[str] = questions, shown: list[Image.Image] = shown, batched: bool = batched
        ) -> torch.Tensor:
            size = len(questions) if batched else 1
            parts = range(0, len(questions), size)
            logit = torch.cat([transformers(janus, questions[i : i + size], shown[i : i + size]) for i in parts])
            return logit.view(-1, len(TEXTS)).mean(0)

        if not torch.allclose(ours(), peer(), atol=1e-4):
            raise RuntimeError("the verdicts differ from those of transformers, so the speeds cannot be compared")
        label = f"judging, {len(TEXTS)} images x {len(phrasings)}, peer {'in one batch' if batched else 'one by one'}"
        rows.append(speeds(label, ours, peer, len(TEXTS), "images/s"))
    return rows


if __name__ == "__main__":
    main("Images judged per second, compared with transformers.", measure)
