"""Write vila_u_official.npz: what VILA-U's own code computes on the small checkpoint of ``small_vila_u``.

Run by hand, with a clone of github.com/mit-han-lab/vila-u at commit 096623c and transformers 4.36.2, in which the
authors' own files replace three, as their set-up script does:

    python tests/models/vila_u_official.py CLONE SMALL_FOLDER tests/models/vila_u_official.npz

SMALL_FOLDER is what ``small_vila_u.save_small_vila_u`` wrote. The authors' modules run unchanged, in float32 on a CPU:
flash-attn is replaced by torch's attention, and the bfloat16 that their decoder asks for by float32.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.machinery
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

PROMPTS = ("a red circle", "two black crosses left of a ring", "Zwei Ringe, größer")
QUESTIONS = ("is it red?", "six  rings?\nor two", "Does this image describe two black crosses?")
ANSWERS = ("Yes", "six rings.")
SEEDS = (11, 12, 13)
CFG, TOP_K, TOP_P = 3.0, 20, 0.8
"""A recipe as the authors', whose filters (900 codes, 0.96) are wider than 64 codes."""
SIDE = 32
MODULES = ("flash_attn", "flash_attn.bert_padding", "cv2", "torchvision", "torchvision.transforms", "loguru")


def images() -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5)) * 2 - 1


def attention(q: Any, k: Any, v: Any, *_: Any, causal: bool, **__: Any) -> Any:
    """As flash-attn, (B, T, heads, D): a causal mask is aligned to the end of the keys."""
    query, key, value = (t.transpose(1, 2) for t in (q, k, v))
    new, old = query.shape[2], key.shape[2]
    mask = torch.ones(new, old, dtype=torch.bool).tril(old - new) if causal else None
    return scaled_dot_product_attention(query, key, value, mask, enable_gqa=True).transpose(1, 2)


def varlen_attention(q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, causal: bool, **_: Any) -> Any:
    outputs = []
    for index in range(len(cu_seqlens_q) - 1):
        queries = slice(cu_seqlens_q[index], cu_seqlens_q[index + 1])
        keys = slice(cu_seqlens_k[index], cu_seqlens_k[index + 1])
        outputs.append(attention(q[queries][None], k[keys][None], v[keys][None], causal=causal)[0])
    return torch.cat(outputs)


def padded(rows: torch.Tensor, indices: torch.Tensor, batch: int, length: int) -> torch.Tensor:
    out = torch.zeros(batch * length, *rows.shape[1:], dtype=rows.dtype)
    out[indices.long()] = rows
    return out.view(batch, length, *rows.shape[1:])


def prepare(clone: str) -> None:
    for name in MODULES:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)  # transformers looks for it
    flash, padding = sys.modules["flash_attn"], sys.modules["flash_attn.bert_padding"]
    flash.flash_attn_func, flash.flash_attn_varlen_func = attention, varlen_attention  # type: ignore[attr-defined]
    padding.index_first_axis = lambda rows, indices: rows[indices.long()]  # type: ignore[attr-defined]
    padding.pad_input, padding.unpad_input = padded, None  # type: ignore[attr-defined]
    sys.modules["torchvision.transforms"].CenterCrop = None  # type: ignore[attr-defined]
    sys.modules["loguru"].logger = types.SimpleNamespace(info=print)  # type: ignore[attr-defined]
    torch.bfloat16 = torch.float32  # type: ignore[misc]
    torch.Tensor.cuda = lambda tensor: tensor  # type: ignore[assignment, method-assign]
    sys.path.insert(0, clone)
    # Python 3.11 refuses a default that the authors' dataclass has and cannot be hashed
    kept = dataclasses.dataclass
    dataclasses.dataclass = functools.partial(kept, unsafe_hash=True)  # type: ignore[assignment]
    importlib.import_module("vila_u.model")
    dataclasses.dataclass = kept


