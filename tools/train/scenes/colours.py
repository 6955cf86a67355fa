"""The colours that captions name, and the fixed ones of small parts."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

RGB = tuple[float, float, float]

COLOURS: dict[str, RGB] = {
    "red": (0.88, 0.15, 0.17),
    "orange": (0.97, 0.54, 0.10),
    "yellow": (0.99, 0.84, 0.18),
    "green": (0.22, 0.66, 0.27),
    "blue": (0.16, 0.40, 0.88),
    "purple": (0.52, 0.22, 0.72),
    "pink": (0.98, 0.55, 0.72),
    "brown": (0.52, 0.31, 0.16),
    "white": (0.97, 0.97, 0.95),
    "black": (0.16, 0.16, 0.20),
}
COLOUR_NAMES: tuple[str, ...] = tuple(COLOURS)

INK: RGB = (0.07, 0.07, 0.12)
SNOW: RGB = (0.97, 0.97, 0.95)
WOOD: RGB = (0.50, 0.31, 0.17)
LEAF: RGB = (0.28, 0.62, 0.25)
CREAM: RGB = (0.98, 0.90, 0.72)
STEEL: RGB = (0.70, 0.74, 0.80)
GLASS: RGB = (0.70, 0.88, 0.97)
GOLD: RGB = (0.98, 0.76, 0.20)
FLAME: RGB = (0.98, 0.50, 0.12)


def palette() -> Tensor:
    """Every named colour, (colours, 3) in [0, 1]."""
    return torch.tensor(list(COLOURS.values()))


@cache
def solid(colour: RGB, device: torch.device) -> Tensor:
    """One colour, (1, 3, 1, 1), kept on the device."""
    return torch.tensor(colour, device=device).view(1, 3, 1, 1)
