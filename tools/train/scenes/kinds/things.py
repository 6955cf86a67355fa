"""Things to hold."""

from __future__ import annotations

import torch

from ..colours import GOLD, INK, SNOW, WOOD
from ..pen import Pen
from ..shapes import box, circle, ellipse, heart, minus, polygon, ring, segment, union
from .registry import kind


@kind("umbrella", "red", "blue", "purple", tilt=0.15)
def umbrella(p: Pen) -> None:
    hook = torch.maximum(ring(p.x - 0.14, p.y - 0.72, 0.14, 0.08), 0.7 - p.y)
    p.fill(union(segment(p.x, p.y, (0.0, -0.85), (0.0, 0.72), 0.04), hook), WOOD)
    dome = torch.maximum(circle(p.x, p.y - 0.15, 0.9), p.y - 0.12)
    scallop = circle(torch.remainder(p.x + 0.9, 0.6) - 0.3, p.y - 0.2, 0.3)
    canopy = minus(dome, scallop)
    p.fill(canopy, line=True)
    middle = ellipse(p.x, p.y - 0.15, 0.3, 0.9)
    p.mark(torch.maximum(canopy, middle), p.light)
    p.mark(torch.maximum(canopy, middle.abs() - 0.02), INK)


@kind("key", "yellow", "black", tilt=0.3)
def key(p: Pen) -> None:
    bow = ring(p.x + 0.5, p.y, 0.28, 0.2)
    shaft = box(p.x - 0.32, p.y, 0.58, 0.085)
    teeth = union(box(p.x - 0.8, p.y - 0.2, 0.085, 0.2), box(p.x - 0.5, p.y - 0.16, 0.085, 0.16))
    p.fill(union(bow, shaft, teeth))
    p.mark(ring(p.x + 0.5, p.y, 0.31, 0.05), p.light)
    p.mark(box(p.x - 0.3, p.y + 0.03, 0.5, 0.02), p.light)


@kind("heart", "red", "pink", tilt=0.1)
def heart_(p: Pen) -> None:
    p.fill(heart(p.x, p.y, 0.92))
    x, y = p.at(-0.42, -0.38, 0.6)
    p.mark(ellipse(x, y, 0.12, 0.2), p.light)


@kind("ice cream", "pink", "brown", "white", tilt=0.06)
def ice_cream(p: Pen) -> None:
    cone = polygon(p.x, p.y, (-0.42, 0.05), (0.42, 0.05), (0.0, 0.96))
    p.fill(cone, (0.88, 0.62, 0.30))
    grid = torch.remainder(p.x + 0.6 * p.y, 0.2) - 0.1
    grid = torch.minimum(grid.abs(), (torch.remainder(p.x - 0.6 * p.y, 0.2) - 0.1).abs()) - 0.015
    p.mark(torch.maximum(cone, grid), (0.66, 0.42, 0.18))
    p.fill(union(circle(p.x, p.y + 0.25, 0.48), box(p.x, p.y - 0.04, 0.52, 0.1, 0.1)), line=True)
    p.mark(ellipse(p.x + 0.2, p.y + 0.42, 0.1, 0.12), p.light)
    p.fill(circle(p.x, p.y + 0.8, 0.13), (0.85, 0.12, 0.2), line=True)


@kind("gift", "red", "blue", "green", tilt=0.04)
def gift(p: Pen) -> None:
    ribbon = p.solid(GOLD)
    x, y = p.at(0.0, -0.5)
    side = x.abs()
    loop = ellipse(side * 0.9 - y * 0.42 - 0.32, y * 0.9 + side * 0.42 - 0.0, 0.3, 0.16)
    p.fill(loop, ribbon, line=True)
    p.fill(box(p.x, p.y - 0.4, 0.68, 0.52))
    p.mark(box(p.x, p.y - 0.4, 0.12, 0.52), ribbon)
    p.fill(box(p.x, p.y + 0.22, 0.8, 0.18), p.dark, line=True)
    p.mark(box(p.x, p.y + 0.22, 0.13, 0.18), ribbon)
    p.fill(circle(p.x, p.y + 0.46, 0.11), ribbon, line=True)


@kind("crown", "yellow", "white", tilt=0.06)
def crown(p: Pen) -> None:
    p.fill(box(p.x, p.y - 0.42, 0.78, 0.26))
    p.fill(polygon(p.x, p.y, (0.0, -0.72), (0.34, 0.3), (-0.34, 0.3)))
    side = p.x.abs()
    p.fill(polygon(side, p.y, (0.88, -0.52), (0.76, 0.4), (0.2, 0.4)))
    p.fill(circle(p.x, p.y + 0.76, 0.11), (0.9, 0.2, 0.3))
    p.fill(circle(side - 0.86, p.y + 0.56, 0.1), (0.3, 0.6, 0.95))
    p.mark(box(p.x, p.y - 0.42, 0.78, 0.035), INK)
    p.mark(box(p.x, p.y - 0.65, 0.78, 0.035), INK)
    for cx, colour in ((0.0, (0.3, 0.75, 0.4)), (0.42, (0.9, 0.2, 0.3))):
        p.mark(ellipse(side - cx, p.y - 0.53, 0.09, 0.075), colour)
    p.mark(circle(p.x, p.y - 0.05, 0.08), SNOW)
