"""Signed distances to plain shapes.

Each function takes the coordinates `x, y` of every pixel, tensors of one shape, and returns the distance to the
shape's edge in the same unit: negative inside. `y` points down. Sizes are numbers, or tensors that broadcast against
`x`, so that every object of a batch can have its own. Union is `torch.minimum`, intersection `torch.maximum`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Size = float | Tensor


def rotate(x: Tensor, y: Tensor, angle: Size) -> tuple[Tensor, Tensor]:
    """The coordinates as a shape turned clockwise by `angle` (radians) sees them."""
    cos, sin = (angle.cos(), angle.sin()) if isinstance(angle, Tensor) else (math.cos(angle), math.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def circle(x: Tensor, y: Tensor, r: Size) -> Tensor:
    return torch.hypot(x, y) - r


def ring(x: Tensor, y: Tensor, r: Size, width: Size) -> Tensor:
    """A circle's line of `width`."""
    return circle(x, y, r).abs() - width / 2


def ellipse(x: Tensor, y: Tensor, rx: Size, ry: Size) -> Tensor:
    """First-order distance: exact at the edge, which is where a pixel's coverage needs it."""
    u, v = x / rx, y / ry
    k = torch.hypot(u, v)
    return k * (k - 1) / torch.hypot(u / rx, v / ry).clamp_min(1e-6)


def box(x: Tensor, y: Tensor, hx: Size, hy: Size, r: float = 0.0) -> Tensor:
    """A rectangle of half sides `hx, hy` with corners of radius `r`."""
    qx, qy = x.abs() - hx + r, y.abs() - hy + r
    return torch.hypot(qx.clamp_min(0), qy.clamp_min(0)) + torch.maximum(qx, qy).clamp_max(0) - r


def segment(x: Tensor, y: Tensor, a: tuple[Size, Size], b: tuple[Size, Size], r: Size) -> Tensor:
    """A line from `a` to `b` with round ends, `2 r` thick."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    px, py = x - a[0], y - a[1]
    t = ((px * dx + py * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return torch.hypot(px - dx * t, py - dy * t) - r


def polygon(x: Tensor, y: Tensor, *points: tuple[float, float]) -> Tensor:
    """A convex polygon, as the intersection of its edges' half planes."""
    area = sum(p[0] * q[1] - q[0] * p[1] for p, q in zip(points, points[1:] + points[:1], strict=True))
    d = None
    for (px, py), (qx, qy) in zip(points, points[1:] + points[:1], strict=True):
        scale = math.copysign(1 / math.hypot(qx - px, qy - py), area)
        nx, ny = (qy - py) * scale, (px - qx) * scale
        edge = x * nx + y * ny - (px * nx + py * ny)
        d = edge if d is None else torch.maximum(d, edge)
    return d


def star(x: Tensor, y: Tensor, outer: float, inner: float, n: int) -> Tensor:
    """A star of `n` points, one straight up."""
    step = math.pi / n
    angle = torch.remainder(torch.atan2(x, -y) + step, 2 * step) - step
    r = torch.hypot(x, y)
    u, v = r * angle.cos(), (r * angle.sin()).abs()
    qx, qy = inner * math.cos(step), inner * math.sin(step)
    length = math.hypot(outer - qx, qy)
    return ((u - outer) * qy + v * (outer - qx)) / length


def heart(x: Tensor, y: Tensor, r: Size) -> Tensor:
    """A heart about `2 r` wide and high."""
    x = x.abs() / r
    y = y / r
    lobes = circle(x - 0.45, y + 0.36, 0.5)
    tip = polygon(x, y, (-1.0, -0.36), (0.45, -0.36), (0.8, 0.0), (0.0, 0.93), (-1.0, -0.1))
    return torch.minimum(lobes, tip) * r


def union(*shapes: Tensor) -> Tensor:
    d = shapes[0]
    for shape in shapes[1:]:
        d = torch.minimum(d, shape)
    return d


def minus(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a, -b)
