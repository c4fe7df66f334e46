"""Key maps of classification networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastnets.models.layouts import Own, State


def torchvision(state: State, own: Own) -> State:
    """Densely connected networks as saved before 2018 (norm.1 for norm1); no auxiliary heads where there are none."""
    state = {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", k): v for k, v in state.items()}
    return {k: v for k, v in state.items() if k in own or not re.match(r"aux[12]\.", k)}


def timm(state: State, own: Own) -> State:
    """VGG's linear layers, which are convolutions there, and the blocks of MobileNetV2 and EfficientNet-Lite0."""
    state = _renamed(
        state, {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
    )
    if "conv_head.weight" in state:
        state = _renamed(state, _inverted_residuals(state, own))
    return _reshaped(state, own)


def cadene(state: State, own: Own) -> State:
    """pretrained-models.pytorch: linear layers are called linear0, linear1 and last_linear, features _features."""
    ours = [name for name in _bases(own) if own[f"{name}.weight"].ndim == 2]
    theirs = [name for name in ("linear0", "linear1", "last_linear") if f"{name}.weight" in state]
    heads = dict(zip(theirs, ours[-len(theirs) :], strict=False)) if theirs else {}
    return _renamed(state, {"_features": "features", **heads})


def monai(state: State, own: Own) -> State:
    """DenseNets' layers and classifier; the shortcuts of ResNets, whose biases go into the norms behind them."""
    state = {re.sub(r"(denselayer\d+)\.layers\.", r"\1.", k): v for k, v in state.items()}
    state = _renamed(state, {"class_layers.out": "classifier"})
    for name in [k for k in state if k.endswith("downsample.0.bias")]:
        _fold_bias(state, name, name.replace("0.bias", "1.running_mean"))
    return state


def caffe(state: State, own: Own) -> State:
    """Caffe's layer names, as converters write them: conv1_1.weight, inception_3a/1x1.weight, res2a_branch2b.weight.

    AlexNet, VGG and their CAM networks, GoogLeNet of the paper, and ResNets with stride_in_1x1=True.
    """
    theirs = _bases(state)
    if any(name.startswith("inception_") for name in theirs):
        names = {name: _googlenet(name) for name in theirs}
    elif any(name.startswith("res2a") for name in theirs):
        names = {name: _resnet(name) for name in {k.rpartition(".")[0] for k in state}}
    else:
        weights = sorted(theirs, key=lambda name: (name.startswith("CAM"), name))
        names = dict(zip(weights, _bases(own), strict=False))
    state = _renamed(state, names)
    if "conv1.bias" in state and "conv1.bias" not in own:  # ResNet-50 alone has one
        _fold_bias(state, "conv1.bias", "bn1.running_mean")
    return _reshaped(state, own)


def _googlenet(name: str) -> str:
    """inception_3a/3x3_reduce → inception3a.branch2.0.conv, and so on."""
    module, _, layer = name.partition("/")
    if module.startswith("inception_"):
        branches = {
            "1x1": "branch1",
            "3x3_reduce": "branch2.0",
            "3x3": "branch2.1",
            "5x5_reduce": "branch3.0",
            "5x5": "branch3.1",
            "pool_proj": "branch4.1",
        }
        return f"inception{module[10:]}.{branches.get(layer, layer)}.conv"
    fixed = {
        "conv1/7x7_s2": "conv1.conv",
        "conv2/3x3_reduce": "conv2.conv",
        "conv2/3x3": "conv3.conv",
        "loss3/classifier": "fc",
        "CAM_conv": "CAM_conv.0",
        "CAM_fc": "CAM_fc",
    }
    heads = {"conv": "conv.conv", "fc": "fc1", "classifier": "fc2"}
    if module in ("loss1", "loss2"):
        return f"aux{module[4]}.{heads.get(layer, layer)}"
    return fixed.get(name, name)


def _resnet(name: str) -> str:
    """bn3b_branch2a → layer2.1.bn1, and so on. A block is a letter, or in deep stages b and a number."""
    fixed = {"conv1": "conv1", "bn_conv1": "bn1", "scale_conv1": "bn1", "fc1000": "fc"}
    match = re.fullmatch(r"(res|bn|scale)(\d)([a-z])(\d*)_branch(1|2[abc])", name)
    if match is None:
        return fixed.get(name, name)
    kind, stage, letter, number, branch = match.groups()
    block = f"layer{int(stage) - 1}.{int(number) if number else ord(letter) - ord('a')}"
    if branch == "1":
        return f"{block}.downsample.{int(kind != 'res')}"
    return f"{block}.{'conv' if kind == 'res' else 'bn'}{' abc'.index(branch[1])}"


# timm's layers of an inverted residual, without and with expansion, and the ends of the network; then ours.
_TIMM = ("conv_dw bn1 conv_pw bn2", "conv_pw bn1 conv_dw bn2 conv_pwl bn3", "conv_stem bn1 conv_head bn2 classifier")
_LITE0 = (
    "_depthwise_conv _bn1 _project_conv _bn2",
    "_expand_conv _bn0 _depthwise_conv _bn1 _project_conv _bn2",
    "_conv_stem _bn0 _conv_head _bn1 _fc",
)
_MOBILENET_V2 = (
    "conv.0.0 conv.0.1 conv.1 conv.2",
    "conv.0.0 conv.0.1 conv.1.0 conv.1.1 conv.2 conv.3",
    "features.0.0 features.0.1 features.18.0 features.18.1 classifier.1",
)


def _inverted_residuals(state: State, own: Own) -> dict[str, str]:
    """timm's name of each layer → ours. Blocks are numbered by stage there, and through the network here."""
    lite0 = "_conv_stem.weight" in own
    first, later, ends = (
        dict(zip(theirs.split(), ours.split(), strict=True))
        for theirs, ours in zip(_TIMM, _LITE0 if lite0 else _MOBILENET_V2, strict=True)
    )
    names = dict(ends)
    blocks = sorted({tuple(map(int, k.split(".")[1:3])) for k in state if k.startswith("blocks.")})
    for n, (stage, block) in enumerate(blocks):
        ours = f"_blocks.{n}" if lite0 else f"features.{n + 1}"
        names |= {f"blocks.{stage}.{block}.{k}": f"{ours}.{v}" for k, v in (later if n else first).items()}
    return names


def _bases(state: Mapping[str, Any]) -> list[str]:
    """The layers that have a kernel or a matrix, in order."""
    return [k.removesuffix(".weight") for k, v in state.items() if k.endswith(".weight") and v.ndim > 1]


def _renamed(state: State, names: Mapping[str, str]) -> State:
    """The entries under the new names of their layers; a layer is the name up to any of its dots."""

    def new(key: str) -> str:
        for end in (i for i in range(len(key), 0, -1) if i == len(key) or key[i] == "."):
            if key[:end] in names:
                return names[key[:end]] + key[end:]
        return key

    return {new(key): value for key, value in state.items()}


def _reshaped(state: State, own: Own) -> State:
    """Linear layers that were stored as convolutions, and the reverse: as many numbers, in the same order."""
    return {
        k: v.reshape(own[k].shape)
        if k in own and isinstance(v, Tensor) and v.ndim != own[k].ndim and v.numel() == own[k].numel()
        else v
        for k, v in state.items()
    }


def _fold_bias(state: State, bias: str, mean: str) -> None:
    """A bias before a batch norm only shifts the mean that the norm subtracts."""
    if mean in state:
        state[mean] = state[mean] - state.pop(bias)
