"""`fastnets doctor`: what this machine has, and what to install for what it lacks."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastnets.cli.options import Json
from fastnets.cli.show import print_fields, print_json, print_table
from fastnets.machine import cpu_model

# distribution: (module, extra of fastnets that brings it, what it is for)
PACKAGES = {
    "tifffile": ("tifffile", "slide", "TIFF, SVS, OME-TIFF"),
    "imagecodecs": ("imagecodecs", "slide", "JPEG, JPEG 2000 and LZW inside TIFF"),
    "openslide-python": ("openslide", "slide", "NDPI, MRXS, SCN, BIF, VMS"),
    "contourpy": ("contourpy", "slide", "GeoJSON outlines"),
    "shapely": ("shapely", "slide", "GeoJSON polygons"),
    "nibabel": ("nibabel", "volume", "NIfTI"),
    "scikit-image": ("skimage", "volume", "resizing of volumes"),
    "huggingface_hub": ("huggingface_hub", "hub", "weights named hf-hub:…"),
}


def doctor(*, json: Json = False) -> None:
    """Show what this machine has, and what to install for what it lacks.

    Paste the output into a bug report. The instruction set is chosen from the CPU; FASTNETS_ISA=avx2 (or
    another level that is shown as available) forces one.

    For example:

        fastnets doctor
        FASTNETS_ISA=avx2 fastnets doctor
        fastnets doctor --json
    """
    facts = {**_software(), **_hardware(), "packages": [_package(name) for name in PACKAGES]}
    if json:
        print_json(facts)
        return
    _print(facts)


def _software() -> dict[str, Any]:
    import torch

    from fastnets import _C

    return {
        "fastnets": version("fastnets"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "isa_available": _C.available_isas(),
        "isa_active": _C.active_isa(),
        "FASTNETS_ISA": os.environ.get("FASTNETS_ISA"),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "libgomp": _libgomps(),
    }


def _hardware() -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cpu": cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_bytes": int(memory.total),
        "ram_free_bytes": int(memory.available),
        "gpus": _gpus(),
        "triton": _version("triton"),
    }


def _libgomps() -> list[str] | None:
    """The OpenMP runtimes in this process; None where the system does not tell. Two of them fight for the cores."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    paths = (line.rpartition(" ")[2] for line in maps.read_text(encoding="utf-8").splitlines())
    return sorted({path for path in paths if "libgomp" in path})


def _gpus() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        {"name": gpu.name, "memory_bytes": int(gpu.total_memory), "capability": f"{gpu.major}.{gpu.minor}"}
        for gpu in found
    ]


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _package(name: str) -> dict[str, Any]:
    """A package with its version, and what to do where it is missing or cannot be loaded."""
    module, extra, purpose = PACKAGES[name]
    found = {"name": name, "purpose": purpose, "version": _version(name), "problem": None, "install": None}
    try:
        import_module(module)
    except Exception as error:  # a native library that is absent or broken raises what it likes
        installed = found["version"] is not None
        found["problem"] = f"cannot be loaded: {' '.join(str(error).split())}" if installed else "missing"
        found["install"] = f"pip install 'fastnets[{extra}]'"
    return found


def _print(facts: dict[str, Any]) -> None:
    from fastnets.tiling.memory import format_bytes

    forced = f" (forced by FASTNETS_ISA={facts['FASTNETS_ISA']})" if facts["FASTNETS_ISA"] else ""
    libgomp = facts["libgomp"]
    gpus = [f"{g['name']}, {format_bytes(g['memory_bytes'])}, sm {g['capability']}" for g in facts["gpus"]]
    fields = {
        "fastnets": f"{facts['fastnets']}, Python {facts['python']}",
        "platform": facts["platform"],
        "CPU": facts["cpu"],
        "cores": f"{facts['cores']} ({facts['logical_cores']} logical, {facts['usable_cores']} usable here)",
        "instruction set": f"{facts['isa_active']}{forced}, of {', '.join(facts['isa_available'])}",
        "memory": f"{format_bytes(facts['ram_bytes'])}, {format_bytes(facts['ram_free_bytes'])} free",
        "torch": f"{facts['torch']}, {facts['torch_threads']} threads",
        "OpenMP": "" if libgomp is None else _openmp(libgomp),
        "GPU": "; ".join(gpus) or "none that torch can use",
        "triton": facts["triton"] or "not installed (only GPUs need it)",
    }
    print_fields(fields)
    packages = facts["packages"]
    rows = [(p["name"], p["version"] or "-", p["purpose"], p["problem"] or "ok") for p in packages]
    print_table(("package", "version", "for", "state"), rows)
    for command in sorted({p["install"] for p in packages if p["install"]}):
        print(f"for what is missing: {command}")


def _openmp(libgomp: list[str]) -> str:
    if len(libgomp) == 1:
        return "1 libgomp, as it should be"
    return f"{len(libgomp)} copies of libgomp, expected 1: import torch before fastnets' kernels ({', '.join(libgomp)})"
