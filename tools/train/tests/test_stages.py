"""Every stage runs a few steps on tiny sizes, survives a kill, and exports what others load and smalti draws with."""

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from train import stage as stages
from train.__main__ import main
from train.gpt import GPTConfig, Transformer
from train.presets import PRESETS, STAGES
from train.scenes import CLASS_NAMES
from train.t5 import T5Encoder
from train.tokenizer import train_tokenizer
from train.vq import VQModel

torch._dynamo.config.disable = True  # fusing takes a minute a stage

OPTIONS = ["--preset", "tiny", "--device", "cpu", "--threads", "1", "--samples", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of two steps a stage."""
    out = tmp_path_factory.mktemp("run")
    main(["all", "--steps", "2", "--out", str(out), *OPTIONS])
    return out


def test_all_stages_leave_their_files(run: Path) -> None:
    for name in STAGES:
        assert torch.load(run / f"{name}.pt", weights_only=True)["steps"] == 2
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((run / "evaluation.json").read_text())
    assert 0 <= figures["c2i"]["class"] <= 1 and figures["tokenizer"]["psnr"] > 0


def names(weights: dict[str, torch.Tensor]) -> set[str]:
    """Tensor names, with any number of a layer."""
    return {re.sub(r"\d+", "N", name) for name in weights}


def test_checkpoints_are_llamagen_s(run: Path) -> None:
    # Beside those that LlamaGen's own code wrote.
    golden = Path(__file__).parents[3] / "tests" / "golden"
    for name, key, theirs in (("c2i", "model", "c2i/gpt"), ("t2i", "module", "t2i/gpt"), ("vq", "model", "vq16/vq")):
        ours = names(torch.load(run / "export" / "pt" / f"{name}.pt", weights_only=True)["model"])
        expected = names(torch.load(golden / f"{theirs}.pt", weights_only=True)[key])
        if name == "vq":
            # Its levels are all of one width.
            ours = {name for name in ours if "nin_shortcut" not in name}
            assert ours <= expected, ours - expected
        else:
            assert ours == expected, ours ^ expected
    state = torch.load(run / "export" / "pt" / "c2i.pt", weights_only=True)
    model = Transformer(GPTConfig(**state["config"]))
    model.load_state_dict(state["model"], strict=True)
    assert state["class_names"] == list(CLASS_NAMES)
    assert state["model"]["cls_embedding.embedding_table.weight"].shape == (len(CLASS_NAMES) + 1, 64)
    text = torch.load(run / "export" / "pt" / "t2i.pt", weights_only=True)["model"]
    assert text["cls_embedding.uncond_embedding"].shape == (120, 32)


def test_the_shipped_form_is_bf16_with_names(run: Path) -> None:
    demo = run / "export" / "demo"
    weights = load_file(demo / "vq.safetensors")
    assert all(w.dtype == torch.bfloat16 for w in weights.values())
    assert "quantize.codebook_used" not in weights
    with safe_open(demo / "c2i.safetensors", "pt") as file:
        about = file.metadata()
    assert json.loads(about["class_names"]) == list(CLASS_NAMES)
    assert about["model_type"] == "c2i" and about["n_head"] == "1" and about["image_size"] == "64"
    assert about["cfg_scale"] == "2.0" and about["top_k"] == "8"
    config = json.loads((demo / "t5" / "config.json").read_text())
    assert config["feed_forward_proj"] == "gated-gelu"
    assert load_file(demo / "t5" / "model.safetensors")["shared.weight"].shape == (
        config["vocab_size"],
        config["d_model"],
    )


@pytest.mark.parametrize("form", ["pt", "demo"])
def test_smalti_draws_with_what_was_trained(run: Path, tmp_path: Path, form: str) -> None:
    """The program is `SMALTI`, by default what `cargo build --release` leaves."""
    program = os.environ.get("SMALTI", str(Path(__file__).parents[3] / "target" / "release" / "smalti"))
    suffix = "pt" if form == "pt" else "safetensors"
    vq, c2i, t2i = (str(run / "export" / form / f"{name}.{suffix}") for name in ("vq", "c2i", "t2i"))
    t5 = str(run / "export" / "demo" / "t5")
    options = ["--device", "cpu", "--image-size", "64", "--vq-ckpt", vq]
    for subject in (
        ["--class", "3", "--gpt-ckpt", c2i, "--n-head", "1"],
        ["a red fish", "--gpt-ckpt", t2i, "--n-head", "1", "--t5-path", t5],
    ):
        path = tmp_path / "picture.png"
        subprocess.run([program, "generate", *subject, *options, "--output", path], check=True)
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()
    subprocess.run([program, "convert", c2i, tmp_path / "converted.safetensors", "--n-head", "1"], check=True)
    assert names(load_file(tmp_path / "converted.safetensors")) == names(
        torch.load(run / "export" / "pt" / "c2i.pt", weights_only=True)["model"]
    )


@pytest.mark.parametrize("name", ["c2i", "t2i-2"])
def test_a_killed_stage_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(stages, "SAVE_SECONDS", 0.0)
    set_lr = stages.Stage.set_lr

    def die(self: stages.Stage) -> None:
        if self.steps == 4:
            raise KeyboardInterrupt
        set_lr(self)

    with monkeypatch.context() as patch:
        patch.setattr(stages.Stage, "set_lr", die)
        with pytest.raises(KeyboardInterrupt):
            main([name, "--steps", "6", "--out", str(run), *OPTIONS])
    killed = torch.load(run / f"{name}.pt", weights_only=True)
    assert killed["steps"] == 4
    main([name, "--steps", "6", "--out", str(run), *OPTIONS])
    state = torch.load(run / f"{name}.pt", weights_only=True)
    assert state["steps"] == 6 and state["seconds"] > killed["seconds"] and state["drawn"] > killed["drawn"]
    assert not list(run.glob("*.part"))
    old = {key: value for key, value in state.items() if key != "model"}
    torch.save(old, run / f"{name}.pt")
    with pytest.raises(SystemExit, match=r"expected \['model'\]"):
        main([name, "--steps", "8", "--out", str(run), *OPTIONS])
    torch.save(state, run / f"{name}.pt")


def test_a_kill_loses_less_than_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own: a step takes seven seconds, a grid thirty."""
    now, saves = [0.0], [0.0]
    update_ema, save, save_png = stages.Stage.update_ema, stages.Stage.save, stages.save_png

    def spend(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(stages.Stage, "update_ema", lambda self: (spend(7), update_ema(self)))
    monkeypatch.setattr(stages.Stage, "save", lambda self: (saves.append(now[0]), save(self)))
    monkeypatch.setattr(stages, "save_png", lambda *arguments: (spend(30), save_png(*arguments)))
    main(["eye", "--steps", "150", "--out", str(tmp_path), *OPTIONS])
    assert now[0] > 1000
    assert max(b - a for a, b in zip(saves, [*saves[1:], now[0]], strict=True)) < 60


def test_what_ships_is_small() -> None:
    for preset in PRESETS.values():
        assert sum(recipe.share for recipe in preset.recipes.values()) == pytest.approx(1)
        t5 = replace(preset.t5, vocab_size=train_tokenizer(captions_count=4096).get_vocab_size())
        models = (VQModel(preset.vq), Transformer(preset.c2i), Transformer(preset.t2i), T5Encoder(t5))
        assert sum(2 * weight.numel() for model in models for weight in model.state_dict().values()) < 16e6


def test_time_bounds_a_stage(run: Path) -> None:
    main(["eye", "--minutes", "0.01", "--out", str(run), *OPTIONS])
    assert torch.load(run / "eye.pt", weights_only=True)["seconds"] < 10
