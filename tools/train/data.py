"""Batches of drawn scenes. They are drawn as training goes on, and used once or a few times.

Each process draws its own indices, and a run that goes on later draws new ones, so no scene comes twice by accident.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .presets import Recipe
from .scenes import Scenes, render, sample_scenes
from .world import World


class Draws:
    """Endless chunks of scenes. `modes` take turns."""

    def __init__(self, world: World, seed: int, modes: tuple[str, ...], chunk: int, drawn: int) -> None:
        self.world, self.seed, self.modes, self.chunk = world, seed, modes, chunk
        self.drawn = drawn
        """Chunks so far, in every process."""

    def next(self) -> Scenes:
        start = (self.drawn * self.world.size + self.world.rank) * self.chunk
        mode = self.modes[self.drawn % len(self.modes)]
        self.drawn += 1
        return sample_scenes(self.seed, torch.arange(start, start + self.chunk), mode)


class Pool:
    """Rows of one or more tensors on the device, `make` of scenes, in random order.

    A hand of `hand` chunks is gone through `reuse` times, each time in a new order, then replaced. So every scene is
    trained on exactly `reuse` times. The next hand's chunks are made one by one meanwhile: no step waits for long.
    """

    def __init__(self, draws: Draws, make: Callable[[Scenes], tuple[Tensor, ...]], recipe: Recipe, hand: int) -> None:
        self.draws, self.make, self.reuse, self.hand = draws, make, recipe.reuse, hand
        self.rows: tuple[Tensor, ...] = ()
        self.order = torch.empty(0, dtype=torch.long)
        """What is left of this time through the hand."""
        self.times_left = 0
        self.next_hand: list[tuple[Tensor, ...]] = []

    def batch(self, n: int) -> tuple[Tensor, ...]:
        parts = []
        while n > 0:
            if len(self.order) == 0:
                self.shuffle()
            which, self.order = self.order[:n], self.order[n:]
            parts.append([t[which] for t in self.rows])
            n -= len(which)
        if len(self.next_hand) < self.hand * self.gone:
            self.next_hand.append(self.make(self.draws.next()))
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    @property
    def gone(self) -> float:
        """How much of the hand's time is over, from 0 to 1."""
        return 1 - (self.times_left + len(self.order) / len(self.rows[0])) / self.reuse

    def shuffle(self) -> None:
        if self.times_left == 0:
            missing = range(self.hand - len(self.next_hand))
            chunks = [*self.next_hand, *(self.make(self.draws.next()) for _ in missing)]
            self.rows = tuple(torch.cat(column) for column in zip(*chunks, strict=True))
            self.next_hand, self.times_left = [], self.reuse
        self.times_left -= 1
        self.order = torch.randperm(len(self.rows[0])).to(self.rows[0].device)


def pictures(world: World, px: int) -> Callable[[Scenes], tuple[Tensor, ...]]:
    """Scenes to their pixels, kinds and so on: (B, 3, px, px) uint8 and their facts, as `eye.FACTS` names them.

    Pixels lie plane by plane: as the renderer leaves them, convolutions on a CPU take twice as long.
    """

    def make(scenes: Scenes) -> tuple[Tensor, ...]:
        facts = torch.cat([scenes.layout[:, None], scenes.kind, scenes.colour], 1)
        return render(scenes, px, world.device).contiguous(), facts.to(world.device)

    return make
