"""Memory budgets: parsing, the estimate behind them, and a run that stays under its limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fastnets.errors import InputError
from fastnets.tiling.infer import make_plan
from fastnets.tiling.memory import FIRST_CALL, PeakMemory, format_bytes, parse_bytes
from fastnets.tiling.trace import peak_bytes, trace

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("text", "count"),
    [("500MB", 500_000_000), ("1.5 GiB", 1_610_612_736), ("2g", 2_000_000_000), ("4096", 4096), (7, 7)],
)
def test_sizes_are_parsed(text: str | int, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "lots", "5 parsecs", "-3MB", "1e9"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a size: write 500MB"):
        parse_bytes(text)


def test_sizes_are_shown_as_they_are_parsed() -> None:
    assert [format_bytes(n) for n in (512, 2_500, 500_000_000, 1_500_000_000)] == [
        "512 B",
        "2.5 kB",
        "500.0 MB",
        "1.5 GB",
    ]


def test_peak_of_a_chain_counts_two_tensors_and_the_reordered_copies() -> None:
    layers = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(5)]
    one = 4 * 64 * 64 * 4
    assert peak_bytes(trace(nn.Sequential(*layers).eval(), (1, 4, 64, 64))) == 4 * one  # input, output, and both again


def test_a_skip_stays_alive_until_it_is_read() -> None:
    class Skip(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + 1
            z = y.relu().sigmoid().tanh()
            return torch.cat([y, z], 1)

    one = 2 * 8 * 8 * 4
    # x and y live with two links of the chain; then y, z and the joined tensor.
    assert peak_bytes(trace(Skip().eval(), (1, 2, 8, 8))) == 4 * one


def _in_a_fresh_process(code: str, *arguments: str) -> str:
    """What `code` prints where nothing else has touched the heap. -P: the installed package, not the folder."""
    done = subprocess.run([sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("size", [512, 1024])
def test_the_estimate_covers_a_real_call(size: int) -> None:
    code = (
        "import sys, torch\n"
        "from fastnets.models import create_model\n"
        "from fastnets.tiling.infer import make_plan\n"
        "from fastnets.tiling.memory import FIRST_CALL, PeakMemory\n"
        "size = int(sys.argv[1])\n"
        "network = create_model('nuclei_demo', pretrained=True)\n"
        "plan = make_plan(network, (3, size, size), tile=size)\n"
        "image = torch.rand(1, 3, size, size).contiguous(memory_format=torch.channels_last)\n"
        "with torch.inference_mode(), PeakMemory() as memory:\n"
        "    network(image)\n"
        "print(memory.peak - memory.start, plan.tile_bytes + FIRST_CALL)\n"
    )
    growth, estimate = map(int, _in_a_fresh_process(code, str(size)).split())
    assert growth <= estimate
    assert estimate <= 4 * growth


def test_the_budget_chooses_the_tile() -> None:
    network = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))).eval()
    with PeakMemory() as memory:
        pass
    sides = []
    for extra in (20_000_000, 60_000_000, 200_000_000):
        plan = make_plan(network, (8, 4000, 4000), max_ram=memory.peak + extra + FIRST_CALL + 10**8, reserve=10**8)
        assert plan.tile_bytes <= extra + 5_000_000  # what this process allocates between the two readings
        sides.append(plan.crop_shape[0])
    assert sides == sorted(set(sides))
    with pytest.raises(InputError, match=r"max_ram=.* is below what the process needs before any tile"):
        make_plan(network, (8, 4000, 4000), max_ram="10MB")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc/self/status")
@pytest.mark.parametrize("engine", ["torch", "fastnets"])
def test_a_slide_run_stays_under_500_megabytes(tmp_path: Path, engine: str) -> None:
    # torch.export imports Triton where it is installed, for 110 MB; it is needed on GPUs only.
    code = (
        "import sys\n"
        "sys.modules['triton'] = None\n"
        "from fastnets.cli import main\n"
        "from fastnets.tiling.memory import PeakMemory\n"
        "with PeakMemory() as memory:\n"
        "    assert main(sys.argv[1:]) == 0\n"
        "print('PEAK', memory.peak)\n"
    )
    command = ["predict", "-i", str(DATA / "cmu_small_region.svs"), "-o", str(tmp_path), "-m", "nuclei_demo"]
    peak = int(_in_a_fresh_process(code, *command, "--max-ram", "500MB", "--engine", engine).rsplit("PEAK", 1)[1])
    print(f"peak memory {peak / 1e6:.0f} MB")
    assert peak <= 500_000_000
