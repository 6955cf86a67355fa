"""Contact sheets: every kind in several colours, and a page of captioned scenes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..png import grid
from .captions import captions
from .colours import COLOUR_NAMES
from .kinds import CLASS_NAMES, KINDS
from .render import render
from .sampler import TILT, sample_scenes


def kinds_sheet(px: int = 112, copies: int = 4, seed: int = 0) -> Tensor:
    """`copies` class-mode pictures of every kind side by side, the first in its usual colour: (3, H, W) uint8."""
    n = len(CLASS_NAMES)
    scenes = sample_scenes(seed, torch.arange(n * copies), "class")
    kind = torch.arange(n * copies) // copies
    scenes.tilt[:, 0] *= TILT[kind] / TILT[scenes.kind[:, 0]]
    scenes.kind[:, 0] = kind
    usual = torch.tensor([COLOUR_NAMES.index(KINDS[name].usual[0]) for name in CLASS_NAMES])
    scenes.colour[::copies, 0] = usual
    return grid(render(scenes, px), columns=copies * 4)


def scenes_sheet(px: int = 128, count: int = 48, seed: int = 0) -> tuple[Tensor, list[str]]:
    """Text-mode scenes in rows of eight, (3, H, W) uint8, and their captions."""
    scenes = sample_scenes(seed, torch.arange(count), "text")
    return grid(render(scenes, px), columns=8), captions(scenes)
