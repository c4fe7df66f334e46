"""conv: the kernels that only the processors of one vendor run, on any."""

from collections.abc import Iterator

import pytest
import torch
from cases import conv as conv_cases
from cases.conv import Case
from harness import PLACEMENTS, check
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastnets import _C
from fastnets.ops.conv import ConvConfig


@pytest.fixture(params=[True, False], ids=["intel", "other"])
def vendor(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernels of one vendor's processors, and then of all others."""
    own = _C.is_intel()
    _C.assume_intel(request.param)
    yield
    _C.assume_intel(own)


@pytest.mark.usefixtures("vendor")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_in_place_for_any_vendor(data: st.DataObject) -> None:
    """On processors of Intel, two panels of output channels are multiplied at once."""
    draw = data.draw
    cout, size = draw(st.integers(50, 210)), (draw(st.integers(1, 6)), draw(st.integers(1, 9)))
    config = ConvConfig("product", block=draw(st.integers(1, 30)))
    case = Case(
        draw(st.integers(1, 2)),
        draw(st.integers(1, 12)) * _C.conv_lanes(),
        cout,
        size,
        (1, 1),
        bias=draw(st.booleans()),
        residual=draw(st.booleans()),
        activation=draw(st.sampled_from(("none", "relu", "silu"))),
        config=config,
    )
    assert check(conv_cases, case, "product", draw(st.sampled_from(PLACEMENTS)), torch.float32) is None
