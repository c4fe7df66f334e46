"""Networks of other packages, as they are: how near optimize() comes to torch in float64, and its time beside others'.

    python bench/others.py [--threads 2] [--only resnet] [--minutes 30]

torch runs eagerly on channels-last images. Each network has a process of its own, in which ours and torch take turns,
with OpenVINO in another process, if it is installed and takes the network.
Writes bench/results/<processor>/others_fp32_<threads>threads_<isa>.csv, whose rows of other networks stay as they are.
`pip install timm torchvision segmentation-models-pytorch monai einops`: networks of missing packages are left out.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from common import provenance, result_file, spread, update
from model_peers import openvino
from model_zoo import from_torchvision
from rich.progress import track
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fastnets import _C, optimize

TURNS, SECONDS = 5, 0.1  # of each turn, at least one call

TORCHVISION = """alexnet squeezenet1_1 mnasnet1_0 mobilenet_v3_large mobilenet_v3_small efficientnet_b0
efficientnet_v2_s regnet_y_800mf regnet_x_1_6gf resnext50_32x4d wide_resnet50_2 shufflenet_v2_x1_0 inception_v3
convnext_tiny vit_b_16 swin_t swin_v2_t maxvit_t deeplabv3_resnet50 deeplabv3_mobilenet_v3_large
lraspp_mobilenet_v3_large fcn_resnet50 r3d_18 mc3_18 r2plus1d_18"""
TIMM = """ghostnet_100 hardcorenas_a mixnet_s res2net50_26w_4s resnest14d seresnet50 ecaresnet50d skresnet18
cspresnet50 cspdarknet53 darknet53 dla34 hrnet_w18_small dpn68 selecsls42b tresnet_m vovnet39a ese_vovnet19b_dw
repvgg_a2 nfnet_l0 dm_nfnet_f0 nf_resnet50 xception65 inception_v4 resnetv2_50 gcresnet33ts bat_resnext26ts
lambda_resnet26rpt_256 botnet26t_256 halonet26t convnextv2_nano convmixer_768_32 regnetz_b16 mobileone_s1 fastvit_t8
efficientformer_l1 edgenext_small mobilevit_s lcnet_100 tf_efficientnet_lite0 tf_efficientnetv2_b0
mobilenetv4_conv_small rexnet_100 repghostnet_100 tinynet_a fbnetc_100 spnasnet_100 semnasnet_100 levit_128
poolformer_s12 focalnet_tiny_srf inception_next_tiny starnet_s1 hgnetv2_b0 rdnet_tiny legacy_senet154 resnetaa50
resnet50_gn resnet26t haloregnetz_b pit_s_224 mixer_s16_224 deit_tiny_patch16_224"""
SEGMENTATION = """Unet/resnet34 UnetPlusPlus/resnet34 MAnet/resnet34 Linknet/resnet34 FPN/resnet34 PSPNet/resnet34
PAN/resnet34 DeepLabV3/resnet34 DeepLabV3Plus/resnet34 UPerNet/resnet34 Segformer/resnet34 Unet/efficientnet-b0
Unet/mobilenet_v2 Unet/densenet121 Unet/vgg16_bn Unet/xception Unet/se_resnet50 Unet/dpn68 Unet/mit_b0"""
MONAI: dict[str, tuple[tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "SegResNet": ((3, 16, 1, 2), {}, (1, 1, 64, 64, 64)),
    "SegResNetDS": ((3, 16, 1, 2), {}, (1, 1, 64, 64, 64)),
    "VNet": ((3, 1, 2), {}, (1, 1, 64, 64, 64)),
    "AttentionUnet": ((3, 1, 2, (16, 32, 64, 128), (2, 2, 2)), {}, (1, 1, 64, 64, 64)),
    "BasicUNet": ((3, 1, 2), {}, (1, 1, 64, 64, 64)),
    "BasicUNetPlusPlus": ((2, 1, 2), {}, (1, 1, 128, 128)),
    "HighResNet": ((3, 1, 2), {}, (1, 1, 48, 48, 48)),
    "DynUNet": ((3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3), {}, (1, 1, 64, 64, 64)),
    "UNETR": ((1, 2, (64, 64, 64)), {}, (1, 1, 64, 64, 64)),
    "SwinUNETR": ((1, 2), {"feature_size": 24}, (1, 1, 64, 64, 64)),
    "DenseNet121": ((3, 1, 2), {}, (1, 1, 64, 64, 64)),
    "AHNet": (
        (),
        {"spatial_dims": 3, "out_channels": 2, "psp_block_num": 0, "upsample_mode": "trilinear"},
        (1, 1, 64, 64, 64),
    ),
    "AutoEncoder": ((3, 1, 1, (16, 32, 64), (2, 2, 2)), {}, (1, 1, 64, 64, 64)),
    "RegUNet": ((3, 1, 8, 3), {}, (1, 1, 64, 64, 64)),
    "LocalNet": ((3, 1, 8, (0, 1, 2, 3), "zeros", None, 3), {}, (1, 1, 64, 64, 64)),
}

Built = tuple[nn.Module, tuple[int, ...]]


def _torchvision(name: str) -> Built:
    segments = name.startswith(("deeplabv3", "fcn", "lraspp"))
    model = from_torchvision(name, **({"weights_backbone": None} if segments else {}))
    video = name.endswith("_18")
    return model, (1, 3, 16, 112, 112) if video else (1, 3, 299, 299) if "inception" in name else (1, 3, 224, 224)


def _timm(name: str) -> Built:
    from_torchvision("alexnet")  # timm imports torchvision, too
    import timm

    model = timm.create_model(name)
    return model, (1, *model.pretrained_cfg["input_size"])


def _segmentation(name: str) -> Built:
    from_torchvision("alexnet")
    import segmentation_models_pytorch

    kind, encoder = name.split("/")
    model = getattr(segmentation_models_pytorch, kind)(encoder, encoder_weights=None, classes=3)
    return model, (1, 3, 256, 256)


def _monai(name: str) -> Built:
    import monai.networks.nets

    positional, named, shape = MONAI[name]
    return getattr(monai.networks.nets, name)(*positional, **named), shape


PACKAGES: dict[str, tuple[Callable[[str], Built], list[str]]] = {
    "torchvision": (_torchvision, TORCHVISION.split()),
    "timm": (_timm, TIMM.split()),
    "segmentation_models_pytorch": (_segmentation, SEGMENTATION.split()),
    "monai": (_monai, list(MONAI)),
}


def build(package: str, name: str) -> tuple[nn.Module, Tensor]:
    """In eval mode. What starts at 0, as gates do, gets values; statistics of batch norms are those of no batch."""
    torch.manual_seed(0)
    model, shape = PACKAGES[package][0](name)
    with torch.no_grad():
        for key, buffer in model.named_buffers():
            if key.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
            if key.endswith("running_mean"):
                buffer.normal_(0, 0.1)
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return model.eval(), torch.randn(shape)


def error(actual: Any, expected: Any) -> float:
    """The largest difference over the largest value, of the worst output."""
    pairs = zip(tree_leaves(actual), tree_leaves(expected), strict=True)
    return max(float((a.double() - e).abs().max() / e.abs().max()) for a, e in pairs if isinstance(e, Tensor))


def turn(run: Callable[[], Any]) -> float:
    """Milliseconds of a call, the median."""
    calls, end = [], time.perf_counter() + SECONDS
    while not calls or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        calls.append(1e3 * (time.perf_counter() - start))
    return statistics.median(calls)


def times(turns: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each turn gives, after a pause in which the others' threads fall asleep."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(TURNS + 1):
        for name, take in turns.items():
            time.sleep(0.05)
            taken = take()
            if number:  # the first one fills caches
                found[name].append(taken)
    return found


class OpenVino:
    """The network in OpenVINO, in a process that ends with it: it converts not all, and may crash."""

    def __init__(self, package: str, name: str, threads: int) -> None:
        command = [sys.executable, __file__, "--threads", str(threads), "--openvino", package, name]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def turn(self) -> float:
        """Milliseconds of a call; NaN where there is no such process."""
        try:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write("turn\n")
            self.process.stdin.flush()
            return float(self.process.stdout.readline() or "nan")
        except BrokenPipeError:
            return math.nan

    @staticmethod
    def serve(package: str, name: str, threads: int) -> None:
        """What the process does: a line for each line."""
        answers, sys.stdout = sys.stdout, sys.stderr  # others print to it
        with torch.inference_mode(False):
            model, x = build(package, name)
            network = SimpleNamespace(model=lambda: model, input=lambda: x)
            run, _ = openvino(network, threads, "fp32")  # type: ignore[arg-type]
        for _ in sys.stdin:
            print(turn(run), file=answers, flush=True)


@torch.inference_mode()
def measured(package: str, name: str, threads: int) -> dict[str, object]:
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # of what other packages say of each other
    with torch.inference_mode(False):
        model, x = build(package, name)
        exact = copy.deepcopy(model).double()
    expected, eager = exact(x.double()), model(x)
    ours = optimize(model, x)
    wrong, torch_wrong = error(ours(x), expected), error(eager, expected)
    share = ours.explain(runs=3).torch_share
    form = {4: torch.channels_last, 5: torch.channels_last_3d}[x.dim()]
    model, there = model.to(memory_format=form), x.to(memory_format=form)
    peer = OpenVino(package, name, threads) if importlib.util.find_spec("openvino") else None
    turns = {"ours": lambda: turn(lambda: ours(x)), "torch": lambda: turn(lambda: model(there))}
    found = times(turns if peer is None else turns | {"openvino": peer.turn})
    if peer is not None:
        peer.process.kill()
    mine, theirs = statistics.median(found["ours"]), statistics.median(found["torch"])
    third = statistics.median(found.get("openvino", [math.nan]))
    names = ["torch", "torchvision" if package == "torchvision" else package.replace("_", "-")]
    return {
        **provenance(threads, *names, *([] if math.isnan(third) else ["openvino"])),
        "isa": _C.active_isa(),
        "package": package,
        "network": name,
        "shape": "x".join(map(str, x.shape)),
        "ours_ms": round(mine, 3),
        "ours_spread": round(spread(found["ours"]), 3),
        "torch_ms": round(theirs, 3),
        "torch_spread": round(spread(found["torch"]), 3),
        "torch_ratio": round(theirs / mine, 2),
        "openvino_ms": "" if math.isnan(third) else round(third, 3),
        "openvino_spread": "" if math.isnan(third) else round(spread(found["openvino"]), 3),
        "openvino_ratio": "" if math.isnan(third) else round(third / mine, 2),
        "error": f"{wrong:.1e}",
        "torch_error": f"{torch_wrong:.1e}",
        "torch_share": round(share, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="networks whose package/name contains this")
    parser.add_argument("--minutes", type=float, default=60, help="start no network after this time")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--openvino", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.openvino:
        OpenVino.serve(*args.openvino, args.threads)
        return
    if args.one:
        print(json.dumps(measured(*args.one, args.threads)))
        return
    present = {package: found for package, found in PACKAGES.items() if importlib.util.find_spec(package)}
    chosen = [(p, name) for p, (_, names) in present.items() for name in names if args.only in f"{p}/{name}"]
    target = result_file(f"others_fp32_{args.threads}threads_{_C.active_isa()}.csv")
    end = time.monotonic() + 60 * args.minutes
    for package, name in track(chosen, "networks"):
        if time.monotonic() > end:
            sys.exit(f"{args.minutes:g} minutes are over before {package}/{name}")
        command = [sys.executable, __file__, "--threads", str(args.threads), "--one", package, name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            print(f"{package}/{name} failed: {last}", file=sys.stderr)
            continue
        update(target, [json.loads(done.stdout.splitlines()[-1])], "package", "network")


if __name__ == "__main__":
    main()
