"""From a run's stages to files that others load.

OUT/export/pt: `vq.pt`, `c2i.pt`, `t2i.pt`, each `{"model": EMA weights in f32, ...}` as LlamaGen saves them.
OUT/export/demo: the shipped form in bf16 safetensors, with names, sizes and classes in the metadata, and the T5 folder.
OUT/export/eye.safetensors: the evaluating eye.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from .presets import Preset
from .scenes import CLASS_NAMES, COLOUR_NAMES
from .stage import save_atomically
from .t5 import T5Config, save_t5

FILES = {"vq": "vq", "c2i": "c2i", "t2i": "t2i-2"}
LEFT_OUT = ("quantize.codebook_used",)
SIZES = (
    "dim", "n_layer", "n_head", "vocab_size", "norm_eps", "rope_base", "model_type", "num_classes", "caption_dim",
    "cls_token_num", "codebook_size", "codebook_embed_dim", "z_channels", "ch", "num_res_blocks", "encoder_ch_mult",
    "decoder_ch_mult",
)  # fmt: skip


def bf16(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.to(torch.bfloat16).contiguous() for k, v in weights.items() if k not in LEFT_OUT}


def about(name: str, state: dict[str, Any], preset: Preset) -> dict[str, str]:
    """The metadata of a shipped file: sizes by LlamaGen's names, and how to sample, as text."""
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in state["config"].items() if k in SIZES}
    text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}
    if name in preset.sampling:
        text |= {k: str(v) for k, v in asdict(preset.sampling[name]).items()}
    return text | {
        "smalti.kind": "vq" if name == "vq" else "gpt",
        "image_size": str(state["image_size"]),
        "class_names": json.dumps(CLASS_NAMES),
    }


def export(out: Path, preset: Preset) -> None:
    pt, demo = out / "export" / "pt", out / "export" / "demo"
    for folder in (pt, demo):
        folder.mkdir(parents=True, exist_ok=True)
    for name, stage in FILES.items():
        state = torch.load(out / f"{stage}.pt", map_location="cpu", weights_only=True)
        kept = {k: state[k] for k in ("steps", "config", "image_size", "class_names")}
        save_atomically(pt / f"{name}.pt", {"model": state["ema"]} | kept)
        save_file(bf16(state["ema"]), demo / f"{name}.safetensors", metadata=about(name, state, preset))
        if name == "t2i":
            save_t5(demo / "t5", T5Config(**state["t5_config"]), bf16(state["t5_ema"]))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(out / "t5" / name, demo / "t5" / name)
    eye = torch.load(out / "evaluate.pt", map_location="cpu", weights_only=True)["ema"]
    metadata = {"class_names": json.dumps(CLASS_NAMES), "colour_names": json.dumps(COLOUR_NAMES)}
    save_file(bf16(eye), out / "export" / "eye.safetensors", metadata=metadata)
    sizes = {p.relative_to(demo).as_posix(): p.stat().st_size for p in sorted(demo.rglob("*")) if p.is_file()}
    for path, size in sizes.items():
        print(f"{size:>10,}  {path}")
    print(f"{sum(sizes.values()):>10,}  in all")
