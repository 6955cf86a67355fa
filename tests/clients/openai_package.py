"""The server through OpenAI's own Python package: pictures, streams, errors, retries.

    python tests/clients/openai_package.py target/release/smalti
"""

import base64
import concurrent.futures
import struct
import sys

import openai

from server import serving


def size_of_png(b64):
    data = base64.b64decode(b64)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24])


def raises(kind, call, param, code):
    try:
        call()
    except kind as error:
        assert (error.param, error.code) == (param, code), (error.param, error.code)
        assert error.request_id.startswith("req-"), error.request_id
        return
    raise AssertionError(f"no {kind.__name__}")


def pictures(client):
    reply = client.images.generate(prompt="7", n=2, size="64x64", model="gpt", extra_body={"seed": 5, "cfg_scale": 2.0})
    assert [size_of_png(image.b64_json) for image in reply.data] == [(64, 64)] * 2
    assert reply.data[0].b64_json != reply.data[1].b64_json
    assert (reply.seed, reply.usage.total_tokens, reply.output_format) == (5, 2 + 32, "png")
    again = client.images.generate(prompt="7", n=2, extra_body={"seed": 5, "cfg_scale": 2.0})
    assert [image.b64_json for image in again.data] == [image.b64_json for image in reply.data]
    # What OpenAI's models take and these do not is passed over.
    client.images.generate(prompt="7", quality="high", moderation="low", background="opaque", user="me")
    assert client.models.list().data[0].id == "gpt" and client.models.retrieve("gpt").owned_by == "smalti"


def streams(client):
    whole = client.images.generate(prompt="7", extra_body={"seed": 5})
    events = list(client.images.generate(prompt="7", stream=True, partial_images=3, extra_body={"seed": 5}))
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 3 + ["image_generation.completed"], kinds
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]
    assert all(size_of_png(event.b64_json) == (64, 64) for event in events)
    assert events[-1].b64_json == whole.data[0].b64_json
    assert events[-1].usage.output_tokens == 16
    # A client that has seen enough.
    with client.images.generate(prompt="7", stream=True, partial_images=3) as stream:
        next(iter(stream))


def errors(client, address):
    generate = client.images.generate
    raises(openai.BadRequestError, lambda: generate(prompt="a boat"), "prompt", "invalid_value")
    raises(openai.BadRequestError, lambda: generate(prompt="7", size="1024x1024"), "size", "invalid_value")
    raises(openai.BadRequestError, lambda: generate(prompt="7", extra_body={"steps": 3}), "steps", "unknown_parameter")
    raises(openai.NotFoundError, lambda: generate(prompt="7", model="dall-e-3"), "model", "model_not_found")
    stranger = openai.OpenAI(base_url=address + "/v1", api_key="wrong", max_retries=0)
    raises(openai.AuthenticationError, lambda: stranger.images.generate(prompt="7"), None, "invalid_api_key")


def retries(address):
    """A full queue is told to a client that does not try again, and waited out by one that does."""

    def ask(tries):
        client = openai.OpenAI(base_url=address + "/v1", api_key="key", max_retries=tries)
        try:
            return len(client.images.generate(prompt="7", n=4).data)
        except openai.RateLimitError as error:
            assert error.code == "queue_full" and int(error.response.headers["retry-after"]) >= 1
            return 0

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        once = list(pool.map(ask, [0] * 12))
        assert 0 in once and 4 in once, once
        assert list(pool.map(ask, [100] * 8)) == [4] * 8


def main(program):
    with serving(program, "--api-key", "key") as address:
        client = openai.OpenAI(base_url=address + "/v1", api_key="key", max_retries=0)
        pictures(client)
        streams(client)
        errors(client, address)
    with serving(program, "--batch-size", "1", "--queue", "1", image_size=256) as address:
        retries(address)
    print(f"openai {openai.__version__}: pictures, streams, errors and retries are as they should be")


if __name__ == "__main__":
    main(sys.argv[1])
