"""What people build, and what they travel in."""

from __future__ import annotations

import torch

from ..colours import CREAM, FLAME, GLASS, GOLD, INK, SNOW, STEEL, WOOD
from ..pen import Pen
from ..shapes import box, circle, ellipse, polygon, ring, segment, union
from .registry import kind


@kind("house", "red", "white", "blue", tilt=0.015)
def house(p: Pen) -> None:
    p.fill(box(p.x - 0.42, p.y + 0.55, 0.1, 0.28), (0.55, 0.3, 0.26))
    p.fill(box(p.x, p.y - 0.38, 0.68, 0.5))
    p.fill(polygon(p.x, p.y, (0.0, -0.92), (0.92, -0.1), (-0.92, -0.1)), p.dark, line=True)
    p.mark(box(p.x, p.y - 0.58, 0.15, 0.3), WOOD)
    p.mark(circle(p.x - 0.08, p.y - 0.6, 0.03), GOLD)
    for side in (-0.42, 0.42):
        p.mark(box(p.x - side, p.y - 0.28, 0.15, 0.15), INK)
        p.mark(box(p.x - side, p.y - 0.28, 0.12, 0.12), (0.99, 0.9, 0.5))
        p.mark(
            torch.minimum((p.x - side).abs() - 0.015, (p.y - 0.28).abs() - 0.015).maximum(
                box(p.x - side, p.y - 0.28, 0.13, 0.13)
            ),
            INK,
        )


@kind("castle", "purple", "white", "pink", tilt=0.01)
def castle(p: Pen) -> None:
    side = p.x.abs() - 0.6
    p.fill(box(p.x, p.y - 0.45, 0.5, 0.45))
    for step in (-0.25, 0.0, 0.25):
        p.fill(box(p.x - step, p.y + 0.05, 0.08, 0.1))
    p.fill(box(side, p.y - 0.3, 0.24, 0.6), line=True)
    p.fill(polygon(side, p.y, (0.0, -0.9), (0.34, -0.28), (-0.34, -0.28)), (0.82, 0.22, 0.28), line=True)
    p.mark(union(box(p.x, p.y - 0.72, 0.17, 0.18), circle(p.x, p.y - 0.54, 0.17)), WOOD)
    p.mark(union(box(side, p.y - 0.05, 0.07, 0.1), circle(side, p.y + 0.05, 0.07)), INK)


@kind("lighthouse", "red", "blue", tilt=0.015)
def lighthouse(p: Pen) -> None:
    p.fill(ellipse(p.x, p.y - 0.88, 0.62, 0.14), (0.45, 0.42, 0.4))
    tower = polygon(p.x, p.y, (-0.22, -0.4), (0.22, -0.4), (0.36, 0.86), (-0.36, 0.86))
    p.fill(tower, SNOW, line=True)
    for top in (-0.2, 0.34):
        p.mark(tower.maximum((p.y - top - 0.13).abs() - 0.14), p.colour)
    p.mark(union(box(p.x, p.y - 0.76, 0.08, 0.1), circle(p.x, p.y - 0.66, 0.08)), INK)
    p.fill(box(p.x, p.y + 0.58, 0.17, 0.17), (1.0, 0.9, 0.4))
    p.fill(box(p.x, p.y + 0.4, 0.32, 0.05), INK)
    p.fill(polygon(p.x, p.y, (0.0, -0.97), (0.28, -0.72), (-0.28, -0.72)), line=True)
    beam = p.x.abs()
    p.fill(polygon(beam, p.y, (0.3, -0.58), (0.8, -0.76), (0.8, -0.42)), (1.0, 0.95, 0.6))


@kind("sailboat", "red", "white", "blue", tilt=0.05)
def sailboat(p: Pen) -> None:
    p.fill(segment(p.x, p.y, (0.0, -0.88), (0.0, 0.5), 0.035), WOOD)
    p.fill(polygon(p.x, p.y, (0.1, -0.85), (0.82, 0.3), (0.1, 0.3)))
    p.fill(polygon(p.x, p.y, (-0.1, -0.6), (-0.1, 0.3), (-0.62, 0.3)), p.light)
    p.fill(polygon(p.x, p.y, (-0.9, 0.42), (0.9, 0.42), (0.58, 0.86), (-0.58, 0.86)), WOOD, line=True)
    p.mark(polygon(p.x, p.y, (-0.84, 0.5), (0.84, 0.5), (0.79, 0.57), (-0.79, 0.57)), SNOW)


@kind("rocket", "white", "red", tilt=0.25)
def rocket(p: Pen) -> None:
    flame = 0.86 + 0.1 * p.u[0]
    p.fill(ellipse(p.x, p.y - 0.55, 0.17, flame - 0.5), FLAME)
    p.mark(ellipse(p.x, p.y - 0.55, 0.09, flame - 0.65), (1.0, 0.9, 0.35))
    fin = p.x.abs()
    p.fill(polygon(fin, p.y, (0.2, 0.1), (0.58, 0.5), (0.58, 0.8), (0.2, 0.55)), p.dark)
    body = torch.maximum(circle(fin + 0.75, p.y, 1.07), p.y - 0.6)
    p.fill(body, line=True)
    p.mark(torch.maximum(body, p.y + 0.42), p.dark)
    p.mark(circle(p.x, p.y + 0.1, 0.17), INK)
    p.mark(circle(p.x, p.y + 0.1, 0.13), GLASS)
    p.mark(box(p.x, p.y - 0.52, 0.24, 0.05), STEEL)


