"""Sky and plants."""

from __future__ import annotations

import math

import torch

from ..colours import CREAM, INK, LEAF, SNOW, WOOD
from ..pen import Pen
from ..shapes import box, circle, ellipse, minus, polygon, rotate, segment, star, union
from .registry import kind


@kind("sun", "yellow", "orange", tilt=0.15)
def sun(p: Pen) -> None:
    step = 2 * math.pi / 10
    angle = torch.remainder(torch.atan2(p.y, p.x), step) - step / 2
    r = torch.hypot(p.x, p.y)
    u, v = r * angle.cos(), r * angle.sin()
    p.fill(polygon(u, v, (0.62, -0.15), (0.62, 0.15), (0.95, 0.0)))
    p.fill(circle(p.x, p.y, 0.55))
    p.mark(circle(p.x, p.y, 0.43), p.light)
    p.mark(circle(p.x.abs() - 0.17, p.y + 0.08, 0.06), INK)
    smile = torch.maximum(circle(p.x, p.y - 0.04, 0.22).abs() - 0.03, 0.12 - p.y)
    p.mark(smile, INK)


@kind("moon", "yellow", "white", tilt=0.175)
def moon(p: Pen) -> None:
    body = minus(circle(p.x - 0.1, p.y, 0.88), circle(p.x - 0.5 - 0.12 * p.u[0], p.y + 0.14, 0.72))
    p.fill(body)
    for cx, cy, r in ((-0.45, -0.1, 0.12), (-0.3, 0.42, 0.15), (-0.2, -0.55, 0.09)):
        p.mark(circle(p.x - cx, p.y - cy, r), p.dark)


@kind("star", "yellow", "white", tilt=0.15)
def star_(p: Pen) -> None:
    p.fill(star(p.x, p.y - 0.05, 0.95, 0.42, 5))
    p.mark(star(p.x, p.y - 0.05, 0.68, 0.30, 5), p.light)


@kind("cloud", "white", "pink", tilt=0.02)
def cloud(p: Pen) -> None:
    p.fill(
        union(
            circle(p.x + 0.45, p.y - 0.12, 0.36),
            circle(p.x + 0.12 * p.u[0], p.y + 0.16, 0.48),
            circle(p.x - 0.48, p.y - 0.08, 0.38),
            box(p.x, p.y - 0.28, 0.84, 0.2, 0.19),
        )
    )
    p.mark(box(p.x, p.y - 0.36, 0.7, 0.06, 0.06), p.dark)


@kind("tree", "green", "orange", tilt=0.025)
def tree(p: Pen) -> None:
    p.fill(polygon(p.x, p.y, (-0.13, 0.2), (0.13, 0.2), (0.2, 0.93), (-0.2, 0.93)), WOOD)
    crown = union(
        circle(p.x, p.y + 0.45, 0.46), circle(p.x.abs() - 0.38, p.y + 0.05, 0.40), circle(p.x, p.y + 0.05, 0.4)
    )
    p.fill(crown, line=True)
    p.mark(circle(p.x + 0.15, p.y + 0.5, 0.22), p.light)
    p.mark(circle(p.x - 0.34, p.y + 0.0, 0.15), p.dark)


@kind("fir tree", "green", "blue", tilt=0.025)
def fir_tree(p: Pen) -> None:
    p.fill(box(p.x, p.y - 0.8, 0.12, 0.14), WOOD)
    for top, bottom, half in ((0.05, 0.7, 0.68), (-0.4, 0.32, 0.55), (-0.92, -0.1, 0.42)):
        p.fill(polygon(p.x, p.y, (0.0, top), (half, bottom), (-half, bottom)), line=True)
        p.mark(polygon(p.x, p.y, (0.0, top), (half, bottom), (half * 0.35, bottom)), p.dark)


@kind("flower", "red", "pink", "purple", tilt=0.075)
def flower(p: Pen) -> None:
    p.fill(segment(p.x, p.y, (0.0, 0.0), (0.0, 0.9), 0.05), LEAF)
    x, y = p.at(0.24, 0.62, -0.6)
    p.fill(ellipse(x, y, 0.26, 0.11), LEAF)
    x, y = p.at(0.0, -0.32)
    step = 2 * math.pi / 6
    angle = torch.remainder(torch.atan2(y, x) + p.u[0], step) - step / 2
    r = torch.hypot(x, y)
    p.fill(ellipse(r * angle.cos() - 0.36, r * angle.sin(), 0.25, 0.19), line=True)
    p.fill(circle(x, y, 0.21), (0.99, 0.84, 0.25), line=True)


@kind("mushroom", "red", "brown", tilt=0.05)
def mushroom(p: Pen) -> None:
    stem = union(box(p.x, p.y - 0.4, 0.2, 0.42, 0.1), ellipse(p.x, p.y - 0.7, 0.3, 0.2))
    p.fill(stem, CREAM)
    cap = torch.maximum(ellipse(p.x, p.y - 0.1, 0.9, 0.95), p.y - 0.1)
    p.fill(cap, line=True)
    for cx, cy, r in ((0.0, -0.5, 0.17), (-0.5, -0.2, 0.14), (0.48, -0.18, 0.15)):
        p.mark(circle(p.x - cx, p.y - cy, r), SNOW)


@kind("cactus", "green", tilt=0.025)
def cactus(p: Pen) -> None:
    left = union(
        segment(p.x, p.y, (-0.55, -0.35), (-0.55, 0.12), 0.15), segment(p.x, p.y, (-0.55, 0.12), (0.0, 0.2), 0.14)
    )
    right = union(
        segment(p.x, p.y, (0.55, -0.5), (0.55, -0.02), 0.15), segment(p.x, p.y, (0.55, -0.02), (0.0, 0.08), 0.14)
    )
    p.fill(union(segment(p.x, p.y, (0.0, -0.68), (0.0, 0.6), 0.24), left, right))
    p.mark(union(box(p.x.abs() - 0.1, p.y + 0.04, 0.02, 0.6), box(p.x.abs() - 0.55, p.y + 0.2, 0.02, 0.16)), p.dark)
    p.fill(polygon(p.x, p.y, (-0.42, 0.5), (0.42, 0.5), (0.3, 0.95), (-0.3, 0.95)), (0.78, 0.42, 0.24), line=True)
    p.fill(circle(p.x, p.y + 0.9, 0.09), (0.95, 0.4, 0.6))


@kind("apple", "red", "green", tilt=0.075)
def apple(p: Pen) -> None:
    p.fill(segment(p.x, p.y, (0.0, -0.45), (0.1, -0.88), 0.05), WOOD)
    x, y = p.at(0.34, -0.72, -0.4)
    p.fill(ellipse(x, y, 0.26, 0.11), LEAF, line=True)
    x, y = rotate(p.x.abs(), p.y - 0.15, 0.1)
    p.fill(ellipse(x - 0.26, y, 0.54, 0.7), line=True)
    p.mark(ellipse(p.x + 0.42, p.y + 0.12, 0.12, 0.2), p.light)
