"""A server process on the golden models, for the tests beside it."""

import contextlib
import pathlib
import subprocess
import time
import urllib.request

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


@contextlib.contextmanager
def serving(program, *args, image_size=64, gpt="c2i/gpt.pt"):
    """The address of a server that is ready; it must end well at SIGTERM."""
    command = [program, "serve", "--port", "0", "--device", "cpu", "--quiet", "--image-size", str(image_size)]
    command += ["--gpt-ckpt", str(GOLDEN / gpt), "--vq-ckpt", str(GOLDEN / "vq16/vq.pt"), *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()
        until = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(address + "/health"):
                    break
            except urllib.error.HTTPError:
                assert time.monotonic() < until, "it is not ready"
                time.sleep(0.01)
        yield address
        process.terminate()
        assert process.wait(120) == 0
    finally:
        process.kill()
