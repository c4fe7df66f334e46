"""The command line as people and programs use it: what each command prints where, and its files."""

from __future__ import annotations

import io
import json
import re
import sys
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from io_helpers import HEAD, PICTURE, SLIDE
from PIL import Image
from rich.console import Console

from fastnets.cli import main, progress
from fastnets.cli.doctor import PACKAGES
from fastnets.io import WRITERS
from fastnets.models import get_entry, list_models

COMMANDS = ("predict", "verify", "explain", "models", "info", "doctor")


@pytest.fixture(autouse=True)
def _warnings_stay_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command hides the warnings of libraries unless Python was asked to show them."""
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def tissue(tmp_path: Path) -> Path:
    """200 × 300 pixels of 0.5 µm with dark discs: a TIFF that says its resolution."""
    y, x = np.mgrid[:200, :300]
    image = np.full((200, 300, 3), (235, 200, 220), np.uint8)
    for row in range(30, 200, 50):
        for column in range(30, 300, 50):
            image[(y - row) ** 2 + (x - column) ** 2 < 64] = (90, 60, 140)
    path = tmp_path / "tissue.tif"
    tifffile.imwrite(path, image, photometric="rgb", resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    return path


def pictures(folder: Path, *names: str) -> list[Path]:
    """Small pictures without a resolution."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        noise = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
    return [folder / name for name in names]


