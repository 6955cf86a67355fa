"""The grammar: a scene's caption, such as "a red sailboat left of a yellow moon at night".

A caption is true of its scene, but need not say everything: colours, sizes and the ground can be left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .colours import COLOUR_NAMES
from .kinds import CLASS_NAMES
from .sampler import BACKGROUNDS, Layout, Scenes

ALIASES: dict[str, tuple[str, ...]] = {
    "sailboat": ("sailboat", "sailboat", "boat"),
    "fir tree": ("fir tree", "fir tree", "pine tree"),
    "gift": ("gift", "gift", "present"),
    "cup": ("cup", "cup", "cup of coffee"),
    "cat": ("cat", "cat", "cat face"),
    "clock": ("clock", "clock", "alarm clock"),
}
GROUNDS: dict[str, tuple[str, ...]] = {
    "plain": ("on a plain {} background", "on {}", "on a {} background"),
    "sky": ("in a blue sky", "in the sky", "under a blue sky"),
    "night": ("at night", "at night", "in a starry night"),
    "hills": ("on green hills", "in the hills", "in a meadow"),
    "sea": ("by the sea", "on the water", "at sea"),
    "sunset": ("at sunset", "at sunset", "in the evening"),
    "snow": ("in the snow", "in winter", "in the snow"),
    "checker": ("on a checkerboard", "on a checkered background", "on a checkerboard"),
}
# Below these, numbers of `Scenes.words` leave something out.
NO_COLOUR, NO_PLACE, NEXT_TO, NO_GROUND = 0.1, 0.12, 0.18, 0.15
BIG, SMALL = ("big", "large", "huge"), ("small", "little", "tiny")


def choose(options: tuple[str, ...], u: float) -> str:
    return options[min(int(u * len(options)), len(options) - 1)]


def noun(kind: int, colour: int, size: str, u: float) -> str:
    """A noun phrase; the colour is left out one time in ten."""
    name = CLASS_NAMES[kind]
    words = [size] if size else []
    words += [COLOUR_NAMES[colour]] if u >= NO_COLOUR else []
    words.append(choose(ALIASES.get(name, (name,)), u * 997 % 1))
    return ("an " if words[0][0] in "aeiou" else "a ") + " ".join(words)


def captions(scenes: Scenes) -> list[str]:
    """One caption for each scene."""
    columns = (
        scenes.layout,
        scenes.kind,
        scenes.colour,
        scenes.size,
        scenes.background,
        scenes.background_colour,
        scenes.words,
    )
    return [caption(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def tells_colours(scenes: Scenes) -> Tensor:
    """Which things' colours the captions name, (B, 2)."""
    return scenes.words[:, 2:4] >= NO_COLOUR


def tells_places(scenes: Scenes) -> Tensor:
    """Whether of two things they say which is where, (B,)."""
    return scenes.words[:, 4] >= torch.where(scenes.layout == Layout.BESIDE, NEXT_TO, NO_PLACE)


def tells_ground(scenes: Scenes) -> Tensor:
    """Whether they name the ground, (B,)."""
    return scenes.words[:, 6] >= NO_GROUND


def caption(
    layout: int, kind: list[int], colour: list[int], size: list[float], background: int, ground: int, u: list[float]
) -> str:
    if layout == Layout.SINGLE:
        big, small = size[0] > 0.37, size[0] < 0.22
        word = choose(BIG, u[0]) if big and u[1] < 0.5 else choose(SMALL, u[0]) if small and u[1] < 0.85 else ""
        said = noun(kind[0], colour[0], word, u[2])
    else:
        a, b = (noun(kind[i], colour[i], "", u[2 + i]) for i in (0, 1))
        if layout == Layout.BESIDE:
            forward, backward = ("left of", "to the left of"), ("right of", "to the right of")
        else:
            forward, backward = ("above", "over"), ("below", "under")
        if u[4] < NO_PLACE:
            said = f"{a} and {b}" if u[5] < 0.5 else f"{b} and {a}"
        elif u[4] < NEXT_TO and layout == Layout.BESIDE:
            said = f"{a} next to {b}" if u[5] < 0.5 else f"{b} next to {a}"
        elif u[4] < 0.6:
            said = f"{a} {choose(forward, u[5])} {b}"
        else:
            said = f"{b} {choose(backward, u[5])} {a}"
    if u[6] < NO_GROUND:
        return said
    return f"{said} {choose(GROUNDS[BACKGROUNDS[background]], u[7]).format(COLOUR_NAMES[ground])}"
