"""Stages `t2i-1` and `t2i-2`: the text-conditional GPT at the small, then at the large size, with its text encoder.

The second stage starts from what the class model knows about pictures, and from the first one's text part. The encoder
comes from stage `t5`, and goes on learning from the GPT's losses: of its codes, and of what is to be drawn where.
Captions are left-padded before the GPT, as LlamaGen's are; padding is cut to `caption_tokens` in training, which changes
nothing: no position sees it.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from .data import Draws, Pool
from .generate import generate
from .gpt import Transformer
from .grounding import Grounding
from .png import grid
from .presets import Preset, Sampling
from .scenes import Scenes
from .stage import Limit, Stage, adamw
from .t5 import T5Config, T5Encoder, left_pad
from .tokenizer import encode as encode_text
from .train_c2i import about_pictures, decode, encoder, load_gpt
from .train_t5 import caption_ids, load_t5, open_tokenizer, said
from .train_vq import load_vq
from .vq import VQModel
from .world import World

GROUNDING = 0.5
"""Weight of the auxiliary losses."""
MODES = ("two", "text", "two", "two", "class")
"""What chunks of scenes show, in turn: mostly two things, which take the longest to learn."""
PROMPTS = (
    "a red sailboat left of a yellow moon at night",
    "a yellow sun above a green tree on green hills",
    "a blue fish",
    "an orange cat on a plain blue background",
    "a white snowman right of a green fir tree in the snow",
    "a purple butterfly over a pink flower in a meadow",
    "a red rocket in a starry night",
    "a small brown bird at sunset",
)


def train_t2i(world: World, preset: Preset, out: Path, limit: Limit, number: int) -> None:
    """`number` is 1 or 2."""
    name = f"t2i-{number}"
    recipe, px = preset.recipes[name], preset.pixels[number - 1]
    tokenizer = open_tokenizer(world, out)
    config = replace(preset.t2i, block_size=preset.latent(number - 1) ** 2)
    t5_config = replace(preset.t5, vocab_size=tokenizer.get_vocab_size())
    vq = load_vq(out / "vq.pt", world.device)
    model, t5 = Transformer(config).to(world.device), T5Encoder(t5_config).to(world.device)
    grounding = Grounding(config).to(world.device)
    if number == 2:
        before = torch.load(out / "t2i-1.pt", map_location="cpu", weights_only=True)
        model.load_state_dict(before["ema"] | about_pictures(out / "c2i.pt", world.device))
        t5.load_state_dict(before["t5_ema"])
    else:
        t5.load_state_dict(load_t5(out / "t5.pt", world.device).state_dict())
    stage = Stage(
        name, world, out, limit, recipe, {"gpt": model, "t5": t5, "grounding": grounding},
        {"optimizer": adamw(recipe, model, t5, grounding)}, ("gpt", "t5"),
        {"config": asdict(config), "t5_config": asdict(t5_config), "image_size": px},
    )  # fmt: skip
    encode = encoder(world, vq, px)

    def make(scenes: Scenes) -> tuple[Tensor, ...]:
        ids = caption_ids(tokenizer, scenes, preset.caption_tokens)
        return encode(scenes), ids.short().to(world.device), said(scenes).to(world.device)

    draws = Draws(world, world.seed + 0x721 + number, MODES, recipe.chunk, stage.drawn)
    pool = Pool(draws, make, recipe, hand=8)
    n = world.local(recipe.batch)
    world.fuse(model)

    def step() -> dict[str, Tensor]:
        codes, ids, facts = pool.batch(n)
        with world.autocast():
            features, mask = caption_features(t5, ids.long())
            loss, states = model(codes.long(), features, mask, keep_states=True)
            places = grounding.places(states, facts)
            caption = grounding.caption(model.cls_embedding.cap_proj(features), mask, facts)
        stage.update("optimizer", loss + GROUNDING * (places + caption), "gpt", "t5", "grounding")
        return {"loss": loss, "places": places, "caption": caption}

    def samples() -> Tensor:
        texts = [p for p in PROMPTS for _ in range(2)]
        return grid(sample_texts(stage.ema["gpt"], stage.ema["t5"], tokenizer, vq, texts, preset.sampling["t2i"]), 4)

    stage.run(step, samples, n * world.size, draws)


def caption_features(t5: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Right-padded tokens (B, L) to left-padded features (B, L, d_model) and their mask."""
    mask = ids != 0
    return left_pad(t5(ids, mask), mask.long())


@torch.no_grad()
def sample_texts(
    model: Transformer,
    t5: T5Encoder,
    tokenizer: Tokenizer,
    vq: VQModel,
    texts: list[str],
    sampling: Sampling,
) -> Tensor:
    """Pictures (B, 3, H, W) uint8 of the captions."""
    ids, _ = encode_text(tokenizer, texts)
    features, mask = caption_features(t5, ids.to(next(t5.parameters()).device))
    return decode(vq, generate(model, features, mask, **asdict(sampling)))


def load_t2i(path: Path, device: torch.device) -> tuple[Transformer, T5Encoder]:
    """A stage's EMA models."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    t5 = T5Encoder(T5Config(**state["t5_config"]))
    t5.load_state_dict(state["t5_ema"])
    return load_gpt(path, device), t5.to(device).eval()
