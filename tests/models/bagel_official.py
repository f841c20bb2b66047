"""Write bagel_official.npz: what BAGEL's own code computes on the small checkpoint of ``small_bagel``.

Run by hand, with a clone of github.com/ByteDance-Seed/Bagel at commit 056b5fd and transformers 4.49:

    python tests/models/bagel_official.py CLONE SMALL_FOLDER tests/models/bagel_official.npz

SMALL_FOLDER is what ``small_bagel.save_small_bagel`` wrote, without the README. The authors' modules run unchanged, in
float32 on a CPU: flash-attn is replaced by torch's attention, and the bfloat16 that they ask for by float32.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn.functional import scaled_dot_product_attention

PROMPTS = ("a red circle", "two black crosses left of a ring", "Yes")
QUESTIONS = ("is it red?", "six rings?")
ANSWER = "Yes, a circle"
SEED, STEPS, SIDE = 1234, 50, 32


def varlen_attention(q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, causal: bool, **_: Any) -> Any:
    """As flash-attn: a causal mask is aligned to the end of the keys."""
    outputs = []
    for index in range(len(cu_seqlens_q) - 1):
        queries = slice(cu_seqlens_q[index], cu_seqlens_q[index + 1])
        keys = slice(cu_seqlens_k[index], cu_seqlens_k[index + 1])
        query, key, value = (t.transpose(0, 1)[None] for t in (q[queries], k[keys], v[keys]))
        new, old = query.shape[2], key.shape[2]
        mask = torch.ones(new, old, dtype=torch.bool).tril(old - new) if causal else None
        outputs.append(scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(outputs)


def prepare(clone: str) -> None:
    stub = types.ModuleType("flash_attn")
    stub.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)  # transformers looks for it
    stub.flash_attn_varlen_func = varlen_attention  # type: ignore[attr-defined]
    sys.modules["flash_attn"] = stub
    torch.bfloat16 = torch.float32  # type: ignore[misc]
    sys.path.insert(0, clone)


class Official:
    """The authors' model, built and loaded as their GenEval script does."""

    def __init__(self, folder: Path) -> None:
        import modeling.bagel.qwen2_navit as navit
        from data.data_utils import add_special_tokens
        from modeling.autoencoder import AutoEncoder, AutoEncoderParams
        from modeling.bagel import (
            Bagel,
            BagelConfig,
            Qwen2Config,
            Qwen2ForCausalLM,
            SiglipVisionConfig,
            SiglipVisionModel,
        )
        from modeling.qwen2 import Qwen2Tokenizer

        llm = Qwen2Config.from_json_file(str(folder / "llm_config.json"))
        llm.qk_norm, llm.tie_word_embeddings, llm.layer_module = True, False, "Qwen2MoTDecoderLayer"
        vit = SiglipVisionConfig.from_json_file(str(folder / "vit_config.json"))
        vit.rope, vit.num_hidden_layers = False, vit.num_hidden_layers - 1
        # the sizes of the small checkpoint, where the authors' are constants of their code
        params = AutoEncoderParams(256, 3, 4, 32, 3, [1, 1, 2], 1, 4, 0.3611, 0.1159)
        config = BagelConfig(
            llm_config=llm, vit_config=vit, vae_config=params, latent_patch_size=2, max_latent_size=8,
            vit_max_num_patch_per_side=vit.image_size // vit.patch_size,
        )  # fmt: skip
        model = Bagel(Qwen2ForCausalLM(llm), SiglipVisionModel(vit), config)
        model.vit_model.vision_model.embeddings.convert_conv2d_to_linear(vit)
        print(model.load_state_dict(load_file(folder / "ema.safetensors"), strict=True))
        self.vae = AutoEncoder(params)
        print(self.vae.load_state_dict(load_file(folder / "ae.safetensors"), strict=True))
        tokenizer = Qwen2Tokenizer.from_pretrained(str(folder))
        self.tokenizer, self.ids, added = add_special_tokens(tokenizer)
        assert added == 0
        self.model, self.layers = model.float().eval(), llm.num_hidden_layers
        self.vae.eval()
        # the kernel that training asks for is a GPU's
        navit.sdpa_kernel = lambda **_: contextlib.nullcontext()

    def context(self, prompts: tuple[str, ...] = ()) -> tuple[Any, list[int], list[int]]:
        from modeling.bagel.qwen2_navit import NaiveCache

        cache, lengths, ropes = NaiveCache(self.layers), [0], [0]
        for prompt in prompts:
            inputs, lengths, ropes = self.model.prepare_prompts(lengths, ropes, [prompt], self.tokenizer, self.ids)
            cache = self.model.forward_cache_update_text(cache, **inputs)
        return cache, lengths, ropes

    def flow_inputs(self, prompt: str, cfg: float) -> dict[str, Any]:
        cache, lengths, ropes = self.context((prompt,))
        null, null_lengths, null_ropes = self.context()
        size = [(SIDE, SIDE)]
        inputs = self.model.prepare_vae_latent(lengths, ropes, size, self.ids)
        guided = self.model.prepare_vae_latent_cfg(null_lengths, null_ropes, size)
        return {
            **inputs,
            "past_key_values": cache,
            "cfg_text_scale": cfg,
            "cfg_text_past_key_values": null,
            "cfg_text_packed_position_ids": guided["cfg_packed_position_ids"],
            "cfg_text_packed_query_indexes": guided["cfg_packed_query_indexes"],
            "cfg_text_key_values_lens": guided["cfg_key_values_lens"],
            "cfg_text_packed_key_value_indexes": guided["cfg_packed_key_value_indexes"],
        }

    def sampled(self, prompt: str, cfg: float, **options: Any) -> torch.Tensor:
        torch.manual_seed(SEED)
        settings = {"num_timesteps": STEPS, "timestep_shift": 3.0, "cfg_interval": [0.4, 1.0], **options}
        return self.model.generate_image(**self.flow_inputs(prompt, cfg), **settings)[0]

    def velocity(self, prompt: str, time: float) -> torch.Tensor:
        torch.manual_seed(SEED)
        inputs = self.flow_inputs(prompt, 1.0)
        latents = inputs.pop("packed_init_noises")
        with torch.no_grad():
            return self.model._forward_flow(x_t=latents, timestep=torch.full((len(latents),), time), **inputs)

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """As ``InterleaveInferencer.decode_image``, before rounding to bytes."""
        side = SIDE // self.model.latent_downsample
        grid = torch.einsum("nhwpqc->nchpwq", latents.reshape(1, side, side, 2, 2, -1))
        with torch.no_grad():
            return self.vae.decode(grid.reshape(1, -1, 2 * side, 2 * side)).clamp(-1, 1)

    def answer_logits(self, image: torch.Tensor, question: str) -> torch.Tensor:
        from modeling.bagel.qwen2_navit import NaiveCache

        cache = NaiveCache(self.layers)
        inputs, lengths, ropes = self.model.prepare_vit_images([0], [0], [image], lambda pixels: pixels, self.ids)
        cache = self.model.forward_cache_update_vit(cache, **inputs)
        inputs, lengths, ropes = self.model.prepare_prompts(lengths, ropes, [question], self.tokenizer, self.ids)
        cache = self.model.forward_cache_update_text(cache, **inputs)
        start = self.model.prepare_start_tokens(lengths, ropes, self.ids)
        seen: list[torch.Tensor] = []
        hook = self.model.language_model.lm_head.register_forward_hook(lambda _m, _i, out: seen.append(out))
        self.model.generate_text(past_key_values=cache, max_length=1, **start)
        hook.remove()
        return seen[0][0]

    def answer_logps(self, image: torch.Tensor, question: str, answer: str) -> torch.Tensor:
        """Minus the cross-entropies of the training loss of an answer and the end of its text."""
        from data.data_utils import (
            get_flattened_position_ids_extrapolate,
            patchify,
            prepare_attention_mask_per_sample,
        )

        start, end = self.ids["bos_token_id"], self.ids["eos_token_id"]
        asked = [start, *self.tokenizer.encode(question), end]
        told = [start, *self.tokenizer.encode(answer), end]
        patches = patchify(image, 14)
        seen = len(patches) + 2
        length = seen + len(asked) + len(told)
        mask = prepare_attention_mask_per_sample([seen, len(asked), len(told)], ["full", "causal", "causal"])
        model = copy.deepcopy(self.model).train()
        model.config.visual_gen = False
        with torch.no_grad():
            losses = model(
                sequence_length=length,
                packed_text_ids=torch.tensor([self.ids["start_of_image"], self.ids["end_of_image"], *asked, *told]),
                packed_text_indexes=torch.tensor([0, *range(seen - 1, length)]),
                sample_lens=[length],
                packed_position_ids=torch.tensor([*[0] * seen, *range(1, 1 + len(asked) + len(told))]),
                nested_attention_masks=[mask],
                ce_loss_indexes=torch.arange(length - len(told), length - 1),
                packed_label_ids=torch.tensor(told[1:]),
                packed_vit_tokens=patches,
                packed_vit_token_indexes=torch.arange(1, seen - 1),
                packed_vit_position_ids=get_flattened_position_ids_extrapolate(*image.shape[1:], 14, 4),
                vit_token_seqlens=torch.tensor([len(patches)], dtype=torch.int),
            )["ce"]
        return -losses

    def losses(self, prompt: str | None, image: torch.Tensor, number: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared errors (M, C) of the training loss at a logit-normal number, and the noise they were taken at."""
        from data.data_utils import get_flattened_position_ids_extrapolate, prepare_attention_mask_per_sample

        text = [] if prompt is None else [
            self.ids["bos_token_id"], *self.tokenizer.encode(prompt), self.ids["eos_token_id"],
        ]  # fmt: skip
        side = SIDE // self.model.latent_downsample
        count, start = side * side, len(text)
        with torch.no_grad():
            self.vae.reg.sample = False
            latent = self.vae.encode(image[None])
        latents = torch.arange(start + 1, start + 1 + count)
        lengths, modes = ([start], ["causal"]) if text else ([], [])
        mask = prepare_attention_mask_per_sample([*lengths, count + 2], [*modes, "noise"])
        model = copy.deepcopy(self.model).train()
        model.config.visual_und = False
        with torch.no_grad():
            torch.manual_seed(SEED)
            errors = model(
                sequence_length=start + count + 2,
                packed_text_ids=torch.tensor([*text, self.ids["start_of_image"], self.ids["end_of_image"]]),
                packed_text_indexes=torch.tensor([*range(start + 1), start + 1 + count]),
                sample_lens=[start + count + 2],
                packed_position_ids=torch.tensor([*range(start), *[start] * (count + 2)]),
                nested_attention_masks=[mask],
                padded_latent=latent,
                patchified_vae_latent_shapes=[(side, side)],
                packed_latent_position_ids=get_flattened_position_ids_extrapolate(
                    SIDE, SIDE, model.latent_downsample, model.max_latent_size
                ),
                packed_vae_token_indexes=latents,
                packed_timesteps=torch.full((count,), number),
                mse_loss_indexes=latents,
            )["mse"]
        torch.manual_seed(SEED)
        return errors, torch.randn(count, errors.shape[1])


def read_sizes() -> torch.Tensor:
    """Height and width, and those at which the published transform of images to read resizes them."""
    # only the sizes are computed, for which neither library is needed
    for name in ("cv2", "torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = types.ModuleType(name)
    stub: Any = sys.modules["torchvision.transforms"]
    sys.modules["torchvision"].transforms = stub  # type: ignore[attr-defined]
    stub.functional = sys.modules["torchvision.transforms.functional"]
    stub.InterpolationMode = types.SimpleNamespace(BICUBIC="bicubic")
    import data.transforms as transforms

    transforms.F.resize = lambda image, size, *_, **__: size  # type: ignore[attr-defined]
    resize = transforms.MaxLongEdgeMinShortEdgeResize(980, 224, 14, 14 * 14 * 9 * 1024)
    sides = [(32, 32), (224, 224), (512, 512), (1024, 1024), (720, 1280), (100, 2000), (3000, 400), (2047, 1999)]
    return torch.tensor([[*side, *resize(torch.empty(3, *side, device="meta"))] for side in sides])


def layout() -> torch.Tensor:
    """SHA-256 of the names and shapes of the published size, as bytes; the sizes are Qwen2.5-7B's and SigLIP's."""
    from modeling.autoencoder import load_ae
    from modeling.bagel import (
        Bagel,
        BagelConfig,
        Qwen2Config,
        Qwen2ForCausalLM,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    llm = Qwen2Config(
        vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, qk_norm=True, layer_module="Qwen2MoTDecoderLayer",
    )  # fmt: skip
    vit = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=26, num_attention_heads=16, image_size=980,
        patch_size=14, rope=False,
    )  # fmt: skip
    with torch.device("meta"):
        vae, params = load_ae(None)
        config = BagelConfig(llm_config=llm, vit_config=vit, vae_config=params, max_latent_size=64)
        PositionEmbedding = sys.modules["modeling.bagel.bagel"].PositionEmbedding
        PositionEmbedding._init_weights = lambda _self: None
        model = Bagel(Qwen2ForCausalLM(llm), SiglipVisionModel(vit), config)
        model.vit_model.vision_model.embeddings.convert_conv2d_to_linear(vit, meta=True)
    tensors = {**model.state_dict(), **{f"ae: {name}": tensor for name, tensor in vae.state_dict().items()}}
    lines = "\n".join(sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()))
    print(len(tensors), "tensors,", sum(tensor.numel() for tensor in model.state_dict().values()), "parameters")
    return torch.tensor(list(hashlib.sha256(lines.encode()).digest()), dtype=torch.uint8)


def main(clone: str, small: str, output: str) -> None:
    prepare(clone)
    official = Official(Path(small))
    images = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(5)) * 2 - 1
    picture = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(6)) * 2 - 1
    results: dict[str, torch.Tensor] = {"read_sizes": read_sizes(), "layout": layout()}
    for index, prompt in enumerate(PROMPTS):
        results[f"sampled_{index}"] = official.sampled(prompt, 4.0)
        results[f"velocity_{index}"] = official.velocity(prompt, 0.7)
    results["sampled_unguided"] = official.sampled(PROMPTS[0], 1.0)
    results["sampled_channel"] = official.sampled(PROMPTS[0], 3.0, cfg_renorm_type="channel", cfg_interval=[0.0, 1.0])
    results["pixels"] = official.pixels(results["sampled_0"])
    for index, image in enumerate(images):
        for asked, question in enumerate(QUESTIONS):
            results[f"logits_{index}_{asked}"] = official.answer_logits(image, question)
    wide = images[:1, :, :28].squeeze(0)
    results["logits_wide"] = official.answer_logits(wide, QUESTIONS[0])
    results["answer"] = official.answer_logps(images[0], QUESTIONS[0], ANSWER)
    results["errors"], results["noise"] = official.losses(PROMPTS[0], picture, 0.3)
    results["errors_null"], _ = official.losses(None, picture, -0.5)
    results["ids"] = torch.tensor(official.tokenizer.encode(PROMPTS[1]))
    np.savez_compressed(output, **{name: tensor.numpy() for name, tensor in results.items()})
    print(json.dumps({name: float(tensor.float().abs().mean()) for name, tensor in results.items()}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
