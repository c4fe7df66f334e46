"""What the command line cannot use: one line on stderr, an exit code, and nothing left behind."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from io_helpers import PICTURE, SLIDE, nib

from fastnets.cli import main
from fastnets.models import get_entry
from fastnets.models.registry import weights_path

SCRIPT = Path(sys.executable).with_name("fastnets")


def one_error(capsys: pytest.CaptureFixture[str], words: str) -> None:
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"fastnets: error: [^\n]+\n", err), err
    assert re.search(words, err, re.IGNORECASE), err


def nothing_in(folder: Path) -> None:
    assert not folder.exists() or not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predikt"], "unknown command .* did you mean .predict"),
        (["predict", "-i", "a.svs"], "--output requires an argument: see `fastnets predict --help`"),
        (["verify", "-i", "a", "-m", "b", "--size", "-5"], "--size. must be >= 1"),
        (["verify", "-i", "a", "-m", "b", "--tile", "x"], "--tile.*see `fastnets verify --help`"),
        (["predict", "-i", "a", "-o", "b", "-m", "c", "--mpp", "1,x"], "invalid value for --mpp"),
        (["models", "--bogus"], "--bogus"),
        (["models", "nothing"], "no model is named like 'nothing': try '[*]nothing[*]'"),
        (["info", "nucleii_demo"], "did you mean nuclei_demo"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    one_error(capsys, words)


def _text(path: Path) -> None:
    path.write_text("a note, not a slide\n" * 40)


def _half_a_slide(path: Path) -> None:
    path.write_bytes(SLIDE.read_bytes()[:900_000])


def _half_a_tiff(path: Path) -> None:
    tifffile.imwrite(path, np.ones((500, 500, 3), np.uint8), photometric="rgb")
    path.write_bytes(path.read_bytes()[:100_000])


def _series(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7, 3), np.uint8), np.eye(4)), path)


def _no_spacing(path: Path) -> None:
    data = bytearray(nib.Nifti1Image(np.zeros((5, 6, 7), np.uint8), np.eye(4)).to_bytes())
    data[80:84] = np.float32(np.nan).tobytes()  # pixdim[1]
    path.write_bytes(gzip.compress(data))


IMAGES: list[Any] = [
    ("a.svs", lambda path: None, "nuclei_demo", "no such file or folder: check the path"),
    ("a.svs", _text, "nuclei_demo", "not a TIFF"),
    ("a.svs", _half_a_slide, "nuclei_demo", "incomplete|truncated|damaged"),
    ("a.tif", _half_a_tiff, "nuclei_demo", "is truncated: its tiles need"),
    ("a.nii.gz", _no_spacing, "brain_unet3d", r"pixdim\[1\].* give the true one with --spacing"),
    ("a.nii.gz", _series, "brain_unet3d", "is 4D, of shape .* split the series"),
]


@pytest.mark.parametrize(("name", "make", "model", "words"), IMAGES)
def test_bad_image(
    name: str,
    make: Callable[[Path], None],
    model: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(tmp_path / name)
    out = tmp_path / "out"
    assert main(["predict", "-i", str(tmp_path / name), "-o", str(out), "-m", model]) == 2
    one_error(capsys, words)
    nothing_in(out)


OTHERS_WEIGHTS = weights_path(get_entry("brain_unet3d"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("-m nucleii_demo --mpp 0.5", "unknown model 'nucleii_demo': did you mean nuclei_demo"),
        (f"-m nuclei_demo --mpp 0.5 --weights {OTHERS_WEIGHTS}", "does not fit UNet .* missing from the file"),
        (f"-m nuclei_demo --mpp 0.5 --weights {PICTURE}", "neither a safetensors nor a torch file"),
        ("-m nuclei_demo", "does not say how large a pixel is .* give it with --mpp"),
        ("-m brain_unet3d", "has axes YXC .* takes volumes"),
        ("-m unet --mpp 0.5", "unet. has no recipe"),
        ("-m nuclei_demo --mpp 0.5 --max-ram lots", "max_ram='lots' is not a size: write 500MB"),
        ("-m nuclei_demo --mpp 0.5 --max-ram 1MB", "max_ram=1.0 MB is below .* raise it"),
        ("-m nuclei_demo --mpp 0.5 --tile 0", "--tile. must be >= 1"),
        ("-m nuclei_demo --mpp 0.5 --format bmp", "'bmp' is unknown: expected one of ome-tiff"),
        ("-m nuclei_demo --mpp 0.5,0.5,0.5", "expected one number above 0, or 2"),
    ],
)
def test_bad_option(arguments: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["predict", "-i", str(PICTURE), "-o", str(out), *arguments.split()]) == 2
    one_error(capsys, words)
    nothing_in(out)


def test_result_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", "-i", str(PICTURE), "-o", str(tmp_path), "-m", "nuclei_demo", "--mpp", "1", "--format", "png"]
    assert main(command) == 0
    (made,) = tmp_path.iterdir()
    before = made.stat()
    capsys.readouterr()
    assert main(command) == 2
    one_error(capsys, f"{re.escape(str(made))}: exists already: pass --overwrite")
    assert made.stat() == before


def test_output_below_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "out"
    assert main(["predict", "-i", str(PICTURE), "-o", str(out), "-m", "nuclei_demo", "--mpp", "0.5"]) == 2
    one_error(capsys, "cannot be written to")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes into read-only folders")
def test_read_only_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert main(["predict", "-i", str(PICTURE), "-o", str(tmp_path), "-m", "nuclei_demo", "--mpp", "0.5"]) == 2
    one_error(capsys, "cannot be written to")


def test_interrupt_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the last stage, after labels were stored."""

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("fastnets.pipeline.predict"), "write", interrupt)
    assert main(["predict", "-i", str(PICTURE), "-o", str(tmp_path), "-m", "nuclei_demo", "--mpp", "1"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("fastnets: interrupted")
    nothing_in(tmp_path)


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnets.models.list_models", lambda pattern: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["models"])


@pytest.mark.parametrize(("name", "make"), [("a.svs", _text), ("a.nii.gz", _no_spacing)])
def test_process(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    """The installed command: libraries that log or warn add no line of their own."""
    make(tmp_path / name)
    done = subprocess.run([SCRIPT, "info", tmp_path / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"fastnets: error: [^\n]+\n", done.stderr), done.stderr