class Official:
    """The authors' model, built and loaded as their ``load`` does, without accelerate."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoConfig, CLIPImageProcessor
        from vila_u.model import VILAULlamaModel
        from vila_u.model.multimodal_encoder import rqvaesigliptransformer_encoder as encoder
        from vila_u.model.multimodal_encoder.rqvaesigliptransformer.rqtransformer import modeling_rqtransformer as rq

        def build(tower: Any, name: str, config: Any) -> None:
            """As the authors' constructor, which knows the two published sizes only."""
            torch.nn.Module.__init__(tower)
            tower.config = encoder.RQVAESIGLIPTransformerConfig.from_pretrained(name)
            tower.vision_tower = encoder.RQVAESIGLIPTransformer.from_pretrained(name, torch_dtype=torch.float32)
            size, half = {"height": SIDE, "width": SIDE}, [0.5] * 3
            tower.image_processor = CLIPImageProcessor(size=size, crop_size=size, image_mean=half, image_std=half)
            tower.image_tokens, tower.is_loaded = 16, True

        encoder.RQVAESIGLIPTransformerVisionTower.__init__ = build
        # the name of the vision encoder is read as a path from the working directory
        os.chdir(folder / "vision_tower")
        config = AutoConfig.from_pretrained(folder)
        config.resume_path, config.model_dtype = str(folder), "torch.float32"
        self.model, self.rq = VILAULlamaModel(config=config).eval(), rq
        self.tokenizer = self.model.tokenizer
        assert len(self.tokenizer) == self.model.llm.vocab_size
        # as in the published folders: images are only sampled where text is
        self.model.llm.generation_config.do_sample = True
        # the loop samples a text token too and ignores it, unless it ends the text or starts an image or a video: then
        # it stops, or reads the token in place of what was sampled
        tokens = self.tokenizer.convert_tokens_to_ids(["</s>", "<im_start>", "<vi_start>"])
        self.model.llm.generation_config.suppress_tokens = tokens
        self.rqvae = self.model.vision_tower.vision_tower.rqvaesiglip

    def ids(self, text: str, **options: Any) -> torch.Tensor:
        from vila_u.utils.tokenizer import tokenize_conversation

        said = [{"from": "human", "value": text}]
        return tokenize_conversation(said, self.tokenizer, add_generation_prompt=True, **options)

    def sampled(self, prompt: str, seed: int, forced: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Run the authors' sampling loop; only the choice of a code by its probability is ours, or ``forced``."""
        uniform = torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        logits, probs, codes = [], [], []

        def choose(given: torch.Tensor, **_: Any) -> torch.Tensor:
            kept = self.rq.top_k_logits(given.float(), TOP_K).softmax(-1)
            logits.append(given[0])
            probs.append(self.rq.top_p_probs(kept, TOP_P)[0])
            number = len(codes)
            below = probs[-1].double().cumsum(-1)
            drawn = torch.searchsorted(below, uniform[number : number + 1] * below[-1], right=True)
            codes.append(drawn if forced is None else forced.flatten()[number : number + 1])
            return codes[-1]

        kept, self.rq.sample_from_logits = self.rq.sample_from_logits, choose
        torch.manual_seed(seed)  # for the text tokens
        pixels = self.model.generate_image_content(prompt, cfg=CFG)
        self.rq.sample_from_logits = kept
        shape = (16, -1)
        return {
            "codes": torch.cat(codes).view(shape),
            "logits": torch.stack(logits).view(*shape, logits[0].shape[-1]),
            "probs": torch.stack(probs).view(*shape, probs[0].shape[-1]),
            "pixels": pixels / 127.5 - 1,
        }

    def trained(self, prompt: str, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of the training loss of an image that follows a prompt, and its codes."""
        start, end = self.tokenizer.convert_tokens_to_ids(["<im_start>", "<im_end>"])
        ids = torch.cat([self.ids(prompt, image_generation=True), torch.tensor([-200, end, 2])])[None]
        assert ids[0, -4] == start
        seen: list[torch.Tensor] = []
        heads = self.model.vision_tower.vision_tower.rqtransformer
        hook = heads.register_forward_hook(lambda _m, given, out: seen.extend([given[1][0], out[0]]))
        with torch.no_grad():
            self.model(input_ids=ids, images=image[None], attention_mask=torch.ones_like(ids), labels=ids.clone())
        hook.remove()
        return {"codes": seen[0], "logits": seen[1]}

    def heard(self, run: Any) -> torch.Tensor:
        """Text logits (T, V) of the first pass of the language model."""
        seen: list[torch.Tensor] = []
        hook = self.model.llm.lm_head.register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
        with torch.no_grad():
            run()
        hook.remove()
        return seen[0][0]

    def answer_logits(self, image: torch.Tensor, question: str) -> torch.Tensor:
        ids = self.ids(f"<image>\n{question}")[None]
        options = {"max_new_tokens": 1, "do_sample": False}
        return self.heard(lambda: self.model.generate(input_ids=ids, images=image[None], **options))[-1]

    def answer_logps(self, image: torch.Tensor, question: str, answer: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities under the training loss of the tokens of an answer, and their ids."""
        from vila_u.utils.tokenizer import tokenize_conversation

        asked = f"<image>\n{question}"
        said = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
        ids = tokenize_conversation(said, self.tokenizer)
        tokens = ids[len(self.ids(asked)) :]
        labels = ids.clone()[None]
        options = {"attention_mask": torch.ones_like(labels), "labels": labels}
        logits = self.heard(lambda: self.model(input_ids=ids[None], images=image[None], **options))
        logps = logits[-1 - len(tokens) : -1].log_softmax(-1)
        return logps.gather(-1, tokens[:, None])[:, 0], tokens

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """What the language model reads of an image."""
        with torch.no_grad():
            return self.model.encode_images(image[None], None)[0][0]

    def resized(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode to a grid that is not the codes', as at 384 pixels."""
        self.rqvae.decoder_latent_shape = (6, 6)
        with torch.no_grad():
            vectors = self.rqvae.get_code_emb_with_depth(codes.view(1, 4, 4, -1))[0].sum(-2)
            pixels = self.rqvae.decode(vectors)
        self.rqvae.decoder_latent_shape = None
        return pixels[0].clamp(-1, 1)


def layout() -> torch.Tensor:
    """SHA-256 of the names and shapes that run at 256 pixels; the sizes are LLaMA-2-7B's and SigLIP-L's."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from vila_u.model.multimodal_encoder.rqvaesigliptransformer.rqtransformer import RQTransformer
    from vila_u.model.multimodal_encoder.rqvaesigliptransformer.rqvaesiglip import modeling_rqvaesiglip as rqvae
    from vila_u.model.multimodal_projector.base_projector import MultimodalProjector, MultimodalProjectorConfig

    vision = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": 256, "patch_size": 16,
    }  # fmt: skip
    Siglip = rqvae.SiglipModel.config_class
    Siglip.from_pretrained = lambda _name: Siglip(vision_config=vision)
    decoder = {
        "z_channels": 256, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 1, 2, 2, 4],
        "num_res_blocks": 2, "attn_resolutions": [16], "dropout": 0.0,
    }  # fmt: skip
    tower = rqvae.RQVAESiglipConfig(
        embed_dim=1024, n_embed=16384, latent_shape=[16, 16, 1024], code_shape=[16, 16, 4], shared_codebook=True,
        ddconfig=decoder, pretrained_model="google/siglip-large-patch16-256",
    )  # fmt: skip
    heads = RQTransformer.config_class(
        block_size=[16, 16, 4], input_embed_dim_1=1024, input_embed_dim_2=4096, embed_dim=2560, vocab_size=16384,
        head={"n_layer": 6, "block": {"n_head": 40}},
    )  # fmt: skip
    widths = types.SimpleNamespace(mm_hidden_size=1024, hidden_size=4096)
    with torch.device("meta"):
        parts = {
            "llm": LlamaForCausalLM(LlamaConfig(vocab_size=32004)),
            "mm_projector": MultimodalProjector(MultimodalProjectorConfig("mlp2x_gelu"), widths),
            "vision_tower.rqtransformer": RQTransformer(heads),
            "vision_tower.rqvaesiglip": rqvae.RQVAESiglipModel(tower),
        }
    shapes = {f"{part}.{name}": tuple(t.shape) for part, net in parts.items() for name, t in net.state_dict().items()}
    left_out = ("logit_", "text_model", "post_layernorm", ".head.", "layers.23.", "_ema", "position_ids", "inv_freq")
    repeated = tuple(f"codebooks.{depth}." for depth in (1, 2, 3))
    vision_only = tuple(f"vision_tower.rqvaesiglip.{mark}" for mark in ("siglip_model", "logit", "quantizer"))
    runs = {
        name: shape
        for name, shape in shapes.items()
        if not (name.startswith(vision_only) and any(mark in name for mark in (*left_out, *repeated)))
        and "inv_freq" not in name
    }
    lines = "\n".join(sorted(f"{name} {shape}" for name, shape in runs.items()))
    print(len(runs), "tensors run,", sum(int(np.prod(shape)) for shape in runs.values()), "numbers")
    return torch.tensor(list(hashlib.sha256(lines.encode()).digest()), dtype=torch.uint8)


def main(clone: str, small: str, output: str) -> None:
    prepare(clone)
    output = str(Path(output).absolute())
    official = Official(Path(small).absolute())
    results: dict[str, torch.Tensor] = {}
    for index, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        results |= {f"sampled_{index}_{name}": t for name, t in official.sampled(prompt, seed).items()}
        results[f"prompt_ids_{index}"] = official.ids(prompt, image_generation=True)
    results["null_ids"] = official.ids(" ", image_generation=True)
    for index, image in enumerate(images()):
        results |= {f"trained_{index}_{name}": t for name, t in official.trained(PROMPTS[index], image).items()}
        results[f"features_{index}"] = official.features(image)
        for asked, question in enumerate(QUESTIONS):
            results[f"answer_logits_{index}_{asked}"] = official.answer_logits(image, question)
        found = official.answer_logps(image, QUESTIONS[index], ANSWERS[index])
        results[f"answer_{index}"], results[f"answer_ids_{index}"] = found
    forced = official.sampled(PROMPTS[1], 0, results["trained_0_codes"])
    results["forced_logits"], results["forced_probs"] = forced["logits"], forced["probs"]
    for asked, question in enumerate(QUESTIONS):
        results[f"question_ids_{asked}"] = official.ids(f"<image>\n{question}")
    results["resized"] = official.resized(results["sampled_0_codes"])
    results["layout"] = layout()
    np.savez_compressed(output, **{name: tensor.numpy() for name, tensor in results.items()})
    print(json.dumps({name: float(tensor.float().abs().mean()) for name, tensor in results.items()}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
