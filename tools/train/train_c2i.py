"""Stage `c2i`: the class-conditional GPT, on the tokenizer's codes of class-mode scenes.

It starts from what stage `t2i-1` knows about pictures: all of that GPT but the part that reads its condition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from .data import Draws, Pool
from .generate import generate
from .gpt import GPTConfig, Transformer
from .png import grid
from .presets import Preset, Sampling
from .scenes import CLASS_NAMES, Scenes, render
from .stage import Limit, Stage, adamw
from .train_vq import load_vq
from .vq import VQModel, to_pixels, to_unit
from .world import World

ENCODE_AT_ONCE = {"cpu": 32, "cuda": 256}


def encoder(world: World, vq: VQModel, px: int) -> Callable[[Scenes], Tensor]:
    """Scenes to codes (B, N) int16, row by row."""
    world.fuse(vq.encoder)

    @torch.no_grad()
    def encode(scenes: Scenes) -> Tensor:
        parts = []
        for pixels in render(scenes, px, world.device).split(ENCODE_AT_ONCE[world.device.type]):
            with world.autocast():
                parts.append(vq.encode(to_unit(pixels)).index.flatten(1).short())
        return torch.cat(parts)

    return encode


def train_c2i(world: World, preset: Preset, out: Path, limit: Limit) -> None:
    recipe = preset.recipes["c2i"]
    config = replace(preset.c2i, block_size=preset.latent(1) ** 2)
    vq = load_vq(out / "vq.pt", world.device)
    model = Transformer(config).to(world.device)
    model.load_state_dict(model.state_dict() | about_pictures(out / "t2i-1.pt", world.device))
    stage = Stage(
        "c2i", world, out, limit, recipe, {"gpt": model}, {"optimizer": adamw(recipe, model)}, ("gpt",),
        {"config": asdict(config), "image_size": preset.pixels[1]},
    )  # fmt: skip
    encode = encoder(world, vq, preset.pixels[1])
    draws = Draws(world, world.seed + 0xC21, ("class",), recipe.chunk, stage.drawn)
    pool = Pool(draws, lambda s: (encode(s), s.kind[:, 0].to(world.device)), recipe, hand=8)
    n = world.local(recipe.batch)
    world.fuse(model)

    def step() -> dict[str, Tensor]:
        codes, label = pool.batch(n)
        with world.autocast():
            loss, _ = model(codes.long(), label)
        stage.update("optimizer", loss, "gpt")
        return {"loss": loss}

    def samples() -> Tensor:
        """One of each class."""
        label = torch.arange(len(CLASS_NAMES), device=world.device)
        return grid(sample_classes(stage.ema["gpt"], vq, label, preset.sampling["c2i"]), 8)

    stage.run(step, samples, n * world.size, draws)


@torch.no_grad()
def sample_classes(model: Transformer, vq: VQModel, label: Tensor, sampling: Sampling) -> Tensor:
    """Pictures (B, 3, H, W) uint8 of the classes `label`."""
    return decode(vq, generate(model, label, **asdict(sampling)))


@torch.no_grad()
def decode(vq: VQModel, codes: Tensor) -> Tensor:
    side = round(codes.shape[1] ** 0.5)
    return torch.cat([to_pixels(vq.decode_code(part)) for part in codes.view(-1, side, side).split(32)])


def about_pictures(path: Path, device: torch.device) -> dict[str, Tensor]:
    """What a stage's EMA model knows whatever its condition: all but the part that reads that."""
    return {k: v for k, v in load_gpt(path, device).state_dict().items() if not k.startswith("cls_embedding.")}


def load_gpt(path: Path, device: torch.device) -> Transformer:
    """A stage's EMA model."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = Transformer(GPTConfig(**state["config"]))
    model.load_state_dict(state["ema"])
    return model.to(device).eval()
