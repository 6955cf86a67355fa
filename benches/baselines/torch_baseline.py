"""A plain PyTorch decoder of LlamaGen's class-conditional shape: what one gets without a runtime of one's own.

Static KV cache, two sequences per picture under guidance, top-k, one draw per token; random weights. Modes:

  eager     a Python loop; attention over exactly the filled part of the cache
  compile   torch.compile(mode="reduce-overhead"); attention over the whole cache under a mask
  graph     one CUDA graph per 64 positions around eager kernels; on a CPU the same steps without a graph

One line of JSON per number of pictures:  python torch_baseline.py --model L --images 1,8 --mode graph
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

from shapes import NUM_CLASSES, SHAPES, VOCAB_SIZE, Shape, labels, parser, report


def arguments() -> argparse.Namespace:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--mode", default="graph", choices=["eager", "compile", "graph"])
    p.add_argument("--cfg-scale", type=float, default=4.0, help="1 is off: one sequence per picture")
    p.add_argument("--device", help="cuda where there is one, else cpu")
    p.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    p.add_argument("--threads", type=int, default=0, help="of a CPU; 0 leaves PyTorch's choice")
    return p.parse_args()


if __name__ == "__main__":
    # Before PyTorch's long import: --help answers at once, and without it.
    ARGS = arguments()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

BUCKET = 64
"""Positions that share a captured graph: attention reads the cache up to the next multiple, masked."""


def freqs_cis(side: int, head_dim: int) -> Tensor:
    """(1 + side^2, head_dim / 2, 2): cosine and sine; zero for the condition; rows first, then columns."""
    frequency = 10000.0 ** -(torch.arange(0, head_dim // 2, 2) / (head_dim // 2))
    angle = torch.arange(side)[:, None] * frequency
    both = torch.cat([angle[:, None].expand(side, side, -1), angle[None].expand(side, side, -1)], -1).flatten(0, 1)
    return torch.cat([torch.zeros(1, head_dim // 2, 2), torch.stack([both.cos(), both.sin()], -1)])


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + 1e-5)).type_as(x) * weight


def rotate(x: Tensor, cis: Tensor) -> Tensor:
    """(B, H, D), pairs (2i, 2i + 1) turned."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cis.unbind(-1)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2).type_as(x)


class Layer(nn.Module):
    """One block with its own cache, (B, H, S, D) each."""

    def __init__(self, shape: Shape, batch: int, positions: int) -> None:
        super().__init__()
        dim, hidden, self.n_head = shape.dim, shape.hidden_dim, shape.n_head
        sizes = {"wqkv": (3 * dim, dim), "wo": (dim, dim), "w13": (2 * hidden, dim), "w2": (dim, hidden)}
        for name, size in sizes.items():
            self.register_buffer(name, torch.randn(size) * size[1] ** -0.5)
        for name in ("attention_norm", "ffn_norm"):
            self.register_buffer(name, torch.ones(dim))
        for name in ("k_cache", "v_cache"):
            self.register_buffer(name, torch.zeros(batch, self.n_head, positions, shape.head_dim))

    def forward(self, x: Tensor, cis: Tensor, position: Tensor, keys: int, mask: Tensor | None) -> Tensor:
        q, k, v = F.linear(rms_norm(x, self.attention_norm), self.wqkv).view(len(x), 3, self.n_head, -1).unbind(1)
        self.k_cache.index_copy_(2, position, rotate(k, cis).unsqueeze(2))
        self.v_cache.index_copy_(2, position, v.unsqueeze(2).contiguous())
        k, v = self.k_cache[:, :, :keys], self.v_cache[:, :, :keys]
        heads = F.scaled_dot_product_attention(rotate(q, cis).unsqueeze(2), k, v, attn_mask=mask)
        x = x + F.linear(heads.flatten(1), self.wo)
        gate, up = F.linear(rms_norm(x, self.ffn_norm), self.w13).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.w2)


