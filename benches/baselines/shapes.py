"""What the baselines of the transformer share: the released models' shapes, and the arguments and records that make runs comparable."""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass

VOCAB_SIZE = 16384
NUM_CLASSES = 1000


@dataclass(frozen=True)
class Shape:
    n_layer: int
    n_head: int
    dim: int

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_head

    @property
    def hidden_dim(self) -> int:
        """2/3 * 4 * dim, up to a multiple of 256."""
        return -(-int(2 * 4 * self.dim / 3) // 256) * 256

    @property
    def matrix_elements(self) -> int:
        """Elements of all matrices that a step reads whole: the layers' and the head."""
        return self.n_layer * (4 * self.dim**2 + 3 * self.dim * self.hidden_dim) + VOCAB_SIZE * self.dim


SHAPES = {
    "B": Shape(12, 12, 768),
    "L": Shape(24, 16, 1024),
    "XL": Shape(36, 20, 1280),
    "XXL": Shape(48, 24, 1536),
    "3B": Shape(24, 32, 3200),
    "tiny": Shape(2, 2, 128),
}


def numbers(text: str) -> list[int]:
    return [int(x) for x in text.split(",")]


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments that every baseline of the transformer takes."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--model", default="B", choices=list(SHAPES), help="shape, weights are random")
    p.add_argument("--images", type=numbers, default=[1, 8], metavar="N,...", help="pictures at once")
    p.add_argument("--tokens", type=int, default=256, help="tokens of a picture: 256, 576 or 1024")
    p.add_argument("--top-k", type=int, default=2000)
    p.add_argument("--temperature", type=float, default=1.0)
    p.add_argument("--rounds", type=int, default=5, help="generations that count")
    p.add_argument("--warmup", type=int, default=2, help="generations before, that do not")
    p.add_argument("--seed", type=int, default=0)
    return p


def labels(count: int) -> list[int]:
    """Classes of the pictures: any, but not all the same."""
    return [i * 37 % NUM_CLASSES for i in range(count)]


def latencies(images: int, seconds: list[float]) -> dict[str, object]:
    """Latencies in seconds; the keys are those of `vllm bench latency`, and ours."""
    median = statistics.median(seconds)
    return {
        "batch_size": images,
        "avg_latency": statistics.fmean(seconds),
        "median_latency": median,
        "min_latency": min(seconds),
        "max_latency": max(seconds),
        "latencies": seconds,
        "images_per_second": images / median,
    }


def report(engine: str, args: argparse.Namespace, images: int, sequences: int, seconds: list[float], **more: object) -> None:
    """One line of JSON of generations."""
    median = statistics.median(seconds)
    record = {
        "engine": engine,
        "model": args.model,
        "sequences": sequences,
        "tokens": args.tokens,
        "top_k": args.top_k,
        **latencies(images, seconds),
        "tokens_per_second": images * args.tokens / median,
        "ms_per_step": 1e3 * median / args.tokens,
        **more,
    }
    print(json.dumps(record), flush=True)


def report_decodes(engine: str, images: int, seconds: list[float], **more: object) -> None:
    """One line of JSON of VQ decodes."""
    print(json.dumps({"engine": engine, **latencies(images, seconds), **more}), flush=True)
