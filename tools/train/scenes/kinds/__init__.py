"""The kinds of things that a scene can hold: each draws itself with a `Pen`.

`CLASS_NAMES` is the one list of them: a kind's place in it is its class label, in checkpoints too, so new kinds go to
its end.
"""

from __future__ import annotations

from . import buildings, living, nature, things
from .registry import KINDS, Kind

CLASS_NAMES: tuple[str, ...] = (
    "sun", "moon", "star", "cloud", "tree", "fir tree", "flower", "mushroom",
    "cactus", "apple", "house", "castle", "lighthouse", "sailboat", "rocket", "car",
    "balloon", "umbrella", "cup", "key", "heart", "ice cream", "snowman", "fish",
    "bird", "butterfly", "cat", "ladybug", "gift", "crown", "robot", "clock",
)  # fmt: skip

assert set(CLASS_NAMES) == set(KINDS), set(CLASS_NAMES) ^ set(KINDS)

__all__ = ["CLASS_NAMES", "KINDS", "Kind", "buildings", "living", "nature", "things"]
