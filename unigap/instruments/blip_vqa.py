"""BLIP-VQA: the probability of yes to a noun phrase, as T2I-CompBench measures attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from unigap.instruments.base import Instrument
from unigap.models.files.config import check_family, model_type
from unigap.models.files.pretrained import Network

MAX_TOKENS = 35
"""Tokens of a question; longer ones are cut off, as in the published program."""


class BlipVqa(Instrument):
    """BLIP-VQA, asked whether an image shows a noun phrase.

    Args:
        checkpoint: Folder or hub id of a BLIP for questions in transformers' layout; the default holds the weights that
            the authors use.
        device: Device of the network; empty means the device of the model that is measured.
    """

    kind = "blip"

    def __init__(self, checkpoint: str = "Salesforce/blip-vqa-capfilt-large", device: str = "") -> None:
        super().__init__(checkpoint, device)

    def network(self) -> Network:
        from transformers import BlipForQuestionAnswering, BlipProcessor

        check_family(self.checkpoint, model_type(self.checkpoint), ["blip"])
        network = BlipForQuestionAnswering
        return Network("a BLIP model for questions", network, network, BlipProcessor)

    @torch.no_grad()
    def p_yes(self, image: Image.Image, phrases: Sequence[str], device: torch.device | str) -> list[float]:
        """Return P(yes) / (P(yes) + P(no)) as the first token of the answer to "{phrase}?", for each phrase.

        Args:
            image: The image.
            phrases: Noun phrases, e.g. ``"a green bench"``.
            device: Device of the model that is measured.
        """
        if not phrases:
            return []
        net, processor = self.loaded(device)
        answers = self._answer_tokens(processor.tokenizer)
        found = []
        for phrase in phrases:  # alone: transformers 5.23 lets the padding of a shorter question change its answer
            options = {"truncation": True, "max_length": MAX_TOKENS, "return_tensors": "pt"}
            inputs = processor(images=[image], text=[f"{phrase}?"], **options).to(net.device)
            found.append(_first_logits(net, inputs)[answers].softmax(-1)[0].item())
        return found

    def _answer_tokens(self, tokenizer: Any) -> list[int]:
        tokens = tokenizer.convert_tokens_to_ids(["yes", "no"])
        if tokenizer.unk_token_id in tokens:
            raise ValueError(
                f"checkpoint {self.checkpoint!r}: the tokenizer has no token 'yes' or 'no'; take BLIP's own"
            )
        return list(tokens)


def _first_logits(net: Any, inputs: Any) -> torch.Tensor:
    """Return the logits (V,) of the first token of the answer to one question about one image."""
    text = net.config.text_config
    # BLIP's encoder was trained on questions that begin with its own token, which the processor does not write
    ids = inputs["input_ids"].clone()
    ids[:, 0] = text.bos_token_id + 1
    images = net.vision_model(pixel_values=inputs["pixel_values"]).last_hidden_state
    questions = net.text_encoder(
        input_ids=ids,
        attention_mask=inputs["attention_mask"],
        encoder_hidden_states=images,
    ).last_hidden_state
    begin = ids.new_full((len(ids), 1), text.bos_token_id)
    return net.text_decoder(input_ids=begin, encoder_hidden_states=questions).logits[0, 0].float()
