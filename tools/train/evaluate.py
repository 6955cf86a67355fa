"""Measures a trained run, with an eye that took no part in the training.

Class samples: is the asked-for class seen? Text samples, of captions that say every colour and place: are the kinds,
the colours, the places seen as told? FID between samples and fresh drawings in the eye's features; the tokenizer's PSNR
and codebook use. Figures go to OUT/evaluation.json, samples to OUT/evaluation-*.png.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from .eye import PX, Eye, load_eye
from .png import grid, save_png
from .presets import Preset
from .scenes import CLASS_NAMES, Scenes, captions, render, sample_scenes
from .train_c2i import load_gpt, sample_classes
from .train_t2i import load_t2i, sample_texts
from .train_vq import load_vq
from .vq import VQModel, to_pixels, to_unit
from .world import World

AT_ONCE = 100


def for_eye(pixels: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) uint8 as the eye takes them: 128 pixels a side, [-1, 1]."""
    image = to_unit(pixels)
    return image if image.shape[-1] == PX else F.interpolate(image, size=(PX, PX), mode="bilinear", antialias=True)


@torch.no_grad()
def look(eye: Eye, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What the eye says, (B, 5) in the order of `eye.FACTS`, and its features (B, 128)."""
    answers, features = [], []
    for part in pixels.split(AT_ONCE):
        image = for_eye(part)
        answers.append(torch.stack([a.argmax(1) for a in eye(image)], 1).cpu())
        features.append(eye.features(image).double().cpu())
    return torch.cat(answers), torch.cat(features)


def fid(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between two sets of features (N, F)."""
    mean = (a.mean(0) - b.mean(0)).square().sum()
    ca, cb = a.T.cov(), b.T.cov()
    values, vectors = torch.linalg.eigh(ca)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cb @ root).clamp_min(0).sqrt().sum()
    return (mean + ca.trace() + cb.trace() - 2 * cross).item()


def facts_of(scenes: Scenes) -> Tensor:
    return torch.cat([scenes.layout[:, None], scenes.kind, scenes.colour], 1)


def share(hits: Tensor) -> float:
    """0 of none."""
    return round(hits.double().sum().item() / max(1, hits.numel()), 4)


def compare(seen: Tensor, facts: Tensor) -> dict[str, float]:
    """How much of the facts (B, 5) was seen, of one thing and of two: of these both must be right, in their places but for
    `two_kinds`."""
    two = facts[:, 0] > 0
    kinds = (seen[:, 1] == facts[:, 1]) & ((seen[:, 2] == facts[:, 2]) | ~two)
    colours = (seen[:, 3] == facts[:, 3]) & ((seen[:, 4] == facts[:, 4]) | ~two)
    both = (seen[:, 1:3].sort(1).values == facts[:, 1:3].sort(1).values).all(1)
    place = (seen[:, 0] == facts[:, 0]) & kinds
    return {
        "one_kind": share(kinds[~two]),
        "one_colour": share(colours[~two]),
        "two_kinds": share(both[two]),
        "two_places": share(place[two]),
        "two_colours": share(colours[two]),
        "everything": share(place & colours),
    }


def telling(scenes: Scenes) -> Scenes:
    """The same scenes with captions that say every colour and the places."""
    scenes.words[:, 2:4] = scenes.words[:, 2:4].clamp_min(0.1)
    scenes.words[:, 4] = scenes.words[:, 4].clamp_min(0.2)
    return scenes


@torch.no_grad()
def judge_tokenizer(vq: VQModel, px: int, seed: int, count: int, device: torch.device) -> dict[str, float]:
    errors, used = [], torch.zeros(vq.config.codebook_size, dtype=torch.bool)
    for start in range(0, count, AT_ONCE):
        pixels = render(sample_scenes(seed, torch.arange(start, min(start + AT_ONCE, count)), "text"), px, device)
        for part in pixels.split(25):
            again, codes = vq(to_unit(part))
            errors.append((to_pixels(again).float() - part.float()).square().mean((1, 2, 3)).cpu())
            used[codes.index.flatten().cpu()] = True
    psnr = 10 * (255**2 / torch.cat(errors).clamp_min(1e-3)).log10()
    return {"psnr": round(psnr.mean().item(), 2), "codebook_use": share(used)}


@torch.no_grad()
def judge_classes(eye: Eye, vq: VQModel, preset: Preset, out: Path, index: Tensor, drawn: Tensor) -> dict[str, object]:
    """`drawn`: the eye's features of fresh drawings."""
    sampling, device = preset.sampling["c2i"], next(vq.parameters()).device
    model, label = load_gpt(out / "c2i.pt", device), index % len(CLASS_NAMES)
    parts = [sample_classes(model, vq, part.to(device), sampling).cpu() for part in label.split(AT_ONCE)]
    pictures = torch.cat(parts).to(device)
    seen, features = look(eye, pictures)
    right = seen[:, 1] == label
    save_png(out / "evaluation-c2i.png", grid(pictures[: 2 * len(CLASS_NAMES)], 8))
    return asdict(sampling) | {
        "class": share(right),
        "class_with_shuffled_labels": share(seen[:, 1] == label.roll(1)),
        "fid": round(fid(features, drawn), 3),
        "by_class": {name: share(right[label == i]) for i, name in enumerate(CLASS_NAMES) if (label == i).any()},
    }


@torch.no_grad()
def judge_texts(eye: Eye, vq: VQModel, preset: Preset, out: Path, asked: Scenes, drawn: Tensor) -> dict[str, object]:
    """`drawn`: the eye's features of fresh drawings."""
    sampling, device = preset.sampling["t2i"], next(vq.parameters()).device
    tokenizer = Tokenizer.from_file(str(out / "t5" / "tokenizer.json"))
    (gpt, t5), texts = load_t2i(out / "t2i-2.pt", device), captions(asked)
    batches = [texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE)]
    pictures = torch.cat([sample_texts(gpt, t5, tokenizer, vq, part, sampling).cpu() for part in batches]).to(device)
    seen, features = look(eye, pictures)
    save_png(out / "evaluation-t2i.png", grid(pictures[:32], 8))
    (out / "evaluation-t2i.txt").write_text("\n".join(texts[:32]) + "\n")
    return asdict(sampling) | compare(seen, facts_of(asked)) | {"fid": round(fid(features, drawn), 3)}


def evaluate(world: World, preset: Preset, out: Path, samples: int) -> None:
    """Of both models, or of the class model where the text model's last stage is not there yet."""
    device, seed = world.device, world.seed + 0x7E57
    torch.manual_seed(seed)
    eye = load_eye(out / "evaluate.pt", device)
    vq = load_vq(out / "vq.pt", device)
    index, px = torch.arange(samples), preset.pixels[1]

    fresh, asked = sample_scenes(seed, index, "class"), telling(sample_scenes(seed, index + (1 << 20), "text"))
    drawn, drawn_features = look(eye, render(fresh, px, device))
    told, told_features = look(eye, render(asked, px, device))
    result: dict[str, object] = {
        "seed": world.seed,
        "samples": samples,
        "image_size": px,
        "eye_on_drawings": {"class": share(drawn[:, 1] == fresh.kind[:, 0])} | compare(told, facts_of(asked)),
        "tokenizer": judge_tokenizer(vq, px, seed, min(samples, 500), device),
        "c2i": judge_classes(eye, vq, preset, out, index, drawn_features),
    }
    if (out / "t2i-2.pt").exists():
        result["t2i"] = judge_texts(eye, vq, preset, out, asked, told_features)
    (out / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
