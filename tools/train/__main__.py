"""`python -m train COMMAND`: see README.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from .evaluate import evaluate
from .export import export
from .eye import train_eye
from .png import save_png
from .presets import PRESETS, STAGES, Preset
from .scenes.sheet import kinds_sheet, scenes_sheet
from .stage import Limit
from .train_c2i import train_c2i
from .train_t2i import train_t2i
from .train_t5 import train_t5
from .train_vq import train_vq
from .world import World


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train", description="Trains the demo model from nothing, on drawn scenes.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "all": "every stage in order, then evaluate and export",
        **{stage: f"the stage {stage} alone" for stage in STAGES},
        "export": "write the files that others load",
        "sheet": "draw every kind of thing and a page of scenes",
    }.items():
        p = commands.add_parser(name, help=text)
        p.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run (default: %(default)s)")
        p.add_argument("--preset", choices=PRESETS, help="sizes and recipe (default: demo on a GPU, else cpu)")
        p.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
        p.add_argument("--threads", type=int, help="CPU threads (default: as many as cores)")
        p.add_argument("--seed", type=int, default=0)
        p.add_argument(
            "--minutes", type=float, default=float("inf"), help="training time: of all stages, or of this one"
        )
        p.add_argument("--steps", type=float, default=float("inf"), help="end each stage at this step")
        p.add_argument("--samples", type=int, default=1000, help="samples that evaluate looks at")
    options = parser.parse_args(arguments)
    if options.command in ("all", *STAGES) and options.minutes == options.steps == float("inf"):
        parser.error("say --minutes or --steps")
    if min(options.minutes, options.steps) <= 0:
        parser.error("--minutes and --steps: expected more than 0")
    return options


def train_stage(name: str, world: World, preset: Preset, out: Path, limit: Limit, samples: int) -> None:
    if name in ("eye", "evaluate"):
        train_eye(world, preset, out, limit, name)
    elif name == "vq":
        train_vq(world, preset, out, limit)
    elif name == "t5":
        train_t5(world, preset, out, limit)
    elif name == "c2i":
        train_c2i(world, preset, out, limit)
    else:
        train_t2i(world, preset, out, limit, int(name[-1]))
    if name == "evaluate" and world.main:
        evaluate(world, preset, out, samples)


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.command == "sheet":
        save_png(options.out / "kinds.png", kinds_sheet(copies=2, seed=options.seed))
        picture, texts = scenes_sheet(seed=options.seed)
        save_png(options.out / "scenes.png", picture)
        (options.out / "scenes.txt").write_text("\n".join(texts) + "\n")
        return
    if options.command == "export":
        export(options.out, PRESETS[options.preset or "demo"])
        return
    world = World(options.device, options.seed)
    preset = PRESETS[options.preset or ("demo" if world.device.type == "cuda" else "cpu")]
    for name in STAGES if options.command == "all" else (options.command,):
        share = preset.recipes[name].share if options.command == "all" else 1.0
        train_stage(
            name, world, preset, options.out, Limit(options.minutes * 60 * share, options.steps), options.samples
        )
    if options.command == "all" and world.main:
        export(options.out, preset)
    world.close()


if __name__ == "__main__":
    main(sys.argv[1:])
