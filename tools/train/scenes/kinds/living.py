"""Animals, and a snowman."""

from __future__ import annotations

import torch

from ..colours import FLAME, GOLD, INK, SNOW, WOOD
from ..pen import Pen
from ..shapes import box, circle, ellipse, polygon, rotate, segment, union
from .registry import kind


def eye(p: Pen, x: torch.Tensor, y: torch.Tensor, r: float) -> None:
    """A round eye at the origin of `x, y`, with a glint."""
    p.mark(circle(x, y, r), SNOW)
    p.mark(circle(x - 0.15 * r, y, 0.62 * r), INK)


@kind("snowman", "white", tilt=0.02)
def snowman(p: Pen) -> None:
    p.fill(segment(p.x.abs(), p.y, (0.3, 0.05), (0.8, -0.25), 0.035), WOOD)
    p.fill(circle(p.x, p.y - 0.5, 0.44))
    p.fill(circle(p.x, p.y + 0.02, 0.34), line=True)
    p.fill(circle(p.x, p.y + 0.48, 0.26), line=True)
    p.fill(box(p.x, p.y + 0.68, 0.36, 0.035), INK)
    p.fill(box(p.x, p.y + 0.83, 0.22, 0.14), INK)
    p.mark(box(p.x, p.y + 0.74, 0.22, 0.035), (0.85, 0.2, 0.2))
    p.mark(circle(p.x.abs() - 0.1, p.y + 0.55, 0.04), INK)
    p.mark(polygon(p.x, p.y, (0.0, -0.5), (0.24, -0.43), (0.0, -0.4)), FLAME)
    for y in (-0.1, 0.08):
        p.mark(circle(p.x, p.y - y, 0.04), INK)
    p.mark(circle(p.x, p.y - 0.42, 0.05), INK)
    p.fill(box(p.x, p.y + 0.24, 0.26, 0.07, 0.05), (0.85, 0.2, 0.2))
    p.fill(box(p.x - 0.16, p.y + 0.08, 0.07, 0.18, 0.04), (0.85, 0.2, 0.2))


@kind("fish", "orange", "blue", "yellow", tilt=0.125)
def fish(p: Pen) -> None:
    tail = polygon(p.x, p.y.abs(), (0.4, 0.0), (0.92, 0.18), (0.9, 0.52), (0.4, 0.08))
    p.fill(tail, p.dark)
    p.fill(polygon(p.x, p.y, (-0.35, -0.3), (0.3, -0.3), (0.35, -0.62), (0.0, -0.66)), p.dark)
    body = ellipse(p.x + 0.15, p.y, 0.72, 0.44)
    p.fill(body, line=True)
    p.mark(torch.maximum(body, (circle(p.x + 0.95, p.y, 0.6)).abs() - 0.03), INK)
    for k in (0.05, 0.3):
        p.mark(
            torch.maximum(body + 0.06, (circle(p.x + 0.5 - k, p.y, 0.4).abs() - 0.025).maximum(0.1 - p.x + k - 0.3)),
            p.dark,
        )
    eye(p, p.x + 0.55, p.y + 0.12, 0.11)
    p.mark(torch.maximum(body, box(p.x + 0.82, p.y - 0.14, 0.1, 0.025)), INK)


@kind("bird", "blue", "red", "yellow", tilt=0.06)
def bird(p: Pen) -> None:
    p.fill(polygon(p.x, p.y, (0.3, 0.1), (0.95, -0.2), (0.92, 0.14), (0.4, 0.4)), p.dark)
    for dx in (-0.12, 0.1):
        p.fill(
            union(
                segment(p.x, p.y, (dx, 0.5), (dx, 0.82), 0.03),
                segment(p.x, p.y, (dx - 0.12, 0.85), (dx + 0.06, 0.85), 0.03),
            ),
            FLAME,
        )
    p.fill(polygon(p.x, p.y, (-0.72, -0.5), (-0.72, -0.24), (-0.98, -0.34)), FLAME)
    body = union(ellipse(p.x, p.y - 0.15, 0.58, 0.42), circle(p.x + 0.46, p.y + 0.36, 0.34))
    p.fill(body, line=True)
    p.mark(torch.maximum(body + 0.05, ellipse(p.x + 0.3, p.y - 0.32, 0.3, 0.28)), p.light)
    x, y = p.at(0.16, 0.06, 0.35 - 0.5 * p.u[0])
    wing = torch.maximum(ellipse(x, y, 0.42, 0.26), -0.1 - y)
    p.fill(wing, p.dark, line=True)
    eye(p, -p.x - 0.54, p.y + 0.42, 0.09)


