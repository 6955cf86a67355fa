"""A plain PyTorch VQ decoder of LlamaGen's released shape (VQ-16): codes to pixels, random weights.

One line of JSON per number of pictures:  python torch_vq_baseline.py --images 1 --device cpu --dtype bfloat16
"""

from __future__ import annotations

import argparse
import time

from shapes import VOCAB_SIZE, numbers, report_decodes


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=numbers, default=[1], metavar="N,...", help="pictures at once")
    p.add_argument("--image-size", type=int, default=256, help="side in pixels")
    p.add_argument("--device", help="cuda where there is one, else cpu")
    p.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    p.add_argument("--layout", default="channels_last", choices=["channels_last", "channels_first"])
    p.add_argument("--compile", action="store_true", help="through torch.compile")
    p.add_argument("--threads", type=int, default=0, help="of a CPU; 0 leaves PyTorch's choice")
    p.add_argument("--rounds", type=int, default=5, help="decodes that count")
    p.add_argument("--warmup", type=int, default=2, help="decodes before, that do not")
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


if __name__ == "__main__":
    # Before PyTorch's long import: --help answers at once, and without it.
    ARGS = arguments()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

CH, CH_MULT, BLOCKS, Z_CHANNELS, EMBED_DIM = 128, (1, 1, 2, 2, 4), 2, 256, 8
DOWNSAMPLE = 16


def conv(c_in: int, c_out: int, side: int = 3) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, side, padding=side // 2)


def group_norm(c: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, c, eps=1e-6)


class Residual(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(c_in), conv(c_in, c_out)
        self.norm2, self.conv2 = group_norm(c_out), conv(c_out, c_out)
        self.shortcut = nn.Identity() if c_in == c_out else conv(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """One head over all pixels."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj_out = group_norm(c), conv(c, 3 * c, 1), conv(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, -1)
        heads = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(heads.transpose(1, 2).reshape(x.shape))


class Upsample(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = conv(c, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [CH * mult for mult in reversed(CH_MULT)]
        self.register_buffer("codebook", F.normalize(torch.randn(VOCAB_SIZE, EMBED_DIM), dim=-1))
        layers: list[nn.Module] = [conv(EMBED_DIM, Z_CHANNELS, 1), conv(Z_CHANNELS, widths[0])]
        layers += [Residual(widths[0], widths[0]), Attention(widths[0]), Residual(widths[0], widths[0])]
        c = widths[0]
        for level, width in enumerate(widths):
            for _ in range(BLOCKS + 1):
                layers += [Residual(c, width)] + ([Attention(width)] if level == 0 else [])
                c = width
            if level + 1 < len(widths):
                layers.append(Upsample(c))
        layers += [group_norm(c), nn.SiLU(), conv(c, 3)]
        self.layers = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, P, P) to bytes (B, 3, 16 P, 16 P)."""
        vectors = F.embedding(codes, self.codebook).permute(0, 3, 1, 2)
        return (127.5 * self.layers(vectors) + 128).clamp(0, 255).to(torch.uint8)


def main(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_grad_enabled(False)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = getattr(torch, args.dtype)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    formats = {"channels_last": torch.channels_last, "channels_first": torch.contiguous_format}
    decoder = Decoder().to(device, dtype, memory_format=formats[args.layout]).eval()
    decode = torch.compile(decoder) if args.compile else decoder
    side = args.image_size // DOWNSAMPLE
    for images in args.images:
        codes = torch.randint(VOCAB_SIZE, (images, side, side), device=device)
        seconds = []
        for round_ in range(args.warmup + args.rounds):
            wait()
            started = time.perf_counter()
            pixels = decode(codes)
            wait()
            if round_ >= args.warmup:
                seconds.append(time.perf_counter() - started)
        assert pixels.shape == (images, 3, args.image_size, args.image_size), "a picture per row of codes"
        report_decodes(f"torch {torch.__version__}", images, seconds, device=str(device), dtype=args.dtype,
                       image_size=args.image_size, layout=args.layout, compiled=args.compile)  # fmt: skip


if __name__ == "__main__":
    main(ARGS)
