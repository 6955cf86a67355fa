"""Stage `t5`: the text encoder learns what captions say, before it sees what they look like.

A GPT takes a caption as the mean of what its tokens become: their keys are zero, so that all are attended to alike. Here
a linear reader of the features' mean has to tell how things lie, which they are, in what colours, and where; so it is
there to be read. From a GPT's loss alone an encoder had not learned in an hour which of two things is the left one.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Draws, Pool
from .png import grid
from .presets import Preset
from .scenes import BACKGROUNDS, CLASS_NAMES, COLOUR_NAMES, Layout, Scenes, captions, render, sample_scenes
from .scenes.captions import tells_colours, tells_ground, tells_places
from .stage import Limit, Stage, adamw
from .t5 import T5Config, T5Encoder
from .tokenizer import encode as encode_text
from .tokenizer import save_tokenizer, train_tokenizer
from .world import World

ANSWERS = (
    len(Layout), len(CLASS_NAMES), len(CLASS_NAMES), len(COLOUR_NAMES), len(COLOUR_NAMES), len(BACKGROUNDS), len(COLOUR_NAMES)
)  # fmt: skip
UNSAID = -100


def open_tokenizer(world: World, out: Path) -> Tokenizer:
    """The run's tokenizer; the first process makes it."""
    path = out / "t5" / "tokenizer.json"
    if world.main and not path.exists():
        save_tokenizer(path.parent, train_tokenizer(world.seed))
    world.agree(0.0)
    return Tokenizer.from_file(str(path))


def caption_ids(tokenizer: Tokenizer, scenes: Scenes, length: int) -> Tensor:
    """Tokens of the scenes' captions, padded on the right, (B, length)."""
    ids, _ = encode_text(tokenizer, captions(scenes))
    assert ids.shape[1] <= length, "a caption would lose its end"
    return F.pad(ids, (0, length - ids.shape[1]))


def said(scenes: Scenes) -> Tensor:
    """What the captions of B scenes tell, (B, 7) in the order of `ANSWERS`; `UNSAID` where they leave it out."""
    two = scenes.layout != Layout.SINGLE
    placed, colours, ground = ~two | tells_places(scenes), tells_colours(scenes), tells_ground(scenes)
    known = torch.stack(
        [
            placed, placed, placed & two, placed & colours[:, 0], placed & two & colours[:, 1],
            ground, ground & (scenes.background == BACKGROUNDS.index("plain")),
        ],
        1,
    )  # fmt: skip
    facts = torch.cat(
        [
            scenes.layout[:, None],
            scenes.kind,
            scenes.colour,
            scenes.background[:, None],
            scenes.background_colour[:, None],
        ],
        1,
    )
    return torch.where(known, facts, UNSAID)


def mean_feature(features: Tensor, mask: Tensor) -> Tensor:
    """Of each caption's tokens: (B, L, C) and their mask to (B, C)."""
    return (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def told_loss(answer: Tensor, fact: Tensor) -> Tensor:
    """The mean cross-entropy of what was said; 0 where a whole batch leaves it out."""
    losses = F.cross_entropy(answer, fact, ignore_index=UNSAID, reduction="sum")
    return losses / (fact != UNSAID).sum().clamp_min(1)


def facts_loss(answers: Tensor, facts: Tensor) -> Tensor:
    """The mean over all facts (B, 7) of their losses, of a reader's `answers` (B, sum(ANSWERS))."""
    parts = answers.float().split(ANSWERS, 1)
    return torch.stack([told_loss(a, f) for a, f in zip(parts, facts.T, strict=True)]).mean()


def train_t5(world: World, preset: Preset, out: Path, limit: Limit) -> None:
    recipe = preset.recipes["t5"]
    tokenizer = open_tokenizer(world, out)
    config = replace(preset.t5, vocab_size=tokenizer.get_vocab_size())
    t5, reader = T5Encoder(config).to(world.device), nn.Linear(config.d_model, sum(ANSWERS)).to(world.device)
    modules = {"t5": t5, "reader": reader}
    optimizers = {"optimizer": adamw(recipe, t5, reader)}
    stage = Stage("t5", world, out, limit, recipe, modules, optimizers, ("t5",), {"t5_config": asdict(config)})

    def make(scenes: Scenes) -> tuple[Tensor, ...]:
        return caption_ids(tokenizer, scenes, preset.caption_tokens).to(world.device), said(scenes).to(world.device)

    draws = Draws(world, world.seed + 0x7E5, ("text",), recipe.chunk, stage.drawn)
    pool = Pool(draws, make, recipe, hand=4)
    n = world.local(recipe.batch)

    def step() -> dict[str, Tensor]:
        ids, facts = pool.batch(n)
        mask = ids != 0
        answers = reader(mean_feature(t5(ids, mask), mask))
        loss = facts_loss(answers, facts)
        stage.update("optimizer", loss, "t5", "reader")
        known = facts[:, 2] != UNSAID
        _, first, second, *_ = answers.split(ANSWERS, 1)
        right = (first.argmax(1) == facts[:, 1]) & (second.argmax(1) == facts[:, 2])
        return {"loss": loss, "both_kinds": (right & known).sum() / known.sum().clamp_min(1)}

    def examples() -> Tensor:
        """What the first captions are of: there is nothing else to see."""
        return grid(render(sample_scenes(draws.seed, torch.arange(16), "text"), preset.pixels[0], world.device), 8)

    stage.run(step, examples, n * world.size, draws)


def load_t5(path: Path, device: torch.device) -> T5Encoder:
    """The stage's EMA encoder."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    t5 = T5Encoder(T5Config(**state["t5_config"]))
    t5.load_state_dict(state["ema"])
    return t5.to(device)