def document(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """What a --json run prints: one document on stdout, nothing else."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


# --- help, version, usage


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert len(re.findall(rf"^ (FASTNETS_ISA=\w+ )?fastnets {command}", out, re.MULTILINE)) >= 2
    assert "--json" in out
    assert err == ""


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0  # no command shows the help
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    main(["predict", "--help"])
    out = capsys.readouterr().out
    assert all(name in out for name in WRITERS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("fastnets")


# --- models, info, doctor


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in list_models())
    listed = document(capsys, "models", "brain*")
    assert [(m["name"], m["parameters"], m["dims"], m["ready"]) for m in listed] == [
        ("brain_unet3d", 171_465, [3], True)
    ]


def test_info_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    slide = document(capsys, "info", str(SLIDE))
    assert (slide["axes"], slide["shape"], slide["dtype"]) == ("YXC", [2967, 2220, 3], "uint8")
    assert (slide["spacing"], slide["unit"]) == ([0.499, 0.499], "µm")
    assert slide["spacing_tags"] == ["MPP in ImageDescription"]
    head = document(capsys, "info", str(HEAD))
    assert (head["shape"], head["spacing"], head["unit"]) == ([181, 217, 181], [1, 1, 1], "mm")
    assert main(["info", str(PICTURE)]) == 0
    assert "unknown: give it with --mpp, in µm" in capsys.readouterr().out


def test_info_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    brain = document(capsys, "info", "brain_unet3d")
    assert brain["receptive_field"]["size"] == [60, 60, 60]
    assert brain["receptive_field"]["inexact"] == []
    assert brain["recipe"]["size"] == [128, 128, 128]
    assert main(["info", "nuclei_demo"]) == 0
    out = capsys.readouterr().out
    assert "100 × 100, stride 1 × 1" in out
    assert "not a diagnostic network" in out


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = document(capsys, "doctor")
    assert facts["isa_active"] in facts["isa_available"]
    assert facts["ram_bytes"] > facts["ram_free_bytes"] > 0
    assert {p["name"] for p in facts["packages"]} == PACKAGES.keys()
    monkeypatch.setitem(PACKAGES, "unheard-of", ("fastnets_unheard_of", "slide", "nothing"))
    assert main(["doctor"]) == 0
    assert "for what is missing: pip install 'fastnets[slide]'\n" in capsys.readouterr().out


def test_doctor_names_the_extra_of_each_package() -> None:
    declared = "\n".join(requires("fastnets") or [])
    for name, (_, extra, _) in PACKAGES.items():
        assert re.search(rf"^{name}\b[^\n]*extra == .{extra}\b", declared, re.MULTILINE), name


# --- predict and verify


def test_predict(tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["predict", "-i", str(tissue), "-o", str(out), "-m", "nuclei_demo"]
    assert main([*command, "--json"]) == 0
    printed, err = capsys.readouterr()
    found = json.loads(printed)
    recipe = get_entry("nuclei_demo").recipe
    assert recipe is not None
    assert found["caution"] == recipe.caution
    assert recipe.caution in " ".join(err.split())
    (result,) = found["results"]
    assert result["files"].keys() == {"ome-tiff", "geojson", "png"}
    assert sorted(result["files"].values()) == sorted(str(p) for p in out.iterdir())
    assert result["pixels"] == 60_000
    assert result["stages"].keys() == {"plan", "read", "decode", "network", "merge", "write"}
    assert sum(result["classes"].values()) == pytest.approx(1)

    assert main([*command, "--overwrite", "--quiet", "--tile", "64", "--format", "png"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("png", "60,000 in", "Mpx/s", "peak memory", "network", "nucleus"))


def test_inputs_are_files_folders_and_patterns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loose = pictures(tmp_path, "a.png", "b [red].png")
    pictures(tmp_path / "folder", "c.png", "d.png")
    pictures(tmp_path / "more", "e.png", "f.png")
    patterns = [str(p) for p in loose] + [str(tmp_path / "folder"), str(tmp_path / "more" / "e*")]
    command = ["predict", "-i", *patterns, "-o", str(tmp_path / "out"), "-m", "nuclei_demo", "--mpp", "0.5"]
    assert main([*command, "--format", "png", "ome-zarr", "--json"]) == 0
    printed, err = capsys.readouterr()
    names = ["a.png", "b [red].png", "c.png", "d.png", "e.png"]
    assert [Path(r["source"]).name for r in json.loads(printed)["results"]] == names
    assert len(list((tmp_path / "out").iterdir())) == 2 * len(names)
    lines = [line for line in err.splitlines() if line.startswith("[")]
    assert [line.partition(" ")[0] for line in lines] == [f"[{n}/5]" for n in range(1, 6)]


def test_verify(tissue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", "-i", str(tissue), "-m", "nuclei_demo"]
    found = document(capsys, *command, "--size", "150")
    assert found["shape"] == [3, 150, 150]
    assert found["tiles"] > 1
    assert found["same"]
    assert found["relative"] <= 1e-5
    assert main([*command, "--tile", "96", "--tolerance=-1"]) == 1
    out, err = capsys.readouterr()
    assert "max |tiled − whole|" in out
    assert re.search("fastnets: error: .* above the tolerance -1\n", err)


def test_progress_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage fits one line of 100 columns."""
    monkeypatch.setenv("TERM", "xterm")
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100, markup=False, color_system=None)
    monkeypatch.setattr(progress, "stderr", lambda: terminal)
    with progress.RunProgress(1, caution="Beware.") as bars:
        report = bars.start(Path("a picture of [tissue] with quite a long name.tif"), 10**9, 2)
        for done in range(1001):
            report("network", done, 1000)
        bars._bars.refresh()
        for done in range(4):
            report("write", done, 3)
    assert isinstance(terminal.file, io.StringIO)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue())
    shown = [line.strip() for line in re.split("[\r\n]", plain) if line.strip()]
    assert "Beware." in shown
    assert any(re.search(r"1000/1000 .* tiles/s, .* Mpx/s network", line) for line in shown)
    assert re.search(r"✓ a picture of \[t….* 1000/1000 +done in", shown[-1])


def test_profile_shows_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "-m", "unet", "-s", "1,3,32,32", "--runs", "1"]) == 0
    assert "conv winograd" in capsys.readouterr().out
    assert main(["profile", "-m", "unet", "-s", "1,3,32,32", "--runs", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert sum(row["share"] for row in document["rows"]) == pytest.approx(1)
    assert main(["profile", "-m", "unet", "-s", "1,3"]) == 2
    assert "--shape 1,3" in capsys.readouterr().err
