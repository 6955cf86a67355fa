"""One stage of training: its clock, learning rate, averages, checkpoints and messages. What a step does is its caller's.

A stage lives in one file, `OUT/NAME.pt`, with LlamaGen's keys (`model`, `ema`, `optimizer`, `steps`). It is written
whole, then put in place, every `SAVE_SECONDS` and before every grid; a run that is killed goes on from there, with other
random numbers. Time is counted in the file, so a stage gets its minutes however often it is interrupted.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from .data import Draws
from .png import save_png
from .presets import Recipe
from .scenes import CLASS_NAMES
from .world import World

SAVE_SECONDS, PRINT_SECONDS, GRID_SECONDS = 40.0, 10.0, 240.0


@dataclass(frozen=True)
class Limit:
    """A stage ends at `seconds` of training or at `steps`, whichever is first."""

    seconds: float = math.inf
    steps: float = math.inf

    def progress(self, seconds: float, steps: int) -> float:
        return min(1.0, max(seconds / self.seconds, steps / self.steps))


class Stage:
    """`modules` are trained; those in `averaged` have an EMA. The first is saved as `model` and `ema`."""

    def __init__(
        self,
        name: str,
        world: World,
        out: Path,
        limit: Limit,
        recipe: Recipe,
        modules: dict[str, nn.Module],
        optimizers: dict[str, Optimizer],
        averaged: tuple[str, ...],
        about: dict[str, Any],
    ) -> None:
        self.name, self.world, self.limit, self.recipe = name, world, limit, recipe
        self.path = out / f"{name}.pt"
        self.grid_path = out / f"{name}.png"
        self.modules, self.optimizers, self.about = modules, optimizers, about
        self.ema = {k: deepcopy(modules[k]).eval().requires_grad_(False) for k in averaged}
        self.steps, self.seconds, self.done, self.drawn = 0, 0.0, False, 0
        self.progress = 0.0
        if self.path.exists():
            self.load()
            torch.manual_seed((world.seed * 1000 + world.rank) * 1_000_003 + self.steps)
        for module in modules.values():
            world.share_from_main(t.data for t in (*module.parameters(), *module.buffers()))

    def key(self, module: str, ema: bool = False) -> str:
        """A module's key in the file."""
        if module == next(iter(self.modules)):
            return "ema" if ema else "model"
        return f"{module}_ema" if ema else module

    def load(self) -> None:
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        missing = {self.key(name) for name in self.modules} - state.keys()
        if missing:
            raise SystemExit(f"{self.path}: expected {sorted(missing)} in it, found none; begin in a new --out folder")
        for name, module in self.modules.items():
            module.load_state_dict(state[self.key(name)])
        for name, module in self.ema.items():
            module.load_state_dict(state[self.key(name, ema=True)])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        self.steps, self.seconds, self.drawn = state["steps"], state["seconds"], state["drawn"]
        self.progress = self.limit.progress(self.seconds, self.steps)
        self.done = self.progress >= 1.0
        self.say(f"goes on from step {self.steps}, {self.seconds / 60:.1f} min")

    def save(self) -> None:
        if not self.world.main:
            return
        state: dict[str, Any] = {self.key(k): m.state_dict() for k, m in self.modules.items()}
        state |= {self.key(k, ema=True): m.state_dict() for k, m in self.ema.items()}
        state |= {k: o.state_dict() for k, o in self.optimizers.items()}
        state |= {"steps": self.steps, "seconds": self.seconds, "drawn": self.drawn, "class_names": list(CLASS_NAMES)}
        save_atomically(self.path, state | self.about)

    def run(
        self, step: Callable[[], dict[str, Tensor]], grid: Callable[[], Tensor], images_per_step: int, draws: Draws
    ) -> None:
        """Calls `step` until the time is over. It returns losses by name; `grid` a picture of how the model does."""
        last = saved = printed = drawn_grid = time.monotonic()
        since, sums = 0, {}
        while not self.done:
            self.set_lr()
            for module in self.modules.values():
                module.train()
            losses = step()
            self.steps += 1
            self.update_ema()
            self.drawn = draws.drawn
            since += 1
            for k, v in losses.items():
                sums[k] = sums.get(k, 0) + v.detach()
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            self.progress = self.world.agree(self.limit.progress(self.seconds, self.steps))
            self.done = self.progress >= 1.0
            if now - printed > PRINT_SECONDS or self.done:
                text = "  ".join(f"{k} {float(v) / since:.4f}" for k, v in sums.items())
                speed = since * images_per_step / max(time.monotonic() - printed, 1e-9)
                self.say(f"step {self.steps}  {self.seconds / 60:.1f} min  {text}  {speed:.0f} images/s")
                printed, since, sums = time.monotonic(), 0, {}
            grid_due = now - drawn_grid > GRID_SECONDS or self.done
            if now - saved > SAVE_SECONDS or grid_due:
                self.save()
                saved = time.monotonic()
            if self.world.main and grid_due:
                save_png(self.grid_path, grid())
                drawn_grid = time.monotonic()
        self.world.agree(0.0)  # the file is there when anyone goes on

    def set_lr(self) -> None:
        """Warm-up by steps, then a cosine over the stage down to a twentieth."""
        warm = min(1.0, (self.steps + 1) / self.recipe.warmup_steps)
        cosine = 0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * self.progress))
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.lr * warm * cosine

    def update(self, optimizer: str, loss: Tensor, *modules: str) -> None:
        """One step of `optimizer` on the loss: gradients averaged over the processes and clipped to 1."""
        parameters = [p for m in modules for p in self.modules[m].parameters()]
        self.optimizers[optimizer].zero_grad(set_to_none=True)
        loss.backward()
        self.world.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizers[optimizer].step()

    @torch.no_grad()
    def update_ema(self) -> None:
        decay = min(self.recipe.ema_decay, (1 + self.steps) / (10 + self.steps))
        for name, ema in self.ema.items():
            module = self.modules[name]
            torch._foreach_lerp_(list(ema.parameters()), list(module.parameters()), 1 - decay)
            for old, new in zip(ema.buffers(), module.buffers(), strict=True):
                old.copy_(new)

    def say(self, text: str) -> None:
        if self.world.main:
            print(f"{self.name:6} {text}", flush=True)


def save_atomically(path: Path, state: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def adamw(recipe: Recipe, *modules: nn.Module) -> AdamW:
    """LlamaGen's optimizer: matrices and embeddings decay, vectors do not."""
    parameters = [p for m in modules for p in m.parameters()]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95), fused=True)
