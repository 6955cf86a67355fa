"""How a drawing function becomes a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..pen import Pen

Draw = Callable[[Pen], None]


@dataclass(frozen=True)
class Kind:
    name: str
    draw: Draw
    usual: tuple[str, ...]
    """Colours it is often seen in."""
    tilt: float
    """It leans by at most this angle (radians)."""


KINDS: dict[str, Kind] = {}


def kind(name: str, *usual: str, tilt: float = 0.06) -> Callable[[Draw], Draw]:
    def add(draw: Draw) -> Draw:
        KINDS[name] = Kind(name, draw, usual, tilt)
        return draw

    return add