@kind("butterfly", "purple", "orange", "blue", tilt=0.125)
def butterfly(p: Pen) -> None:
    side = p.x.abs() * (1.0 + 0.15 * p.u[0])
    x, y = rotate(side - 0.48, p.y + 0.34, -0.65)
    upper = ellipse(x, y, 0.52, 0.36)
    p.fill(upper)
    x2, y2 = rotate(side - 0.38, p.y - 0.42, 0.7)
    p.fill(ellipse(x2, y2, 0.4, 0.28), p.dark, line=True)
    p.mark(ellipse(x2 - 0.08, y2, 0.17, 0.12), p.light)
    p.mark(ellipse(x - 0.1, y, 0.27, 0.18), p.light)
    p.mark(circle(x - 0.12, y, 0.09), INK)
    p.fill(segment(p.x.abs(), p.y, (0.02, -0.42), (0.22, -0.86), 0.025), INK)
    p.fill(ellipse(p.x, p.y - 0.02, 0.08, 0.52), INK)


@kind("cat", "orange", "black", "white", tilt=0.05)
def cat(p: Pen) -> None:
    side = p.x.abs()
    p.fill(polygon(side, p.y, (0.2, -0.5), (0.72, -0.92), (0.8, -0.05)))
    p.mark(polygon(side, p.y, (0.38, -0.52), (0.65, -0.75), (0.69, -0.3)), (0.97, 0.65, 0.7))
    p.fill(ellipse(p.x, p.y - 0.1, 0.84, 0.72))
    p.mark(ellipse(p.x, p.y - 0.42, 0.4, 0.28), p.light)
    p.mark(ellipse(side - 0.35, p.y + 0.02, 0.17, 0.2), (0.75, 0.95, 0.45))
    p.mark(ellipse(side - 0.35, p.y + 0.02, 0.06 + 0.05 * p.u[0], 0.17), INK)
    p.mark(polygon(p.x, p.y, (-0.1, 0.24), (0.1, 0.24), (0.0, 0.36)), (0.95, 0.45, 0.55))
    mouth = torch.maximum(circle(side - 0.12, p.y - 0.38, 0.12).abs() - 0.022, 0.38 - p.y)
    p.mark(mouth, INK)
    for dy in (0.24, 0.4):
        p.mark(segment(side, p.y, (0.4, dy + 0.08), (0.82, dy), 0.018), p.solid(SNOW) * 0.5 + 0.2)


@kind("ladybug", "red", "orange", tilt=0.2)
def ladybug(p: Pen) -> None:
    side = p.x.abs()
    for y in (-0.2, 0.15, 0.5):
        p.fill(segment(side, p.y, (0.4, y), (0.82, y + (y - 0.15) * 0.5), 0.03), INK)
    p.fill(segment(side, p.y, (0.15, -0.7), (0.35, -0.92), 0.03), INK)
    p.fill(circle(p.x, p.y + 0.52, 0.32), INK)
    p.mark(circle(side - 0.14, p.y + 0.62, 0.07), SNOW)
    body = ellipse(p.x, p.y - 0.15, 0.66, 0.7)
    p.fill(body, line=True)
    p.mark(torch.maximum(body, side - 0.025), INK)
    for cx, cy, r in ((0.3, -0.18, 0.13), (0.38, 0.22, 0.13), (0.2, 0.55, 0.1)):
        p.mark(circle(side - cx, p.y - cy, r), INK)
    p.mark(ellipse(p.x + 0.12, p.y + 0.42, 0.05, 0.03), GOLD)
