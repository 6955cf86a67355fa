"""What is in a scene: everything that its picture and its caption follow from.

Scenes come in batches, as tensors on the CPU; `(seed, index)` decides a scene whatever the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor

from .chance import uniform
from .colours import COLOUR_NAMES
from .kinds import CLASS_NAMES, KINDS

BACKGROUNDS = ("plain", "sky", "night", "hills", "sea", "sunset", "snow", "checker")
POSE = 2
"""Pose numbers per object."""


class Layout(IntEnum):
    SINGLE = 0
    BESIDE = 1
    """Object 0 is left of object 1."""
    STACKED = 2
    """Object 0 is above object 1."""


@dataclass
class Scenes:
    """B scenes of one or two objects (2 slots, the second unused in a single). Lengths are shares of the picture's side."""

    layout: Tensor  # (B,) Layout
    kind: Tensor  # (B, 2) index into CLASS_NAMES
    colour: Tensor  # (B, 2) index into COLOUR_NAMES
    centre: Tensor  # (B, 2, 2) x, y
    size: Tensor  # (B, 2) half the object's side
    tilt: Tensor  # (B, 2) radians
    flip: Tensor  # (B, 2) +1, or -1 for mirrored
    pose: Tensor  # (B, 2, POSE)
    shade: Tensor  # (B, 2, 3) added to the colour
    background: Tensor  # (B,) index into BACKGROUNDS
    background_colour: Tensor  # (B,) index into COLOUR_NAMES
    background_u: Tensor  # (B, 20)
    words: Tensor  # (B, 10) numbers that choose the caption's words

    def __len__(self) -> int:
        return len(self.layout)

    def __getitem__(self, rows: slice | Tensor) -> Scenes:
        return Scenes(*(getattr(self, f.name)[rows] for f in fields(self)))


def pick(u: Tensor, count: int) -> Tensor:
    return (u * count).long().clamp_max(count - 1)


def between(u: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * u


USUAL = torch.tensor(
    [[COLOUR_NAMES.index(KINDS[n].usual[i % len(KINDS[n].usual)]) for i in range(6)] for n in CLASS_NAMES]
)
TILT = torch.tensor([KINDS[n].tilt for n in CLASS_NAMES])
NIGHT, BLACK, WHITE = BACKGROUNDS.index("night"), COLOUR_NAMES.index("black"), COLOUR_NAMES.index("white")


def sample_scenes(seed: int, index: Tensor, mode: str) -> Scenes:
    """The scenes of these indices, (B,) int64. `mode`: "class" has one large object near the middle, in one of its usual
    colours; "text" one or two, half of them in any colour; "two" is "text" without the single ones."""
    b = len(index)
    draws = uniform(seed + (0 if mode == "class" else 0x5CE9E5), index, 64)
    u = iter(draws.unbind(1))

    def take(*shape: int) -> Tensor:
        return torch.stack([next(u) for _ in range(math.prod(shape))], 1).view(b, *shape)

    usual_share = 1.0 if mode == "class" else 0.5
    first = take(1).squeeze(1)
    if mode == "class":
        layout = torch.zeros(b, dtype=torch.long)
    else:
        first = 0.5 + first / 2 if mode == "two" else first
        layout = torch.where(first < 0.5, Layout.SINGLE, torch.where(first < 0.8, Layout.BESIDE, Layout.STACKED))
    single = layout == Layout.SINGLE
    kind = pick(take(2), len(CLASS_NAMES))
    usual = USUAL[kind].gather(2, pick(take(2), 6)[..., None]).squeeze(2)
    colour = torch.where(take(2) < usual_share, usual, pick(take(2), len(COLOUR_NAMES)))

    background = pick(take(1).squeeze(1), len(BACKGROUNDS))
    colour = torch.where((background == NIGHT)[:, None] & (colour == BLACK), WHITE, colour)
    # A plain ground takes one of the colours that no object has.
    step = pick(take(1).squeeze(1), len(COLOUR_NAMES) - 2)
    first_two = colour.sort(1).values
    ground = step + (step >= first_two[:, 0])
    ground = ground + ((ground >= first_two[:, 1]) & (first_two[:, 1] != first_two[:, 0]))

    wide = take(2)
    if mode == "class":
        size = between(wide, 0.34, 0.42)
    else:
        alone = torch.where(wide < 0.12, between(wide / 0.12, 0.19, 0.215), between((wide - 0.12) / 0.88, 0.33, 0.42))
        size = torch.where(single[:, None], alone, between(wide, 0.21, 0.235))
    jitter = take(2, 2) * 2 - 1
    room = (0.5 - size * 1.02).clamp_min(0.0)[..., None]
    alone = 0.5 + jitter * torch.minimum(room, torch.tensor([0.06, 0.05]))
    side = torch.tensor([-1.0, 1.0])
    along, across = 0.5 + side * 0.245 + jitter[..., 0] * 0.01, 0.5 + jitter[..., 1] * 0.06
    beside, stacked = torch.stack([along, across], 2), torch.stack([across, along], 2)
    centre = torch.where(
        single[:, None, None], alone, torch.where((layout == Layout.BESIDE)[:, None, None], beside, stacked)
    )
    return Scenes(
        layout=layout,
        kind=kind,
        colour=colour,
        centre=centre,
        size=size,
        tilt=(take(2) * 2 - 1) * TILT[kind],
        flip=torch.where(take(2) < 0.5, -1.0, 1.0),
        pose=take(2, POSE),
        shade=(take(2, 3) - 0.5) * 0.08,
        background=background,
        background_colour=ground,
        background_u=take(20),
        words=take(10),
    )
