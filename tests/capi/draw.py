"""Drives libsmalti.so by ctypes alone: draw.py LIBRARY GPT VQ."""

import ctypes as c
import struct
import sys
import zlib

SIDE = 64


class EngineOptions(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        *((name, c.c_char_p) for name in ("gpt_path", "vq_path", "t5_path", "device", "text_device")),
        *((name, c.c_uint32) for name in ("f32", "threads", "image_size", "n_head", "batch_size", "queue")),
    ]


PROGRESS = c.CFUNCTYPE(c.c_bool, c.c_void_p, c.c_uint32, c.c_uint32, c.c_uint32)


class RequestOptions(c.Structure):
    _fields_ = [
        ("struct_size", c.c_size_t),
        ("prompts", c.POINTER(c.c_char_p)),
        ("classes", c.POINTER(c.c_uint32)),
        ("subjects", c.c_size_t),
        ("count", c.c_uint32),
        ("greedy", c.c_uint32),
        ("first_image", c.c_uint64),
        ("seed", c.c_uint64),
        ("cfg_scale", c.c_float),
        ("cfg_interval", c.c_int32),
        ("temperature", c.c_float),
        ("top_p", c.c_float),
        ("top_k", c.c_int64),
        ("deadline_ms", c.c_uint64),
        ("output", c.c_void_p),
        ("output_bytes", c.c_size_t),
        ("output_memory", c.c_uint32),
        ("cuda_stream", c.c_void_p),
        ("progress", PROGRESS),
        ("user_data", c.c_void_p),
    ]


def main(library: str, gpt: str, vq: str) -> None:
    smalti = c.CDLL(library)
    smalti.smalti_version.restype = c.c_char_p

    def call(name: str, *arguments: object) -> None:
        status = getattr(smalti, "smalti_" + name)(*arguments)
        if status != 0:
            words = c.create_string_buffer(500)
            smalti.smalti_last_error(words, c.c_size_t(len(words)))
            raise RuntimeError(f"{name}: status {status}: {words.value.decode()}")

    print("smalti", smalti.smalti_version().decode())
    options = EngineOptions()
    call("engine_options_init", c.byref(options), c.c_size_t(c.sizeof(options)))
    options.gpt_path, options.vq_path, options.device = gpt.encode(), vq.encode(), b"cpu"
    options.image_size = SIDE
    engine = c.c_void_p()
    call("engine_create", c.byref(options), c.byref(engine))

    rows = []
    asked = RequestOptions()
    call("request_options_init", c.byref(asked), c.c_size_t(c.sizeof(asked)))
    pixels = (c.c_uint8 * (SIDE * SIDE * 3))()
    classes = (c.c_uint32 * 1)(7)
    progress = PROGRESS(lambda _, image, done, of: rows.append((image, done, of)) or True)
    asked.classes, asked.subjects, asked.seed = classes, 1, 11
    asked.output, asked.output_bytes = c.addressof(pixels), len(pixels)
    asked.progress = progress
    request = c.c_void_p()
    call("submit", engine, c.byref(asked), c.byref(request))
    call("request_wait", request, c.c_int64(-1))
    assert rows and all(image == 0 and done <= of == 4 for image, done, of in rows), rows
    assert len(set(bytes(pixels))) > 8

    needed = c.c_size_t()
    smalti.smalti_request_png(request, c.c_uint32(0), None, c.c_size_t(0), c.byref(needed))
    png = c.create_string_buffer(needed.value)
    call("request_png", request, c.c_uint32(0), png, needed, None)
    assert decode(png.raw) == bytes(pixels), "the PNG shows other pixels"
    call("request_close", request)
    call("engine_close", engine)
    try:
        call("submit", engine, c.byref(asked), c.byref(request))
    except RuntimeError as error:
        assert "closed" in str(error), error
    else:
        raise AssertionError("a closed engine took a request")
    print("all is well")


def decode(png: bytes) -> bytes:
    """The pixels of an 8-bit RGB PNG."""
    data, at = b"", 8
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        if kind == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    raw, stride = zlib.decompress(data), 3 * SIDE
    out, above = b"", bytes(stride)
    for y in range(SIDE):
        method, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1 :][:stride])
        for x in range(stride):
            left, up, corner = (line[x - 3], above[x], above[x - 3]) if x >= 3 else (0, above[x], 0)
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda value: abs(guess - value))
            line[x] = (line[x] + (0, left, up, (left + up) // 2, paeth)[method]) & 255
        above = bytes(line)
        out += above
    return out


main(*sys.argv[1:])
