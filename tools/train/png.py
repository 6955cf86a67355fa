"""Pictures to files: 8-bit RGB PNG, and several pictures in one."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor


def grid(pictures: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Puts (N, 3, H, W) uint8 pictures in rows of `columns`: (3, H', W')."""
    n, c, h, w = pictures.shape
    rows = -(-n // columns)
    sheet = torch.full((c, rows * (h + gap) - gap, columns * (w + gap) - gap), 255, dtype=torch.uint8)
    for i, picture in enumerate(pictures.cpu()):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        sheet[:, top : top + h, left : left + w] = picture
    return sheet


def save_png(path: Path | str, picture: Tensor) -> None:
    """Writes one (3, H, W) uint8 picture; the file appears whole or not at all."""
    _, h, w = picture.shape
    lines = picture.permute(1, 2, 0).reshape(h, w * 3).cpu()
    lines = torch.cat([torch.zeros(h, 1, dtype=torch.uint8), lines], 1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = zlib.compress(lines.numpy().tobytes(), 9)
    head = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    part = Path(f"{path}.part")
    part.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    os.replace(part, path)
