"""nms: what the common harness does not cover."""

import pytest
import torch
from cases import nms as cases
from harness import check
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnets.errors import InputError
from fastnets.ops.nms import nms


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 70), threshold=st.floats(0, 1, width=32), groups=st.integers(0, 4))
def test_any_boxes(count: int, threshold: float, groups: int) -> None:
    assert check(cases, cases.Case(count, threshold, groups), "native", "dense") is None


def test_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 5], [5, 5, 5, 5]])
    scores = torch.tensor([0.9, 0.95, 0.1, 0.5, 0.2])
    assert nms(boxes, scores, 0.6).tolist() == [1, 3, 4, 2]
    assert nms(boxes, scores, 0.5).tolist() == [1, 4, 2]
    groups = torch.tensor([0, 1, 0, 1, 0])
    assert nms(boxes, scores, 0.5, groups=groups).tolist() == [1, 0, 4, 2]
    assert nms(boxes, scores, 0.5, groups=groups * 1000003).tolist() == [1, 0, 4, 2]
    assert nms(boxes.double(), scores.double(), 0.5, groups=groups).tolist() == [1, 0, 4, 2]


def test_wrong_arguments_are_named() -> None:
    boxes, scores = torch.zeros(3, 4), torch.zeros(3)
    for call, message in (
        (
            lambda: nms(boxes[:, :3], scores, 0.5),
            r"boxes is torch.float32 of shape \(3, 3\): pass floating point \(K, 4\)",
        ),
        (lambda: nms(boxes, scores[:2], 0.5), r"scores has shape \(2,\)"),
        (lambda: nms(boxes.double(), scores, 0.5, implementation="native"), r"cannot run: .*float64"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_torch_sees_an_operator() -> None:
    call = cases.make(cases.Case(20, 0.5))
    torch.library.opcheck(torch.ops.fastnets.nms.default, (call.boxes, call.scores, 0.5, None, None))
