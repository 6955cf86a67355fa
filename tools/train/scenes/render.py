"""From scenes to pixels, batched by kind: the same code on the CPU and on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from .backgrounds import PAINT, Canvas
from .colours import palette
from .kinds import CLASS_NAMES, KINDS
from .pen import Pen
from .sampler import BACKGROUNDS, Layout, Scenes

REACH = 1.12
"""A patch reaches this far in an object's own coordinates."""
AT_ONCE = 1 << 23
"""Pixels that one pen works on at a time: bounds the memory."""


def render(scenes: Scenes, px: int, device: torch.device | str = "cpu") -> Tensor:
    """Pictures of `px` pixels a side, (B, 3, px, px) uint8."""
    device = torch.device(device)
    # One more pixel, at the end, takes what patches hold outside of their picture.
    flat = torch.empty(len(scenes) * px * px + 1, 3, device=device)
    paint_grounds(scenes, flat[:-1].view(-1, px, px, 3))
    for slot in (0, 1):
        rows = torch.arange(len(scenes)) if slot == 0 else (scenes.layout != Layout.SINGLE).nonzero().squeeze(1)
        side = (scenes.size[rows, slot] * (2 * REACH * px)).ceil().long() + 2
        step = max(px // (16 if device.type == "cpu" else 4), 4)
        side = (side + step - 1) // step * step
        group = scenes.kind[rows, slot] * 65536 + side
        for value in group.unique().tolist():
            some = rows[group == value]
            patch = value % 65536
            for part in some.split(max(1, AT_ONCE // (patch * patch))):
                stamp(flat, scenes[part], slot, CLASS_NAMES[value // 65536], part.to(device), patch, px, device)
    return (flat[:-1].view(-1, px, px, 3).permute(0, 3, 1, 2) * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def paint_grounds(scenes: Scenes, pictures: Tensor) -> None:
    """Fills (B, px, px, 3) with the scenes' grounds."""
    device, px = pictures.device, pictures.shape[1]
    colours = palette()
    for value in scenes.background.unique().tolist():
        rows = (scenes.background == value).nonzero().squeeze(1)
        colour = colours[scenes.background_colour[rows]].to(device)
        canvas = Canvas(px, scenes.background_u[rows].to(device), colour[:, :, None, None])
        PAINT[BACKGROUNDS[value]](canvas)
        pictures[rows.to(device)] = canvas.rgb.permute(0, 2, 3, 1)


def stamp(
    flat: Tensor, some: Scenes, slot: int, name: str, rows: Tensor, patch: int, px: int, device: torch.device
) -> None:
    """Draws K objects of one kind, each within `patch` pixels a side, over their pictures (`rows` of `flat`)."""
    some_size = (some.size[:, slot] * px).to(device)[:, None, None]
    centre = (some.centre[:, slot] * px).to(device)
    corner = (centre - patch / 2).floor()
    steps = torch.arange(patch, device=device)
    column = corner[:, 0, None, None].long() + steps
    row = corner[:, 1, None, None].long() + steps[:, None]
    x = (column + 0.5 - centre[:, 0, None, None]) / some_size
    y = (row + 0.5 - centre[:, 1, None, None]) / some_size
    tilt = some.tilt[:, slot].to(device)[:, None, None]
    flip = some.flip[:, slot].to(device)[:, None, None]
    cos, sin = tilt.cos(), tilt.sin()
    x, y = (x * cos + y * sin) * flip, y * cos - x * sin
    colour = (palette()[some.colour[:, slot]] + some.shade[:, slot]).clamp(0, 1).to(device)
    pen = Pen(x, y, 1 / some_size, colour[:, :, None, None], some.pose[:, slot].to(device))
    KINDS[name].draw(pen)
    rgb, opacity = pen.patch()

    inside = (column >= 0) & (column < px) & (row >= 0) & (row < px)
    where = torch.where(inside, (rows[:, None, None] * px + row) * px + column, len(flat) - 1).flatten()
    under = flat[where]
    over = rgb.permute(0, 2, 3, 1).reshape(-1, 3)
    flat[where] = under.lerp_(over, opacity.reshape(-1, 1))
