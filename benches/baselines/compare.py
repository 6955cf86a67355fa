"""smalti and others in turn on this machine, one table: pictures per second first.

Each round runs every engine once, so that all see the machine in the same state; the medians over the rounds are
compared. The file has a line of JSON per engine and row of the table, for `smalti bench plot`.

  python compare.py --models B,L --images 1,4 --device cpu --dtypes bf16,f32 --out cpu.jsonl
  python compare.py --models XL,3B --images 1,8,128 --image-size 384 --engines smalti,torch-graph,vllm --out h200.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
TORCH_DTYPE = {"bf16": "bfloat16", "f32": "float32"}
LLAMA_CPP = {"llama-cpp": [], "llama-cpp-flash": ["--flash-attention"]}
Cell = tuple[str, int, str, str]
"""What is compared: model, pictures at once, dtype, what is timed (tokens or VQ decode)."""


def words(text: str) -> list[str]:
    return text.split(",")


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--smalti", default="smalti", metavar="PROGRAM", help="the program, built for release")
    p.add_argument("--models", type=words, default=["B"], metavar="SIZE,...")
    p.add_argument("--images", type=words, default=["1", "4"], metavar="N,...", help="pictures at once")
    p.add_argument("--image-size", type=int, default=256, help="side in pixels")
    p.add_argument("--dtypes", type=words, default=["bf16"], metavar="DTYPE,...", help="bf16, f32")
    p.add_argument("--engines", type=words, default=["smalti", "torch-eager"], metavar="NAME,...",
                   help="smalti, torch-eager, torch-compile, torch-graph, vllm, llama-cpp, llama-cpp-flash")  # fmt: skip
    p.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    p.add_argument("--threads", type=int, default=0, help="of a CPU; 0 leaves the engines' choice")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--warmup", type=int, default=1, help="batches of every run that do not count")
    p.add_argument("--vq", action=argparse.BooleanOptionalAction, default=True, help="compare the VQ decode, too")
    p.add_argument("--vllm-args", type=json.loads, default={}, metavar="JSON", help="more arguments of vllm.LLM")
    p.add_argument("--out", type=Path, default=Path("comparison.jsonl"))
    args = p.parse_args()
    if args.device != "cpu" and LLAMA_CPP.keys() & set(args.engines):
        p.error("llama-cpp runs on a CPU here")
    return args


def generation(args: argparse.Namespace, engine: str, model: str, images: str, dtype: str) -> list[str]:
    """The command that times one engine's tokens."""
    common = ["--warmup", str(args.warmup), "--rounds", "1"]
    if engine == "smalti":
        return [args.smalti, "bench", "latency", "--size", model, "--batch-size", images, "--precision", dtype,
                "--image-size", str(args.image_size), "--vq-precision", vq_dtype(args, dtype), "--json",
                "--device", args.device, "--threads", str(args.threads), *common]  # fmt: skip
    tokens = str((args.image_size // 16) ** 2)
    shared = ["--model", model, "--images", images, "--tokens", tokens, *common]
    if engine == "vllm":
        return [sys.executable, str(HERE / "vllm_baseline.py"), *shared, "--engine-args", json.dumps(args.vllm_args)]
    if engine in LLAMA_CPP:
        return [sys.executable, str(HERE / "llama_cpp_baseline.py"), *shared, "--dtype", TORCH_DTYPE[dtype],
                "--threads", str(args.threads), *LLAMA_CPP[engine]]  # fmt: skip
    mode = engine.removeprefix("torch-")
    return [sys.executable, str(HERE / "torch_baseline.py"), *shared, "--mode", mode, "--device", args.device,
            "--dtype", TORCH_DTYPE[dtype], "--threads", str(args.threads)]  # fmt: skip


def vq_dtype(args: argparse.Namespace, dtype: str) -> str:
    return "bf16" if args.device == "cuda" else dtype


def vq_decode(args: argparse.Namespace, engine: str, dtype: str) -> list[str]:
    """The command that times one engine's VQ decode of a picture."""
    if engine == "smalti":
        return [args.smalti, "bench", "vq", "--image-size", str(args.image_size), "--vq-precision", vq_dtype(args, dtype),
                "--device", args.device, "--threads", str(args.threads), "--rounds", "3", "--json"]  # fmt: skip
    compiled = ["--compile"] if engine == "torch-compile" else []
    return [sys.executable, str(HERE / "torch_vq_baseline.py"), "--image-size", str(args.image_size), "--device",
            args.device, "--dtype", TORCH_DTYPE[dtype], "--threads", str(args.threads), "--rounds", "3",
            "--warmup", str(args.warmup), *compiled]  # fmt: skip


def runs(args: argparse.Namespace) -> Iterator[tuple[Cell, str, list[str]]]:
    """One round, engines innermost."""
    for dtype in args.dtypes:
        for model in args.models:
            for images in args.images:
                for engine in args.engines:
                    if engine != "vllm" or dtype == "bf16":
                        yield (model, int(images), dtype, "tokens"), engine, generation(args, engine, model, images, dtype)
        if args.vq:
            for engine in args.engines:
                if engine in ("smalti", "torch-eager", "torch-compile"):
                    yield ("VQ-16", 1, dtype, "decode"), engine, vq_decode(args, engine, dtype)


def seconds(record: dict) -> float:
    """Of a batch's tokens, without painting, or of a decode."""
    if "decode" in record:
        return record["decode"]["median"]
    if "vq_decode_ms" in record:
        return record["latencies"][0] - 1e-3 * record["vq_decode_ms"]["median"] * record["batch_size"]
    return record["median_latency"]


def run(command: list[str]) -> dict:
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if found.returncode:
        sys.exit(f"this command failed: {' '.join(command)}")
    return json.loads(found.stdout.strip().splitlines()[-1])


def write(args: argparse.Namespace, times: dict[Cell, dict[str, list[float]]], records: dict[tuple[Cell, str], dict]) -> None:
    with args.out.open("w") as out:
        for cell, by_engine in times.items():
            model, images, dtype, _ = cell
            for engine, all_times in by_engine.items():
                record = {
                    "engine": engine,
                    "model": model,
                    "dtype": dtype,
                    "image_size": args.image_size,
                    "batch_size": images,
                    "latencies": all_times,
                    "images_per_second": images / statistics.median(all_times),
                    "last_record": records[cell, engine],
                }
                out.write(json.dumps(record) + "\n")


def show(args: argparse.Namespace, times: dict[Cell, dict[str, list[float]]]) -> None:
    tokens = (args.image_size // 16) ** 2
    print(f"\n{args.image_size} px, {args.device}, {args.rounds} rounds in turn: median (min to max)")
    print("| what | dtype | at once | engine | images/s | seconds | ms per step | first engine's time over it |")
    print("|---|---|---|---|---|---|---|---|")
    for (model, images, dtype, what), by_engine in times.items():
        first = statistics.median(next(iter(by_engine.values())))
        for engine, all_times in by_engine.items():
            median = statistics.median(all_times)
            spread = f"{median:.3f} ({min(all_times):.3f} to {max(all_times):.3f})"
            step = f"{1e3 * median / tokens:.2f}" if what == "tokens" else ""
            print(f"| {model} {what} | {dtype} | {images} | {engine} | {images / median:.4f} | {spread} | {step} | {first / median:.2f} |")


def main() -> None:
    args = arguments()
    times: dict[Cell, dict[str, list[float]]] = {}
    records: dict[tuple[Cell, str], dict] = {}
    for round_ in range(args.rounds):
        for cell, engine, command in runs(args):
            record = records[cell, engine] = run(command)
            times.setdefault(cell, {}).setdefault(engine, []).append(seconds(record))
            print(f"round {round_ + 1}: {' '.join(map(str, cell))} {engine}: {times[cell][engine][-1]:.3f} s", file=sys.stderr)
            # Each time: a round takes minutes, and one that is broken off leaves something.
            write(args, times, records)
    show(args, times)


if __name__ == "__main__":
    main()
