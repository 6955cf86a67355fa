"""What is behind the things: each ground paints whole pictures of a batch.

`x, y` (1, H, W) run over [0, 1]; `u` gives numbers (B, 1, 1) by position; `colour` is (B, 3, 1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .colours import RGB, solid


class Canvas:
    """B pictures under work: `rgb` (B, 3, H, W)."""

    def __init__(self, px: int, u: Tensor, colour: Tensor) -> None:
        line = (torch.arange(px, device=u.device) + 0.5) / px
        self.x, self.y = line.view(1, 1, px), line.view(1, px, 1)
        self.pixel = 1 / px
        self.u = [u[:, i, None, None] for i in range(u.shape[1])]
        self.colour = colour
        self.rgb = colour.expand(len(u), 3, px, px).clone()

    def tint(self, colour: RGB) -> Tensor:
        return solid(colour, self.x.device)

    def fade(self, top: RGB, bottom: RGB, to: float = 1.0) -> None:
        """A vertical gradient, ending at the height `to`."""
        t = (self.y / to).clamp(0, 1)[:, None]
        self.rgb = (self.tint(top) * (1 - t) + self.tint(bottom) * t).expand_as(self.rgb).clone()

    def fill(self, d: Tensor, colour: RGB | Tensor) -> None:
        colour = colour if isinstance(colour, Tensor) else self.tint(colour)
        self.rgb.lerp_(colour.expand_as(self.rgb), (0.5 - d / self.pixel).clamp_(0, 1)[:, None])

    def wave(self, height: Tensor, amplitude: float, count: float, phase: Tensor) -> Tensor:
        """Distance above a wavy line: negative below it."""
        return height + amplitude * torch.sin(2 * math.pi * (count * self.x + phase)) - self.y


def plain(c: Canvas) -> None:
    """A light form of the named colour, so that the ground never competes with the things."""
    grey = c.colour.mean(1, keepdim=True)
    soft = torch.where(grey > 0.85, c.colour, c.colour * 0.72 + 0.25)
    c.rgb = soft.expand_as(c.rgb).clone()


def cloud(c: Canvas, x: Tensor, y: Tensor, size: float) -> None:
    for dx, r in ((-0.09, 0.05), (0.0, 0.07), (0.09, 0.045)):
        c.fill(torch.hypot(c.x - x - dx * size, (c.y - y) * 1.6) - r * size, (0.96, 0.98, 1.0))


def sky(c: Canvas) -> None:
    c.fade((0.36, 0.64, 0.95), (0.74, 0.89, 0.99))
    cloud(c, 0.1 + 0.35 * c.u[0], 0.08 + 0.1 * c.u[1], 1.0)
    cloud(c, 0.6 + 0.35 * c.u[2], 0.12 + 0.2 * c.u[3], 0.8)


def night(c: Canvas) -> None:
    c.fade((0.04, 0.05, 0.20), (0.16, 0.18, 0.42))
    for i in range(8):
        r = 0.007 + 0.006 * c.u[(i + 5) % 20]
        c.fill(torch.hypot(c.x - c.u[2 * i], c.y - c.u[2 * i + 1]) - r, (0.95, 0.95, 0.85))


def hills(c: Canvas) -> None:
    c.fade((0.45, 0.72, 0.96), (0.85, 0.94, 0.98), 0.7)
    c.fill(c.wave(0.58 + 0.08 * c.u[0], 0.05, 1.1, c.u[1]), (0.55, 0.78, 0.42))
    c.fill(c.wave(0.72 + 0.08 * c.u[2], 0.05, 0.8, c.u[3]), (0.40, 0.66, 0.32))


def sea(c: Canvas) -> None:
    c.fade((0.55, 0.80, 0.97), (0.92, 0.96, 0.98), 0.6)
    horizon = 0.58 + 0.08 * c.u[0]
    for depth, colour in ((0.0, (0.20, 0.52, 0.78)), (0.14, (0.14, 0.44, 0.70)), (0.28, (0.10, 0.36, 0.62))):
        c.fill(c.wave(horizon + depth, 0.012 if depth else 0.0, 5.0, c.u[1] + depth), colour)


def sunset(c: Canvas) -> None:
    c.fade((0.45, 0.25, 0.55), (0.99, 0.66, 0.35), 0.72)
    low = 0.70 + 0.06 * c.u[0]
    c.fill(torch.hypot(c.x - 0.2 - 0.6 * c.u[1], c.y - low) - 0.14, (1.0, 0.86, 0.50))
    c.fill(c.wave(low, 0.02, 1.3, c.u[2]), (0.30, 0.18, 0.32))


def snow(c: Canvas) -> None:
    c.fade((0.55, 0.68, 0.84), (0.80, 0.87, 0.94), 0.7)
    c.fill(c.wave(0.66 + 0.08 * c.u[0], 0.04, 0.9, c.u[1]), (0.96, 0.97, 1.0))
    for i in range(8):
        c.fill(torch.hypot(c.x - c.u[2 * i], c.y - 0.6 * c.u[2 * i + 1]) - 0.011, (1.0, 1.0, 1.0))


def checker(c: Canvas) -> None:
    odd = torch.remainder((c.x * 8).floor() + (c.y * 8).floor(), 2)[:, None]
    light, dark = c.tint((0.93, 0.92, 0.88)), c.tint((0.62, 0.66, 0.70))
    c.rgb = (light * (1 - odd) + dark * odd).expand_as(c.rgb).clone()


PAINT: dict[str, Callable[[Canvas], None]] = {
    "plain": plain, "sky": sky, "night": night, "hills": hills,
    "sea": sea, "sunset": sunset, "snow": snow, "checker": checker,
}  # fmt: skip
