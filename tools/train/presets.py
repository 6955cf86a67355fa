"""Sizes and recipes by name. `demo` is what ships, trained on a GPU; `cpu` is for a machine without one; `tiny` tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from .gpt import GPTConfig
from .scenes import CLASS_NAMES
from .t5 import T5Config
from .vq import VQConfig

STAGES = ("eye", "vq", "t5", "t2i-1", "c2i", "t2i-2", "evaluate")


@dataclass(frozen=True)
class Recipe:
    """How one stage is trained. `batch` counts images over all processes."""

    batch: int
    lr: float
    share: float
    """Of the minutes for everything."""
    weight_decay: float = 0.05
    ema_decay: float = 0.9995
    warmup_steps: int = 200
    chunk: int = 2048
    """Scenes drawn at a time."""
    reuse: int = 8
    """How often each drawn scene is trained on."""


@dataclass(frozen=True)
class VQRecipe(Recipe):
    weight_decay: float = 0.0
    perceptual_weight: float = 0.5
    disc_weight: float = 0.3
    disc_start: float = 0.3
    """The discriminator starts at this share of the stage."""
    disc_dim: int = 32


@dataclass(frozen=True)
class Sampling:
    cfg_scale: float
    top_k: int = 0
    """0 for all codes."""


@dataclass(frozen=True)
class Preset:
    pixels: tuple[int, int]
    """The text model's two stages; the VQ model sees both sizes, the class model the second."""
    vq: VQConfig
    c2i: GPTConfig
    t2i: GPTConfig
    t5: T5Config
    recipes: dict[str, Recipe]
    caption_tokens: int = 24
    """Captions are padded to this length in training; the checkpoint takes up to 120."""
    sampling: dict[str, Sampling] = field(default_factory=lambda: {"c2i": Sampling(2.0, 8), "t2i": Sampling(2.0, 8)})
    """Of the grids and of the evaluation, and what the shipped files name as their default."""

    def latent(self, stage: int) -> int:
        """Codes along a side."""
        return self.pixels[stage] >> (len(self.vq.decoder_ch_mult) - 1)


def sizes(dim: int, layers: int, t5: T5Config, vq: VQConfig) -> dict[str, object]:
    """Both GPTs have one shape, since each starts from the other's layers."""

    def gpt(**condition: object) -> GPTConfig:
        return GPTConfig(dim=dim, n_layer=layers, n_head=dim // 64, vocab_size=vq.codebook_size, **condition)

    return {
        "vq": vq,
        "c2i": gpt(model_type="c2i", num_classes=len(CLASS_NAMES)),
        "t2i": gpt(model_type="t2i", caption_dim=t5.d_model, cls_token_num=120),
        "t5": t5,
    }


PRESETS: dict[str, Preset] = {
    "demo": Preset(
        pixels=(128, 256),
        **sizes(192, 5, T5Config(d_model=96, d_kv=32, num_heads=3, d_ff=192), VQConfig(
            codebook_size=1024, encoder_ch_mult=(1, 1, 1, 1, 2), decoder_ch_mult=(1, 1, 2, 2, 3), z_channels=32)),
        recipes={
            "eye": Recipe(batch=512, lr=1e-3, share=0.04, chunk=8192, reuse=2, ema_decay=0.998),
            "vq": VQRecipe(batch=256, lr=4e-4, share=0.38, chunk=4096, reuse=4),
            "t5": Recipe(batch=512, lr=3e-3, share=0.02, chunk=4096, reuse=2, ema_decay=0.99),
            "t2i-1": Recipe(batch=1024, lr=1.5e-3, share=0.06, chunk=8192, reuse=1),
            "c2i": Recipe(batch=512, lr=1e-3, share=0.24, chunk=4096, reuse=1),
            "t2i-2": Recipe(batch=512, lr=1e-3, share=0.22, chunk=4096, reuse=1),
            "evaluate": Recipe(batch=512, lr=1e-3, share=0.04, chunk=8192, reuse=2, ema_decay=0.998),
        },
    ),
    "cpu": Preset(
        pixels=(64, 128),
        **sizes(192, 5, T5Config(d_model=96, d_kv=32, num_heads=3, d_ff=192), VQConfig(
            codebook_size=1024, encoder_ch_mult=(1, 1, 2, 2), decoder_ch_mult=(1, 1, 2, 3), z_channels=32,
            num_res_blocks=1)),
        recipes={
            "eye": Recipe(batch=64, lr=1e-3, share=0.04, chunk=256, reuse=4, ema_decay=0.995, warmup_steps=50),
            "vq": VQRecipe(batch=16, lr=4e-4, share=0.26, chunk=256, reuse=4, ema_decay=0.998, warmup_steps=50, disc_start=1.0),
            "t5": Recipe(batch=512, lr=3e-3, share=0.02, chunk=4096, reuse=2, ema_decay=0.99),
            "t2i-1": Recipe(batch=32, lr=1.5e-3, share=0.06, chunk=256, reuse=1, ema_decay=0.998, warmup_steps=50),
            "c2i": Recipe(batch=16, lr=1e-3, share=0.32, chunk=256, reuse=1, ema_decay=0.998, warmup_steps=50),
            "t2i-2": Recipe(batch=16, lr=1e-3, share=0.26, chunk=256, reuse=2, ema_decay=0.998, warmup_steps=50),
            "evaluate": Recipe(batch=64, lr=1e-3, share=0.04, chunk=256, reuse=4, ema_decay=0.995, warmup_steps=50),
        },
    ),
    "tiny": Preset(
        pixels=(32, 64),
        **sizes(64, 1, T5Config(d_model=32, d_kv=16, num_heads=2, d_ff=64, num_layers=1), VQConfig(
            codebook_size=64, encoder_ch_mult=(1, 1, 1), decoder_ch_mult=(1, 1, 2), z_channels=32, num_res_blocks=1)),
        recipes={
            "eye": Recipe(batch=16, lr=1e-3, share=0.2, chunk=32, warmup_steps=2),
            "vq": VQRecipe(batch=8, lr=4e-4, share=0.2, chunk=32, warmup_steps=2, disc_dim=8),
            **{s: Recipe(batch=8, lr=1e-3, share=0.12, chunk=32, warmup_steps=2) for s in ("t5", "c2i", "t2i-1", "t2i-2", "evaluate")},
        },
    ),
}  # fmt: skip
