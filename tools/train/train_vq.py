"""Stage `vq`: the tokenizer, on drawings of both sizes, three large batches to a small one.

Loss: squared error, the eye's perceptual distance, codebook, commitment and entropy terms; after `disc_start` also a
PatchGAN (hinge) with the adaptive weight that LlamaGen's code has, and leaves off.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .data import Draws, Pool, pictures
from .discriminator import Discriminator, adaptive_weight, hinge_loss
from .eye import distance, load_eye
from .png import grid
from .presets import Preset, VQRecipe
from .scenes import render, sample_scenes
from .stage import Limit, Stage, adamw
from .vq import VQConfig, VQModel, to_pixels, to_unit
from .world import World


def train_vq(world: World, preset: Preset, out: Path, limit: Limit) -> None:
    recipe = preset.recipes["vq"]
    assert isinstance(recipe, VQRecipe)
    model = VQModel(preset.vq).to(world.device, memory_format=world.layout)
    critic = Discriminator(recipe.disc_dim).to(world.device, memory_format=world.layout)
    eye = load_eye(out / "eye.pt", world.device)
    optimizers = {"optimizer": adamw(recipe, model), "optimizer_disc": adamw(recipe, critic)}
    small, large = preset.pixels
    modules = {"vq": model, "discriminator": critic}
    stage = Stage(
        "vq",
        world,
        out,
        limit,
        recipe,
        modules,
        optimizers,
        ("vq",),
        {"config": asdict(preset.vq), "image_size": large},
    )

    draws = Draws(world, world.seed + 0xA11, ("class", "text"), recipe.chunk, stage.drawn)
    pools = {px: Pool(draws, pictures(world, px), recipe, hand=4) for px in preset.pixels}
    local = world.local(recipe.batch)
    # A large picture has as many pixels as four small ones, and counts as one.
    batch = {small: local, large: max(1, local // 4)}

    def step() -> dict[str, Tensor]:
        px = preset.pixels[min(stage.steps % 4, 1)]
        image = to_unit(pools[px].batch(batch[px])[0]).contiguous(memory_format=world.layout)
        adversary = stage.progress >= recipe.disc_start
        with world.autocast():
            again, codes = model(image)
            again = again.float()
            rec = F.mse_loss(again, image)
            look = distance(eye, image, again)
            wanted = rec + recipe.perceptual_weight * look
            total = wanted + codes.codebook_loss + codes.commit_loss + codes.entropy_loss
            if adversary:
                fooled = -critic(again).mean()
                weight = adaptive_weight(wanted, fooled, model.decoder.conv_out.weight)
                total = total + recipe.disc_weight * weight * fooled
        stage.update("optimizer", total, "vq")
        losses = {"rec": rec, "look": look, "commit": codes.commit_loss, "entropy": codes.entropy_loss}
        losses["usage"] = model.quantize.usage()
        if adversary:
            with world.autocast():
                loss = hinge_loss(critic(image), critic(again.detach()))
            stage.update("optimizer_disc", loss, "discriminator")
            losses["disc"] = loss
        return losses

    examples = to_unit(render(sample_scenes(world.seed + 1, torch.arange(16), "text"), large, world.device))

    @torch.no_grad()
    def pairs() -> Tensor:
        """Drawings in the odd columns, what the EMA model makes of them to their right."""
        again = to_pixels(stage.ema["vq"](examples)[0])
        return grid(torch.stack([to_pixels(examples), again], 1).flatten(0, 1), 8)

    stage.run(step, pairs, (batch[small] + 3 * batch[large]) * world.size // 4, draws)


def load_vq(path: Path, device: torch.device) -> VQModel:
    """The stage's EMA model."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = VQModel(VQConfig(**state["config"]))
    model.load_state_dict(state["ema"])
    return model.to(device).eval().requires_grad_(False)