@kind("car", "red", "blue", "yellow", tilt=0.03)
def car(p: Pen) -> None:
    p.fill(polygon(p.x, p.y, (-0.35, -0.48), (0.25, -0.48), (0.55, 0.0), (-0.6, 0.0)))
    p.fill(box(p.x, p.y - 0.18, 0.93, 0.25, 0.15))
    p.mark(polygon(p.x, p.y, (-0.3, -0.38), (-0.06, -0.38), (-0.06, -0.05), (-0.47, -0.05)), GLASS)
    p.mark(polygon(p.x, p.y, (0.04, -0.38), (0.2, -0.38), (0.4, -0.05), (0.04, -0.05)), GLASS)
    p.mark(ellipse(p.x - 0.84, p.y - 0.12, 0.07, 0.1), (1.0, 0.95, 0.6))
    wheel = p.x.abs() - 0.52
    p.fill(circle(wheel, p.y - 0.42, 0.23), INK)
    p.mark(circle(wheel, p.y - 0.42, 0.11), STEEL)


@kind("balloon", "red", "blue", "pink", tilt=0.075)
def balloon(p: Pen) -> None:
    sway = p.x + 0.07 * torch.sin(p.y * 7 + 6 * p.u[0])
    p.fill(box(sway, p.y - 0.65, 0.02, 0.3), INK)
    p.fill(polygon(p.x, p.y, (0.0, 0.22), (0.1, 0.4), (-0.1, 0.4)), p.dark)
    p.fill(ellipse(p.x, p.y + 0.32, 0.52, 0.62), line=True)
    x, y = p.at(-0.2, -0.54, 0.5)
    p.mark(ellipse(x, y, 0.1, 0.17), p.light)


@kind("clock", "red", "blue", "brown", tilt=0.05)
def clock(p: Pen) -> None:
    bell = p.x.abs()
    p.fill(circle(bell - 0.48, p.y + 0.66, 0.26), STEEL)
    p.fill(segment(bell, p.y, (0.35, 0.6), (0.52, 0.86), 0.07), INK)
    p.fill(circle(p.x, p.y - 0.05, 0.75), line=True)
    p.mark(circle(p.x, p.y - 0.05, 0.57), SNOW)
    x, y = p.x, p.y - 0.05
    for mark in (box(x, y.abs() - 0.47, 0.03, 0.06), box(x.abs() - 0.47, y, 0.06, 0.03)):
        p.mark(mark, INK)
    angle = 6.28 * p.u[0]
    p.mark(segment(x, y, (0.0, 0.0), (0.4 * angle.sin(), -0.4 * angle.cos()), 0.03), INK)
    p.mark(segment(x, y, (0.0, 0.0), (0.26 * (angle / 12 + 4).sin(), -0.26 * (angle / 12 + 4).cos()), 0.04), INK)
    p.mark(circle(x, y, 0.06), (0.85, 0.2, 0.2))


@kind("robot", "white", "blue", "orange", tilt=0.025)
def robot(p: Pen) -> None:
    side = p.x.abs()
    p.fill(segment(p.x, p.y, (0.0, -0.65), (0.0, -0.82), 0.03), INK)
    p.fill(circle(p.x, p.y + 0.86, 0.09), (0.95, 0.25, 0.25))
    p.fill(segment(side, p.y, (0.5, 0.2), (0.72, 0.2 + 0.3 * p.u[0]), 0.09), STEEL)
    p.fill(box(side - 0.22, p.y - 0.82, 0.14, 0.14, 0.04), STEEL)
    p.fill(box(p.x, p.y - 0.35, 0.46, 0.38, 0.08), line=True)
    p.fill(box(p.x, p.y + 0.4, 0.52, 0.3, 0.1), line=True)
    p.fill(box(side - 0.58, p.y + 0.4, 0.06, 0.11), STEEL)
    p.mark(circle(side - 0.22, p.y + 0.46, 0.12), INK)
    p.mark(circle(side - 0.22, p.y + 0.46, 0.09), (1.0, 0.92, 0.4))
    p.mark(box(p.x, p.y + 0.2, 0.24, 0.035), INK)
    p.mark(box(p.x, p.y - 0.3, 0.28, 0.2, 0.04), p.dark)
    for i, colour in enumerate(((0.9, 0.25, 0.25), (0.99, 0.85, 0.25), (0.3, 0.8, 0.4))):
        p.mark(circle(p.x + 0.16 - 0.16 * i, p.y - 0.3, 0.055), colour)


@kind("cup", "white", "blue", "red", tilt=0.04)
def cup(p: Pen) -> None:
    p.fill(ring(p.x - 0.52, p.y - 0.18, 0.28, 0.13))
    p.fill(polygon(p.x, p.y, (-0.72, -0.3), (0.52, -0.3), (0.4, 0.82), (-0.6, 0.82)), line=True)
    p.fill(ellipse(p.x + 0.1, p.y + 0.3, 0.62, 0.16), p.light, line=True)
    p.mark(ellipse(p.x + 0.1, p.y + 0.27, 0.5, 0.1), (0.36, 0.2, 0.1))
    p.mark(box(p.x + 0.1, p.y - 0.3, 0.55, 0.06), p.dark)
    for dx in (-0.28, 0.08):
        wave = p.x - dx + 0.06 * torch.sin(p.y * 12 + 6 * p.u[0])
        p.fill(box(wave, p.y + 0.72, 0.03, 0.18, 0.03), CREAM)
