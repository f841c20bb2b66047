"""Janus and Janus-Pro on transformers' own classes: separate vision encoder and image tokens, one shared Llama."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from unigap.models.autoregressive import draw
from unigap.models.base import PromptBatch, Samples, SamplingRecipe, UnifiedModel, evaluating
from unigap.models.checkpoints import janus_from_folder

# Shape legend: B prompts or images, N candidates a prompt, M image tokens, L prompt tokens, Q questions an image,
# T answer tokens, P prefix tokens (up to the end of the image), S packed tokens, D hidden width, V image codes.

YES_FORMS = ("Yes", " Yes", "yes", " yes")
NO_FORMS = ("No", " No", "no", " no")
logger = logging.getLogger(__name__)


class Janus(UnifiedModel):
    """A Janus checkpoint: Janus-Pro, or the embedded model.

    Args:
        checkpoint: Folder or hub id in transformers' layout, e.g. ``deepseek-community/Janus-Pro-7B``; ``shapes`` is
            the checkpoint that ships with unigap.
        dtype: Precision of the weights, ``float32`` or ``bfloat16``; the image tokenizer always stays in float32.
        attn_implementation: ``sdpa``, ``eager`` or ``flash_attention_2``.
        lora_rank: 0 trains the trunk in full; above 0 trains a LoRA adapter of this rank.
        lora_alpha: Scale of the adapter; the update is multiplied by alpha / rank.
        lora_dropout: Dropout inside the adapter, in [0, 1).
    """

    exact_likelihood: ClassVar[bool] = True

    def __init__(
        self,
        checkpoint: str = "shapes",
        dtype: str = "float32",
        attn_implementation: str = "sdpa",
        lora_rank: int = 0,
        lora_alpha: int = 32,
        lora_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if lora_rank < 0:
            raise ValueError(f"lora_rank must be >= 0, got {lora_rank}; 0 trains the trunk in full")
        self._adopt(*janus_from_folder(checkpoint, dtype, attn_implementation))
        if lora_rank:
            self.add_lora(lora_rank, lora_alpha, lora_dropout)
        self.train_only_trunk()

    @classmethod
    def from_parts(cls, net: Any, processor: Any) -> Janus:
        """Wraps a ``JanusForConditionalGeneration`` and its ``JanusProcessor`` that are in memory already."""
        janus = cls.__new__(cls)
        nn.Module.__init__(janus)
        janus._adopt(net, processor)
        return janus

    def _adopt(self, net: Any, processor: Any) -> None:
        self.net, self.processor = net, processor
        self.core.vqmodel.float()
        self._tokens = self.processor.tokenizer
        self._yes = _single_tokens(self._tokens, YES_FORMS, "yes")
        self._no = _single_tokens(self._tokens, NO_FORMS, "no")
        self._marks = tuple(t.content for t in self._tokens.added_tokens_decoder.values() if t.special)

    @property
    def core(self) -> Any:
        """The network below its text head (a property: registering it would name every weight twice)."""
        return self.net.model

    @property
    def n_codes(self) -> int:
        return self.net.config.vq_config.num_embeddings

    @property
    def image_tokens(self) -> int:
        return self.processor.num_image_tokens

    @property
    def codebook(self) -> torch.Tensor:
        return F.normalize(self.core.vqmodel.quantize.embedding.weight, dim=-1)

    @property
    def trunk(self) -> nn.Module:
        # the embedding table is not part of it: only what both branches run through trains
        return nn.ModuleDict({"layers": self.core.language_model.layers, "norm": self.core.language_model.norm})

    @property
    def lora_target(self) -> str:
        return r"model\.language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"

    def add_lora(self, rank: int, alpha: int, dropout: float) -> None:
        from peft import LoraConfig

        self.net.add_adapter(
            LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=self.lora_target)
        )

    def save(self, folder: str | Path) -> None:
        adapted = any(".lora_" in name for name, _ in self.net.named_parameters())
        # merging takes the adapter away, and the model may be in the middle of training
        net = copy.deepcopy(self.net) if adapted else self.net
        merge_lora(net)
        net.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    # -- generation

    def encode_prompt(self, texts: Sequence[str]) -> PromptBatch:
        chats = [self._chat([{"type": "text", "text": text}]) for text in texts]
        start = self.processor.image_start_token
        encoded = self._tokens([chat + start for chat in chats], padding=True, return_tensors="pt", verbose=False)
        ids_BL, mask_BL = encoded["input_ids"].to(self._device), encoded["attention_mask"].to(self._device)
        self._check_prompts(texts, ids_BL, mask_BL)
        keep_BL = (ids_BL == self._tokens.bos_token_id) | (ids_BL == self._tokens.convert_tokens_to_ids(start))
        return PromptBatch(ids_BL, mask_BL, ids_BL.masked_fill(~keep_BL, self._tokens.pad_token_id))

    def _check_prompts(self, texts: Sequence[str], ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> None:
        room = self.net.config.text_config.max_position_embeddings - self.image_tokens
        for text, length in zip(texts, mask_BL.sum(1).tolist(), strict=True):
            if not text.strip():
                raise ValueError("empty prompt: there is nothing to draw; give it a text or remove it")
            if length > room:
                raise ValueError(f"prompt {_shown(text)}: {length} tokens with its template, the context holds {room}")
        for text, ids in zip(texts, ids_BL.tolist(), strict=True):
            self._check_words("prompt", text, ids)

    def _check_words(self, what: str, text: str, ids: list[int]) -> None:
        """Refuses what the model would read as nothing, or as a part of the template."""
        for mark in self._marks:
            if mark in text:
                raise ValueError(f"{what} {_shown(text)}: {mark!r} is a mark of the model's template; remove it")
        unknown = self._tokens.unk_token_id
        if unknown is not None and unknown in ids:
            # where no word is unknown, it is a character between two words
            parts = (*text.split(), *(char for char in text if not char.isalnum()))
            word = next((part for part in parts if unknown in self._ids(part)), text)
            raise ValueError(f"{what} {_shown(text)}: the model has no word {_shown(word)}; reword it")

    @torch.no_grad()
    def sample_images(self, prompt: PromptBatch, seeds_BN: torch.Tensor, recipe: SamplingRecipe) -> Samples:
        n = seeds_BN.shape[1]
        guided = recipe.cfg != 1
        ids = torch.cat([prompt.ids_BL, prompt.uncond_BL]) if guided else prompt.ids_BL
        mask = prompt.mask_BL.repeat(2, 1) if guided else prompt.mask_BL
        llm = self.core.language_model
        cache: Any = None
        position_R1 = mask.sum(1, keepdim=True).repeat_interleave(n, 0)
        seen = mask.repeat_interleave(n, 0).bool()

        def prefill() -> torch.Tensor:
            nonlocal cache
            out = self._run(llm.embed_tokens(ids), _causal(mask), _positions(mask), use_cache=True)
            cache = out.past_key_values
            cache.batch_repeat_interleave(n)
            return self.core.generation_head(out.last_hidden_state[:, -1]).repeat_interleave(n, 0)

        def step(code_R: torch.Tensor) -> torch.Tensor:
            nonlocal cache, position_R1, seen
            embeds = self.net.prepare_embeddings_for_image_generation(code_R.repeat(2 if guided else 1)[:, None])
            seen = F.pad(seen, (0, 1), value=True)
            out = self._run(embeds, seen[:, None, None, :], position_R1, use_cache=True, past_key_values=cache)
            position_R1 = position_R1 + 1
            return self.core.generation_head(out.last_hidden_state[:, -1])

        with evaluating(self):
            return draw(prefill, step, seeds_BN, self.image_tokens, recipe)

    def image_logps(
        self, prompt: PromptBatch, codes_BM: torch.Tensor, noise_BM: torch.Tensor | None = None
    ) -> torch.Tensor:
        if noise_BM is not None:
            raise ValueError("Janus has an exact likelihood and takes no noise; pass noise_BM=None")
        text_BLD = self.core.language_model.embed_tokens(prompt.ids_BL)
        image_BMD = self.net.prepare_embeddings_for_image_generation(codes_BM[:, :-1])
        mask = F.pad(prompt.mask_BL, (0, codes_BM.shape[1] - 1), value=1)
        out = self._run(torch.cat([text_BLD, image_BMD], 1), _causal(mask), _positions(mask))
        hidden_BMD = out.last_hidden_state[:, -codes_BM.shape[1] :]
        logits_BMV = self.core.generation_head(hidden_BMD).float()
        return -F.cross_entropy(logits_BMV.transpose(1, 2), codes_BM, reduction="none")

    @torch.no_grad()
    def decode(self, codes_BM: torch.Tensor) -> torch.Tensor:
        with torch.autocast(codes_BM.device.type, enabled=False):
            return self.core.vqmodel.decode(codes_BM).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        vq = self.core.vqmodel
        with torch.autocast(pixels_BCHW.device.type, enabled=False):
            # transformers' encode leaves out the normalisation its decode assumes
            latent_BDHW = F.normalize(vq.quant_conv(vq.encoder(pixels_BCHW.float())), dim=1)
            return (latent_BDHW.flatten(2).transpose(1, 2) @ self.codebook.T).argmax(-1)

    # -- understanding

    def judge_logit(self, pixels_BCHW: torch.Tensor, questions_BQ: Sequence[Sequence[str]]) -> torch.Tensor:
        tails = [[self._question_ids(q) for q in row] for row in questions_BQ]
        hidden_BSD, ends_BQ = self._read(pixels_BCHW, tails)
        rows_B1 = torch.arange(len(tails), device=hidden_BSD.device)[:, None]
        logits_BQV = self.net.lm_head(hidden_BSD[rows_B1, ends_BQ]).float()
        return logits_BQV[..., self._yes].logsumexp(-1) - logits_BQV[..., self._no].logsumexp(-1)

    def text_logps(
        self,
        pixels_BCHW: torch.Tensor,
        questions_BQ: Sequence[Sequence[str]],
        answers_BQ: Sequence[Sequence[str]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        eos = [self._tokens.eos_token_id]
        replies = [[self._ids(" " + answer) + eos for answer in row] for row in answers_BQ]
        tails = [
            [self._question_ids(q) + reply for q, reply in zip(qs, rs, strict=True)]
            for qs, rs in zip(questions_BQ, replies, strict=True)
        ]
        hidden_BSD, ends_BQ = self._read(pixels_BCHW, tails)
        length_BQ = torch.tensor([[len(reply) for reply in row] for row in replies], device=hidden_BSD.device)
        offset_T = torch.arange(int(length_BQ.max()), device=hidden_BSD.device)
        mask_BQT = offset_T < length_BQ[..., None]
        at_BQT = torch.where(mask_BQT, ends_BQ[..., None] - length_BQ[..., None] + offset_T, 0)
        rows_B11 = torch.arange(len(tails), device=hidden_BSD.device)[:, None, None]
        target_BQT = torch.zeros_like(at_BQT)
        target_BQT[mask_BQT] = torch.tensor(list(itertools.chain(*itertools.chain(*replies))), device=at_BQT.device)
        logits = self.net.lm_head(hidden_BSD[rows_B11, at_BQT]).float()
        logp_BQT = logits.log_softmax(-1).gather(-1, target_BQT[..., None])[..., 0]
        return logp_BQT.masked_fill(~mask_BQT, 0), mask_BQT

    def _read(
        self, pixels_BCHW: torch.Tensor, tails_BQ: Sequence[Sequence[list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the trunk once over [image prefix | tail 1 | tail 2 ...], each tail blind to the others.

        Returns:
            Hidden states (B, S, D) and the position of each tail's last token (B, Q).
        """
        prefix = self._image_prefix()
        packed = [list(itertools.chain(prefix, *row)) for row in tails_BQ]
        size = max(map(len, packed))
        pad = self._tokens.pad_token_id
        ids_BS = torch.tensor([row + [pad] * (size - len(row)) for row in packed], device=self._device)
        segment, place, ends = [], [], []
        for row in tails_BQ:
            lengths = [len(tail) for tail in row]
            fill = size - len(prefix) - sum(lengths)
            segment.append([0] * len(prefix) + [i for i, k in enumerate(lengths, 1) for _ in range(k)] + [-1] * fill)
            place.append([*range(len(prefix)), *(len(prefix) + j for k in lengths for j in range(k)), *[0] * fill])
            ends.append([len(prefix) + end - 1 for end in itertools.accumulate(lengths)])
        segment_BS = torch.tensor(segment, device=self._device)
        same_BSS = segment_BS[:, :, None] == segment_BS[:, None, :]
        allowed_BSS = (same_BSS | (segment_BS == 0)[:, None, :]).tril()
        place_BS = torch.tensor(place, device=self._device)
        embeds_BSD = self._with_image(ids_BS, pixels_BCHW)
        hidden_BSD = self._run(embeds_BSD, allowed_BSS[:, None], place_BS).last_hidden_state
        return hidden_BSD, torch.tensor(ends, device=self._device)

    def _with_image(self, ids_BS: torch.Tensor, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        images = self.processor.image_processor
        side = (images.size["height"], images.size["width"])
        pixels = pixels_BCHW.to(self._device)
        if pixels.shape[-2:] != side:
            pixels = F.interpolate(pixels, side, mode="bicubic", antialias=True)
        mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (images.image_mean, images.image_std))
        normalised = ((pixels + 1) / 2 - mean) / std
        features = self.core.get_image_features(normalised.to(self.net.dtype)).pooler_output
        embeds_BSD = self.core.language_model.embed_tokens(ids_BS)
        where = (ids_BS == self.net.config.image_token_id)[..., None]
        return embeds_BSD.masked_scatter(where, features.to(embeds_BSD.dtype))

    def _image_prefix(self) -> list[int]:
        """Ids up to and with the end of the image, the same before every question."""
        return self._dialogue_ids("?")[0]

    def _question_ids(self, question: str) -> list[int]:
        return self._dialogue_ids(question)[1]

    def _dialogue_ids(self, question: str) -> tuple[list[int], list[int]]:
        if not question.strip():
            raise ValueError("empty question: there is nothing to answer; give it a text")
        images = self.processor
        marks = images.image_start_token + images.image_token * images.num_image_tokens + images.image_end_token
        chat = self._chat([{"type": "image"}, {"type": "text", "text": question}])
        ids = self._tokens(chat.replace(images.image_token, marks), verbose=False)["input_ids"]
        self._check_words("question", question, ids)
        room = self.net.config.text_config.max_position_embeddings
        if len(ids) > room:
            raise ValueError(f"question {_shown(question)}: {len(ids)} tokens with its image, the context holds {room}")
        cut = ids.index(self._tokens.convert_tokens_to_ids(images.image_end_token)) + 1
        return ids[:cut], ids[cut:]

    # -- shared

    def _run(self, embeds: torch.Tensor, allowed: torch.Tensor, positions: torch.Tensor, **cache: Any) -> Any:
        bias = torch.zeros(allowed.shape, dtype=embeds.dtype, device=embeds.device)
        bias.masked_fill_(~allowed, torch.finfo(embeds.dtype).min)
        cache.setdefault("use_cache", False)
        return self.core.language_model(inputs_embeds=embeds, attention_mask=bias, position_ids=positions, **cache)

    def _chat(self, content: list[dict[str, str]]) -> str:
        messages = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(messages, add_generation_prompt=True)

    def _ids(self, text: str) -> list[int]:
        return self._tokens(text, add_special_tokens=False)["input_ids"]

    @property
    def _device(self) -> torch.device:
        return self.core.language_model.embed_tokens.weight.device


