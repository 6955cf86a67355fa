"""The pen with which a kind draws itself, for a whole batch of objects at once."""

from __future__ import annotations

import torch
from torch import Tensor

from .colours import INK, RGB, solid
from .shapes import rotate

OUTLINE = 0.045


class Pen:
    """K objects of one kind, each on its own patch of P x P pixels.

    `x, y` (K, P, P) are the object's own coordinates: it fills about [-1, 1], `y` points down.
    `pixel` (K, 1, 1) is a pixel's width in that unit, `colour` (K, 3, 1, 1) the object's colour,
    `u[i]` (K, 1, 1) uniform numbers for its pose.
    The patch begins as ink; what is filled covers it, and the ink that is left within `OUTLINE` of any filled shape is
    the object's outline.
    """

    def __init__(self, x: Tensor, y: Tensor, pixel: Tensor, colour: Tensor, u: Tensor) -> None:
        self.x, self.y, self.pixel, self.colour = x, y, pixel, colour
        self.u = [u[:, i, None, None] for i in range(u.shape[1])]
        self.rgb = self.solid(INK).expand(len(x), 3, *x.shape[1:]).clone()
        self.edge: Tensor | None = None

    def solid(self, colour: RGB) -> Tensor:
        return solid(colour, self.x.device)

    @property
    def dark(self) -> Tensor:
        return self.colour * 0.68

    @property
    def light(self) -> Tensor:
        return self.colour * 0.5 + 0.5

    def at(self, dx: float | Tensor, dy: float | Tensor, angle: float | Tensor = 0.0) -> tuple[Tensor, Tensor]:
        """Coordinates around the point (dx, dy), turned by `angle`."""
        x, y = self.x - dx, self.y - dy
        return rotate(x, y, angle) if isinstance(angle, Tensor) or angle != 0.0 else (x, y)

    def fill(self, d: Tensor, colour: Tensor | RGB | None = None, line: bool = False) -> None:
        """Paints where `d` < 0, with the object's colour unless told; `line` draws the shape's edge in ink."""
        colour = self.colour if colour is None else colour if isinstance(colour, Tensor) else self.solid(colour)
        if line:
            self.mark(d - OUTLINE * 0.8, INK)
        self.mark(d, colour)
        self.edge = d if self.edge is None else torch.minimum(self.edge, d)

    def mark(self, d: Tensor, colour: Tensor | RGB) -> None:
        """Paints without adding to the outline: details that lie on what is already filled."""
        colour = colour if isinstance(colour, Tensor) else self.solid(colour)
        self.rgb.lerp_(colour.expand_as(self.rgb), self.cover(d)[:, None])

    def cover(self, d: Tensor) -> Tensor:
        """The share of each pixel that lies inside, (K, P, P)."""
        return (0.5 - d / self.pixel).clamp_(0, 1)

    def patch(self) -> tuple[Tensor, Tensor]:
        """Colours (K, 3, P, P) and opacity (K, 1, P, P)."""
        assert self.edge is not None, "nothing was drawn"
        return self.rgb, self.cover(self.edge - OUTLINE)[:, None]
