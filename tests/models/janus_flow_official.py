"""Write janus_flow_official.npz: what JanusFlow's own code computes on the small checkpoint of ``small_janus_flow``.

Run by hand, with a clone of github.com/deepseek-ai/Janus at commit 1daa72f, transformers 4.46, diffusers 0.31, timm
1.0.12 and einops:

    python tests/models/janus_flow_official.py CLONE SMALL_FOLDER tests/models/janus_flow_official.npz

SMALL_FOLDER is what ``small_janus_flow.save_small_janus_flow`` wrote. The authors' modules and the ``generate`` of
their demo run in float32 on a CPU. Only the sizes that are constants of their code are replaced by those of the small
checkpoint.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

PROMPTS = ("a red circle", "two black crosses left of a ring", " Yes ")
QUESTIONS = ("is it red?", "six rings?\n")
SEED, STEPS, SEEN_STEP = 1234, 30, 9
SMALL = {1024: 32, 2048: 64, 768: 32}
"""Widths that are constants of the authors' code, and those of the small checkpoint."""
CONSTANTS = {
    "[input_ids] * 10": "[input_ids] * 2",
    "tokens[5:": "tokens[1:",
    "(5, 4, 48, 48)": "(1, 4, 8, 8)",
    "(10, inputs": "(2, inputs",
    "attention_mask[5:": "attention_mask[1:",
    "+577": "+17",
    "-576:": "-16:",
    "24, 24, 768": "4, 4, 32",
    ".cuda()": "",
    "torch.bfloat16": "torch.float32",
}
"""Numbers of the demo, for five images at 384 pixels in bfloat16 on a GPU, and those for one small image on a CPU."""


class AttrDict(dict):
    """As of the package attrdict, as far as it is used."""

    __getattr__ = dict.__getitem__


def stub(name: str, path: list[str] | None = None, **members: Any) -> Any:
    module: Any = types.ModuleType(name)
    module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), path or []
    for member, value in members.items():
        setattr(module, member, value)
    sys.modules[name] = module
    return module


def prepare(clone: str) -> None:
    stub("attrdict", AttrDict=AttrDict)
    timm = importlib.util.find_spec("timm")
    assert timm is not None and timm.origin is not None
    # only timm's layers are needed, and its models import torchvision
    stub("timm", [str(Path(timm.origin).parent)])
    stub("timm.models", [str(Path(timm.origin).parent / "models")])
    functional = stub("torchvision.transforms.functional", resize=lambda image, *_, **__: image)
    functional.InterpolationMode = types.SimpleNamespace(BICUBIC=3)
    transforms = stub("torchvision.transforms", functional=functional)
    stub("torchvision", transforms=transforms, utils=stub("torchvision.utils"))
    stub("torchvision.ops")
    stub("torchvision.ops.misc", FrozenBatchNorm2d=None)
    sys.path.insert(0, clone)