def merge_lora(net: Any) -> None:
    """Folds a LoRA adapter, where there is one, into the weights it adapts and removes it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(net.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            net.set_submodule(name, module.get_base_layer())
    net._hf_peft_config_loaded = False


def _causal(mask_BL: torch.Tensor) -> torch.Tensor:
    """Who may see whom, bool (B, 1, L, L): earlier tokens that are no padding, and always oneself."""
    length = mask_BL.shape[1]
    before_LL = torch.ones(length, length, dtype=torch.bool, device=mask_BL.device).tril()
    # a padded query with nothing to see would be NaN
    itself_LL = torch.eye(length, dtype=torch.bool, device=mask_BL.device)
    return ((before_LL & mask_BL.bool()[:, None, :]) | itself_LL)[:, None]


def _positions(mask_BL: torch.Tensor) -> torch.Tensor:
    return (mask_BL.cumsum(1) - 1).clamp(min=0)


def _single_tokens(tokenizer: Any, forms: Sequence[str], name: str) -> list[int]:
    ids = {ids[0] for form in forms if len(ids := tokenizer(form, add_special_tokens=False)["input_ids"]) == 1}
    ids.discard(tokenizer.unk_token_id)
    if not ids:
        raise ValueError(f"the tokenizer has no single token for {name!r}; this checkpoint cannot judge")
    return sorted(ids)


def _shown(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