class Decoder(nn.Module):
    """Everything a step reads and writes is a buffer on the device, so that a step can be captured."""

    def __init__(self, shape: Shape, images: int, tokens: int, cfg_scale: float, top_k: int, temperature: float) -> None:
        super().__init__()
        self.images, self.tokens, self.cfg_scale = images, tokens, cfg_scale
        self.top_k, self.temperature = top_k, max(temperature, 1e-5)
        self.guided = cfg_scale > 1.0
        batch = 2 * images if self.guided else images
        self.positions = -(-(1 + tokens) // BUCKET) * BUCKET
        side = math.isqrt(tokens)
        assert side * side == tokens, "a picture is square"
        self.layers = nn.ModuleList(Layer(shape, batch, self.positions) for _ in range(shape.n_layer))
        for name, rows in (("tok_embeddings", VOCAB_SIZE), ("embedding_table", NUM_CLASSES + 1), ("output", VOCAB_SIZE)):
            self.register_buffer(name, torch.randn(rows, shape.dim) * shape.dim**-0.5)
        self.register_buffer("norm", torch.ones(shape.dim))
        table = freqs_cis(side, shape.head_dim)
        self.register_buffer("freqs_cis", torch.cat([table, table.new_zeros(self.positions - len(table), *table.shape[1:])]))
        self.register_buffer("all_positions", torch.arange(self.positions))
        self.register_buffer("position", torch.zeros(1, dtype=torch.long))
        self.register_buffer("token", torch.zeros(images, dtype=torch.long))
        self.register_buffer("label", torch.zeros(batch, dtype=torch.long))
        self.register_buffer("codes", torch.zeros(images, tokens, dtype=torch.long))

    def begin(self, classes: Tensor) -> None:
        self.position.zero_()
        self.label.fill_(NUM_CLASSES)
        self.label[: self.images] = classes

    def prefill(self) -> None:
        self.finish(self.embedding_table[self.label], 1, masked=False)

    def step(self, keys: int, masked: bool) -> None:
        x = self.tok_embeddings[self.token]
        self.finish(torch.cat([x, x]) if self.guided else x, keys, masked)

    def finish(self, x: Tensor, keys: int, masked: bool) -> None:
        cis = self.freqs_cis[self.position][0]
        mask = (self.all_positions[:keys] <= self.position).view(1, 1, 1, -1) if masked else None
        for layer in self.layers:
            x = layer(x, cis, self.position, keys, mask)
        logits = F.linear(rms_norm(x, self.norm), self.output).float()
        if self.guided:
            cond, uncond = logits.chunk(2)
            logits = uncond + (cond - uncond) * self.cfg_scale
        logits = logits / self.temperature
        if self.top_k < VOCAB_SIZE:
            least = logits.topk(self.top_k, sorted=False).values.amin(-1, keepdim=True)
            logits = logits.masked_fill(logits < least, -math.inf)
        # A multinomial draw by exponential races: the host is not asked.
        shares = logits.softmax(-1)
        self.token.copy_((shares / torch.empty_like(shares).exponential_()).argmax(-1))
        self.codes.index_copy_(1, self.position, self.token[:, None])
        self.position.add_(1)


def capture(run: Callable[[], None], decoder: Decoder, position: int) -> torch.cuda.CUDAGraph:
    """A CUDA graph of one step, after two runs on a side stream as capture wants it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            decoder.position.fill_(position)
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def generator(decoder: Decoder, mode: str) -> Callable[[Tensor], Tensor]:
    """A function from classes (N) to codes (N, tokens)."""
    on_gpu = decoder.codes.is_cuda
    bucket = lambda position: min((position // BUCKET + 1) * BUCKET, decoder.positions)  # noqa: E731
    steps: dict[int, Callable[[], None]] = {}
    prefill: Callable[[], None] = decoder.prefill
    if mode == "eager":
        steps = {p: lambda p=p: decoder.step(p + 1, masked=False) for p in range(1, decoder.tokens)}
    elif mode == "compile":
        for buffer in decoder.buffers():
            torch._dynamo.mark_static_address(buffer)
        whole = torch.compile(lambda: decoder.step(decoder.positions, masked=True), mode="reduce-overhead", fullgraph=True)
        steps = {p: whole for p in range(1, decoder.tokens)}
    else:
        by_bucket: dict[int, Callable[[], None]] = {}
        for keys in sorted({bucket(p) for p in range(1, decoder.tokens)}, reverse=True):
            run = lambda keys=keys: decoder.step(keys, masked=True)  # noqa: E731
            by_bucket[keys] = capture(run, decoder, 1).replay if on_gpu else run
        prefill = capture(decoder.prefill, decoder, 0).replay if on_gpu else prefill
        steps = {p: by_bucket[bucket(p)] for p in range(1, decoder.tokens)}

    def generate(classes: Tensor) -> Tensor:
        decoder.begin(classes)
        prefill()
        for position in range(1, decoder.tokens):
            if mode == "compile" and on_gpu:
                torch.compiler.cudagraph_mark_step_begin()
            steps[position]()
        return decoder.codes

    return generate


def main(args: argparse.Namespace) -> None:
    torch.set_grad_enabled(False)
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = getattr(torch, args.dtype)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    shape = SHAPES[args.model]
    for images in args.images:
        decoder = Decoder(shape, images, args.tokens, args.cfg_scale, min(args.top_k, VOCAB_SIZE), args.temperature)
        for name, buffer in list(decoder.named_buffers()):
            keep = not buffer.is_floating_point() or name == "freqs_cis"
            owner = decoder.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], buffer.to(device, None if keep else dtype))
        generate = generator(decoder, args.mode)
        classes = torch.tensor(labels(images), device=device)
        seconds = []
        for round_ in range(max(args.warmup, 1) + args.rounds):
            decoder.codes.fill_(-1)
            wait()
            started = time.perf_counter()
            codes = generate(classes)
            wait()
            if round_ >= max(args.warmup, 1):
                seconds.append(time.perf_counter() - started)
        assert 0 <= int(codes.min()) and int(codes.max()) < VOCAB_SIZE, "every token was drawn"
        more = {"peak_memory_bytes": torch.cuda.max_memory_allocated()} if device.type == "cuda" else {}
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
        bytes_ = shape.matrix_elements * dtype.itemsize
        sequences = 2 * images if decoder.guided else images
        report(f"torch {torch.__version__} {args.mode}", args, images, sequences, seconds, device=name, dtype=args.dtype,
               cfg_scale=args.cfg_scale, weight_bytes_per_step=bytes_, **more)  # fmt: skip


if __name__ == "__main__":
    main(ARGS)
