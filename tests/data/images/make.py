"""Makes the fixtures of tests/image.rs beside this file. Made with Python 3 and Pillow 11.3 (newer ones
may differ: see src/image/resize.rs).

    pip install "pillow<12" && python3 make.py

The small pictures hold one pattern, 6 x 4 pixels: red 40 x, green 60 y, blue 10 (x + y).
"""

import random
import struct
import zlib
from pathlib import Path

from PIL import Image

here = Path(__file__).parent
W, H = 6, 4
coords = [(x, y) for y in range(H) for x in range(W)]
rgb = [(40 * x, 60 * y, 10 * (x + y)) for x, y in coords]


def picture(mode, values, size=(W, H)):
    image = Image.new(mode, size)
    image.putdata(values)
    return image


def save(image, name, **options):
    image.save(here / name, **options)


def png(name, color, depth, row, interlace=0):
    """A PNG of a kind that Pillow does not write; row(y) gives the bytes of one row."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    data = b"".join(b"\0" + row(y) for y in range(H))
    header = struct.pack(">IIBBBBB", W, H, depth, color, 0, 0, interlace)
    (here / name).write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )


save(picture("RGB", rgb), "rgb.png")
save(picture("RGBA", [(*p, 85 * (i % 4)) for i, p in enumerate(rgb)]), "rgba.png")
save(picture("L", [p[0] for p in rgb]), "grey.png")
save(picture("LA", [(p[0], 85 * (i % 4)) for i, p in enumerate(rgb)]), "grey_alpha.png")
save(picture("1", [255 * ((x + y) % 2) for x, y in coords]), "bilevel.png")
save(picture("I;16", [40 * x * 256 + 200 for x, _ in coords]), "grey16.png")
palette = picture("P", range(W * H))
palette.putpalette([value for p in rgb for value in p])
save(palette, "palette.png")
save(palette, "palette_alpha.png", transparency=bytes(10 * i for i in range(W * H)))
# 16 bits a sample; the low byte is 200, which rounding would carry over.
png("rgb16.png", 2, 16, lambda y: b"".join(bytes([v, 200]) for x in range(W) for v in rgb[y * W + x]))
png("rgba16.png", 6, 16, lambda y: b"".join(bytes([v, 200]) for x in range(W) for v in (*rgb[y * W + x], 9)))

# JPEG: one colour, so that every decoder agrees to a level. EXIF orientation 6 would turn it upright.
exif = Image.Exif()
exif[0x0112] = 6
save(Image.new("RGB", (24, 16), (200, 100, 50)), "rgb.jpg", quality=95, exif=exif)
save(Image.new("RGB", (24, 16), (200, 100, 50)), "progressive.jpg", quality=95, progressive=True)
save(Image.new("L", (24, 16), 90), "grey.jpg", quality=95)
save(Image.new("CMYK", (8, 8), (10, 20, 30, 40)), "cmyk.jpg")
save(Image.new("RGB", (8, 8), (1, 2, 3)), "picture.gif")


def center_crop_arr(image, size):
    """LlamaGen's (ADM's) cropping rule in Pillow's calls."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


random.seed(1)
source = picture("RGB", [tuple(random.choice((0, 255, random.randrange(256))) for _ in range(3)) for _ in range(47 * 37)], (47, 37))
save(source, "crop_source.png")
for size in (1, 9, 12, 18, 30, 37, 45):
    save(center_crop_arr(source, size), f"crop_{size}.png")
save(source.resize((20, 41), Image.Resampling.BOX), "resize_box_20x41.png")
save(source.resize((60, 13), Image.Resampling.BICUBIC), "resize_bicubic_60x13.png")