class Official:
    """The authors' model, built and loaded with the sizes of the small checkpoint."""

    def __init__(self, clone: str, folder: Path) -> None:
        from diffusers.models import AutoencoderKL
        from janus.janusflow.models import MultiModalityCausalLM, VLChatProcessor, modeling_vlm, siglip_vit
        from janus.janusflow.models.image_processing_vlm import VLMImageProcessor
        from transformers import LlamaTokenizerFast

        tower = {"width": 32, "layers": 2, "heads": 16, "patch_size": 8, "image_size": 32, "mlp_ratio": 4}
        siglip_vit.SigLIP_MODEL_CONFIG["siglip_large_patch16_384"].update(tower)
        linear, norm = nn.Linear, modeling_vlm.LlamaRMSNorm
        modeling_vlm.nn = types.SimpleNamespace(
            Linear=lambda a, b, bias: linear(SMALL[a], SMALL[b], bias), Parameter=nn.Parameter
        )
        modeling_vlm.LlamaRMSNorm = lambda width, eps: norm(SMALL[width], eps)
        config = modeling_vlm.MultiModalityConfig(**json.loads((folder / "config.json").read_text()))
        self.model = MultiModalityCausalLM(config)
        self.model.beg_of_und_embed = nn.Parameter(torch.zeros(1, SMALL[2048]))
        print(self.model.load_state_dict(load_file(folder / "model.safetensors"), strict=True))
        self.model.float().eval()
        self.vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
        images = json.loads((folder / "preprocessor_config.json").read_text())
        sizes = json.loads((folder / "processor_config.json").read_text())
        self.processor = VLChatProcessor(
            VLMImageProcessor(**images), LlamaTokenizerFast.from_pretrained(folder), **sizes
        )
        self.generate = self._demo(Path(clone) / "demo" / "app_janusflow.py")

    def _demo(self, path: Path) -> Any:
        """The function ``generate`` of the demo, with other numbers."""
        source = path.read_text(encoding="utf-8")
        (found,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == "generate")
        code = "@torch.inference_mode()\n" + (ast.get_source_segment(source, found) or "")
        for old, new in CONSTANTS.items():
            assert old in code, old
            code = code.replace(old, new)
        names: dict[str, Any] = {
            "torch": torch, "np": np, "vl_gpt": self.model, "vl_chat_processor": self.processor, "vae": self.vae,
        }  # fmt: skip
        exec(code, names)
        return names["generate"]

    def prompt_ids(self, prompt: str) -> torch.Tensor:
        """As in the demo's ``generate_image``."""
        processor = self.processor
        text = processor.apply_sft_template_for_multi_turn_prompts(
            conversations=[{"role": "User", "content": prompt}, {"role": "Assistant", "content": ""}],
            sft_format=processor.sft_format,
            system_prompt="",
        )
        text = text + processor.image_start_tag
        return torch.LongTensor(processor.tokenizer.encode(text))

    def sampled(self, prompt: str, cfg: float, steps: int = STEPS) -> dict[str, torch.Tensor]:
        """The latents of an image, its pixels, and what enters and leaves the network in one step."""
        entered: list[Any] = []
        left: list[torch.Tensor] = []
        decoded: list[torch.Tensor] = []
        hooks = [
            self.model.vision_gen_enc_model.register_forward_pre_hook(lambda _m, given: entered.append(given)),
            self.model.vision_gen_dec_model.register_forward_hook(lambda _m, _i, out: left.append(out)),
            self.vae.post_quant_conv.register_forward_pre_hook(lambda _m, given: decoded.append(given[0])),
            self.vae.decoder.register_forward_hook(lambda _m, _i, out: decoded.append(out)),
        ]
        torch.manual_seed(SEED)
        self.generate(self.prompt_ids(prompt), cfg_weight=cfg, num_inference_steps=steps)
        for hook in hooks:
            hook.remove()
        step = min(SEEN_STEP, steps - 1)
        return {
            "latents": decoded[0][0] * self.vae.config.scaling_factor,
            "pixels": decoded[1][0].clamp(-1, 1),
            "entered": entered[step][0][0],
            "time": entered[step][1][0],
            "left": left[step],
        }

    def answer_logits(self, image: np.ndarray, question: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The token ids of a question about an image, and the logits of the next one."""
        from PIL import Image

        inputs = self.processor(
            conversations=[
                {"role": "User", "content": f"<image_placeholder>\n{question}", "images": [image]},
                {"role": "Assistant", "content": ""},
            ],
            images=[Image.fromarray(image)],
            force_batchify=True,
        )
        ids = inputs.input_ids[0].clone()
        with torch.no_grad():
            embeds = self.model.prepare_inputs_embeds(**inputs)
            out = self.model.language_model(inputs_embeds=embeds, attention_mask=inputs.attention_mask)
        return ids, out.logits[0, -1]


def layout() -> torch.Tensor:
    """SHA-256 of the names and shapes at the authors' sizes, as bytes."""
    from janus.janusflow.models import modeling_vlm

    llm = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16}
    both = {"block_out_channels": [768], "hidden_size": 2048, "layers_in_middle": 2}
    encoder = {**both, "input_channels": 4, "kernel_size": 2, "padding": 0, "stride": 2}
    decoder = {**both, "in_channels": 768, "out_channels": 4, "upsamples": 1}
    tower = {"image_size": 384, "model_name": "siglip_large_patch16_384", "select_layer": -1}
    config = modeling_vlm.MultiModalityConfig(
        language_config={**llm, "vocab_size": 102_400},
        vision_gen_enc_config={"cls": "ShallowUViTEncoder", "params": encoder},
        vision_gen_dec_config={"cls": "ShallowUViTDecoder", "params": decoder},
        vision_und_enc_config={"cls": "CLIPVisionTower", "params": tower},
    )
    with torch.device("meta"):
        linspace = torch.linspace
        torch.linspace = lambda *given: linspace(*given, device="cpu")  # type: ignore[assignment]
        tensors = modeling_vlm.MultiModalityCausalLM(config).state_dict()
        torch.linspace = linspace
    lines = "\n".join(sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()))
    print(len(tensors), "tensors,", sum(tensor.numel() for tensor in tensors.values()), "parameters")
    return torch.tensor(list(hashlib.sha256(lines.encode()).digest()), dtype=torch.uint8)


def shown() -> np.ndarray:
    """Two images as bytes."""
    return np.random.default_rng(5).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def main(clone: str, small: str, output: str) -> None:
    prepare(clone)
    results: dict[str, torch.Tensor] = {"layout": layout()}
    official = Official(clone, Path(small))
    for index, prompt in enumerate(PROMPTS):
        found = official.sampled(prompt, 2.0)
        results[f"ids_{index}"] = official.prompt_ids(prompt)
        results |= {f"{name}_{index}": tensor for name, tensor in found.items()}
    results["unguided"] = official.sampled(PROMPTS[0], 1.0)["latents"]
    results["strong"] = official.sampled(PROMPTS[1], 5.0, 7)["latents"]
    for image, pixels in enumerate(shown()):
        for asked, question in enumerate(QUESTIONS):
            ids, logits = official.answer_logits(pixels, question)
            results |= {f"question_{asked}": ids, f"logits_{image}_{asked}": logits}
    with torch.no_grad():
        pixels = torch.from_numpy(shown()).permute(0, 3, 1, 2) / 127.5 - 1
        results["encoded"] = official.vae.encode(pixels).latent_dist.mean * official.vae.config.scaling_factor
    np.savez_compressed(output, **{name: tensor.numpy() for name, tensor in results.items()})
    print(json.dumps({name: float(tensor.float().abs().max()) for name, tensor in results.items()}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
