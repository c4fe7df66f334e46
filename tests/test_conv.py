"""conv: packing, gradients, choice and errors; results are checked over cases by tests/test_ops.py."""

import itertools
import threading
from collections.abc import Callable

import pytest
import torch
from cases import conv as conv_cases
from cases.conv import Case, make
from harness import check, poisoned, relative_error, thread_count
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fastnets import _C
from fastnets.errors import InputError
from fastnets.machine import cache_bytes
from fastnets.ops.conv import OP, ConvConfig, PackedConv, conv
from fastnets.ops.conv_arguments import window_of
from fastnets.ops.conv_choice import choose
from fastnets.ops.conv_config import ConvShape
from fastnets.ops.conv_cost import product_rows
from fastnets.ops.winograd_choice import LARGE_L2

GRADIENT_CASES = [
    Case(2, 5, 6, (7, 8), (3, 3), padding=1, activation="silu", residual=True),
    Case(1, 4, 6, (9, 7), (3, 2), stride=2, padding=((1, 0), (2, 1)), groups=2),
    Case(1, 6, 4, (9, 9), (3, 3), padding=((2, 0), (0, 1)), dilation=2, groups=2, activation="relu"),
    Case(1, 3, 4, (5, 6, 7), (3, 3, 3), padding=1),
    Case(1, 3, 4, (11,), (5,), padding=6),  # padding further than the kernel reaches
    Case(1, 8, 8, (6, 6), (1, 1), bias=False),
]


def leaves(case: Case, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor | None], Callable[..., torch.Tensor]]:
    """The tensors of the case as leaves, and the op as their function."""
    call = make(case)
    names = ("x", "weight", "bias", "residual")
    values = {name: getattr(call, name) for name in names}
    tensors = {n: None if t is None else t.to(dtype).requires_grad_() for n, t in values.items()}

    def run(implementation: str | None = None) -> torch.Tensor:
        return conv(
            **tensors,
            stride=case.stride,
            padding=case.padding,
            dilation=case.dilation,
            groups=case.groups,
            activation=case.activation,
            implementation=implementation,
        )

    return tensors, run


@pytest.mark.parametrize("case", GRADIENT_CASES, ids=lambda case: case.name)
def test_gradients_are_those_of_the_reference(case: Case) -> None:
    exact, exact_run = leaves(case, torch.float64)
    call = make(case)
    expected_y = OP.reference(call.__class__(**{**vars(call), **exact}))
    upstream = torch.randn(expected_y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    names = [name for name, tensor in exact.items() if tensor is not None]
    expected = torch.autograd.grad(expected_y, [exact[n] for n in names], upstream)
    through_op = torch.autograd.grad(exact_run(), [exact[n] for n in names], upstream)
    fast, fast_run = leaves(case, torch.float32)
    actual = torch.autograd.grad(fast_run(), [fast[n] for n in names], upstream.float())
    for name, want, op, got in zip(names, expected, through_op, actual, strict=True):
        torch.testing.assert_close(op, want, rtol=1e-10, atol=1e-10, msg=name)
        assert relative_error(got, want) <= 1e-5, name


def test_the_data_gradient_runs_in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, run = leaves(Case(1, 8, 8, (20, 20), (3, 3), padding=1), torch.float32)
    y = run()
    monkeypatch.setenv("FASTNETS_FORCE_IMPL", "conv=product")  # torch would be refused
    x = tensors["x"]
    assert x is not None
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert grad.stride(1) == 1


def test_torch_sees_an_operator() -> None:
    call = make(Case(1, 5, 6, (7, 8), (3, 3), padding=1))
    arguments = (call.x, call.weight, call.bias, None, [1, 1], [1, 1, 1, 1], [1, 1], 1, "relu", [], None)
    torch.library.opcheck(torch.ops.fastnets.conv.default, arguments)
    assert call.bias is not None
    for dtype in (torch.float32, torch.float64):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (call.x, call.weight, call.bias)]
        torch.library.opcheck(torch.ops.fastnets.conv.default, (*leaves, *arguments[3:]))


def test_gradients_of_gradients() -> None:
    """Through the mirrored convolution, the activation and the weights, which depend on the input's own gradient."""
    random = torch.Generator().manual_seed(2)
    x, weight = (torch.randn(*shape, generator=random) for shape in ((1, 3, 6, 5), (4, 3, 3, 3)))
    found = []
    for function in (conv, lambda *t, **_: functional.silu(functional.conv2d(*t, padding=1))):
        leaves = [t.double().requires_grad_() for t in (x, weight)]
        y = function(leaves[0], leaves[1] * leaves[1].tanh(), padding=1, activation="silu")
        (slope,) = torch.autograd.grad(y.square().sum(), leaves[0], create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), leaves))
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


def test_packed_weights_run_many_inputs() -> None:
    weight, bias = torch.randn(24, 16, 3, 3) / 12, torch.randn(24)
    packed = PackedConv(weight, bias, padding=1, activation="relu")
    for size in ((40, 41), (9, 9), (1, 1), (40, 41)):
        x = torch.randn(2, 16, *size)
        expected = functional.conv2d(x.double(), weight.double(), bias.double(), padding=1).relu()
        assert relative_error(packed(x), expected) <= 1e-5
    before = packed.bytes
    packed(torch.randn(1, 16, 40, 41))
    assert packed.bytes == before


def test_prepare_packs_ahead() -> None:
    packed = PackedConv(torch.randn(32, 32, 3, 3), padding=1)
    assert packed.bytes == 0
    config = packed.prepare((1, 32, 60, 60))
    assert config.algorithm == "winograd"
    before = packed.bytes
    packed(torch.randn(1, 32, 60, 60))
    assert packed.bytes == before > 0


@pytest.mark.parametrize(
    ("algorithm", "tile", "cin"),
    [("product", 1, 8), ("product", 1, 176), ("winograd", 4, 8), ("strassen", 1, 64)],
    ids=str,
)
def test_scale_is_applied_before_the_bias(algorithm: str, tile: int, cin: int) -> None:
    """Of 9 x 176 and of 9 x 64 columns, by pieces."""
    weight, bias, scale = torch.randn(70, cin, 3, 3) / cin, torch.randn(70), torch.rand(70) + 0.5
    x, residual = torch.randn(1, cin, 9, 11), torch.randn(1, 70, 9, 11)
    y = functional.conv2d(x.double(), weight.double(), padding=1) * scale.view(-1, 1, 1) + bias.view(-1, 1, 1)
    config = ConvConfig(algorithm, (1, tile, tile), 28)
    packed = PackedConv(weight, bias, padding=1, scale=scale, activation="gelu", config=config)
    assert relative_error(packed(x, residual=residual), functional.gelu(y + residual)) <= 1e-5


def test_output_may_be_a_slice_of_a_wider_tensor() -> None:
    """Concatenation without a copy: two producers, one buffer."""
    x = torch.randn(1, 8, 12, 12)
    wide = torch.full((1, 12, 12, 40), float("nan")).movedim(-1, 1)
    first, second = (PackedConv(torch.randn(c, 8, 3, 3), padding=1) for c in (24, 16))
    first(x, out=wide[:, :24])
    second(x, out=wide[:, 24:])
    assert torch.equal(wide, torch.cat([first(x), second(x)], dim=1))


def test_two_python_threads_share_packed_weights() -> None:
    packed = PackedConv(torch.randn(64, 64, 3, 3) / 24, padding=1)
    inputs = [torch.randn(1, 64, 40 + i, 40) for i in range(4)]
    expected = [packed(x) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(20) if not torch.equal(packed(inputs[i]), expected[i]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_more_threads_than_items() -> None:
    call = make(Case(1, 8, 8, (3, 3), (3, 3), padding=1))
    with poisoned(), thread_count(7):
        for implementation in ("winograd", "product"):
            assert (
                relative_error(
                    conv(call.x, call.weight, padding=1, implementation=implementation),
                    functional.conv2d(call.x, call.weight, padding=1),
                )
                <= 1e-5
            )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3))

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(axes))

    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    kernel, dilation = per_axis(1, 4), per_axis(1, 3)
    longer = [(5,) * axes, (7,) + (1,) * (axes - 1)]
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    case = Case(
        batch=data.draw(st.integers(1, 2)),
        cin=groups * data.draw(st.integers(1, 4) | st.integers(1, 20)),
        cout=data.draw(
            st.integers(1, 40).map(lambda n: n * groups) | st.sampled_from([groups, 64 * groups, 150 * groups])
        ),
        size=tuple(r + data.draw(st.integers(0, 9)) for r in reach),
        kernel=data.draw(st.sampled_from([kernel, (3,) * axes, (1,) * axes, *longer])),
        stride=data.draw(st.sampled_from([1, per_axis(1, 3)])),
        padding=tuple((data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))) for _ in range(axes)),
        dilation=data.draw(st.sampled_from([1, dilation])),
        groups=groups,
        residual=data.draw(st.booleans()),
        activation=data.draw(st.sampled_from(["none", "relu", "leaky"])),
    )
    window = window_of(axes, case.stride, case.padding, case.dilation)
    if min(window.out_size(case.size, case.kernel)) < 1:
        return
    for implementation in ("winograd", "planar", "narrow", "grouped", "strassen", "direct", "product"):
        check(conv_cases, case, implementation, data.draw(st.sampled_from(["dense", "slices"])))


def test_the_choice_follows_the_shape() -> None:
    def config(**changes: object) -> ConvConfig:
        plain = {"batch": 1, "cin": 64, "cout": 64, "groups": 1, "out": (1, 56, 56), "kernel": (1, 3, 3)}
        values = {**plain, "stride": (1, 1, 1), "dilation": (1, 1, 1), **changes}
        return choose(ConvShape(**values), 2)  # type: ignore[arg-type]

    def algorithm(**changes: object) -> str:
        return config(**changes).algorithm

    assert algorithm() == "winograd"
    assert algorithm(out=(24, 24, 24), kernel=(3, 3, 3)) == "winograd"
    assert algorithm(dilation=(1, 8, 8)) == "winograd"
    assert algorithm(kernel=(1, 1, 1)) == "product"
    # Beside six rows its sums take too long, and Intel's processors have faster products.
    wide = "strassen" if product_rows() > 6 and not _C.is_intel() else "product"
    assert algorithm(kernel=(1, 1, 1), cin=256, cout=256) == wide
    assert algorithm(kernel=(1, 1, 1), cin=256, cout=256, itemsize=2) == "product"  # its sums would lose digits
    assert algorithm(kernel=(1, 1, 1), cin=2048, cout=512, out=(1, 7, 7)) == "product"  # weights that leave L2
    assert algorithm(kernel=(1, 1, 1), cout=2) == "narrow"
    assert algorithm(stride=(1, 2, 2)) == "winograd"
    assert algorithm(kernel=(1, 5, 5)) == algorithm(kernel=(1, 1, 7)) == algorithm(kernel=(1, 7, 1)) == "winograd"
    assert algorithm(kernel=(1, 5, 7)) == algorithm(kernel=(1, 4, 4)) == "product"
    assert algorithm(stride=(1, 3, 3)) == "product"
    assert not config().taps
    assert config(out=(1, 14, 14), cin=512, cout=512).taps == (product_rows() > 6)  # weights come from memory
    large = cache_bytes(2) >= LARGE_L2
    assert config(cin=256, cout=256).taps == (product_rows() > 6 and not large)  # each item reads more than L2 holds
    assert config(cin=256, cout=256).share == large
    assert algorithm(out=(1, 5, 5), dilation=(1, 7, 7)) == "product"  # each tile would hold one output
    assert algorithm(cin=4, cout=4, groups=2) == "grouped"
    assert algorithm(cin=512, cout=512, out=(1, 7, 7), stride=(1, 2, 2)) == "product"  # fewer weights to fetch
    assert algorithm(cin=3, kernel=(1, 7, 7), stride=(1, 2, 2)) == "planar"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_few_channels_in_any_order_of_memory(channels: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(20, channels, 3, 3)
    orders = {
        "channels first": lambda x: x,
        "channels last": lambda x: x.to(memory_format=torch.channels_last),
        "every fifth": lambda x: x.repeat_interleave(5, 3)[..., ::5],
        "expanded": lambda x: x[..., :1].expand(x.shape),
    }
    for size, stride, dtype in itertools.product(((1, 1), (5, 7), (3, 65)), (1, 2), (torch.float32, torch.bfloat16)):
        image = torch.randn(2, channels, *size).to(dtype)
        conv = PackedConv(weight.to(dtype), padding=1, stride=stride, config=ConvConfig("planar", block=9))
        for order in orders.values():
            expected = functional.conv2d(order(image).double(), weight.to(dtype).double(), padding=1, stride=stride)
            assert relative_error(conv(order(image)), expected) <= (1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_reaches_only_the_outputs_that_read_it(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    image, weight = torch.randn(1, 3, 16, 31).to(dtype), torch.randn(20, 3, 5, 7).to(dtype)
    image[0, 1, 6, 9] = float("nan")
    for config in (ConvConfig("planar", block=9), ConvConfig("product", block=9)):
        y = PackedConv(weight, padding=3, stride=2, config=config)(image)
        expected = functional.conv2d(image.double(), weight.double(), padding=3, stride=2)
        assert torch.equal(torch.isnan(y), torch.isnan(expected))


@pytest.mark.skipif(_C.conv_steps(True) == 1, reason="this level does not multiply pairs")
def test_pairs_of_taps_need_neighbours() -> None:
    conv = PackedConv(torch.zeros(8, 3, 3, 3).bfloat16(), dilation=2, config=ConvConfig("planar", block=9))
    with pytest.raises(InputError, match=r"planar cannot run: dilation is \(1, 2, 2\); .* taps in pairs"):
        conv(torch.zeros(1, 3, 9, 9).bfloat16())


def test_what_the_caches_do_not_hold_is_stored_past_them() -> None:
    def stores_past_them(pixels: int, kernel: int = 1, groups: int = 1) -> bool:
        return choose(ConvShape(1, 64, 64, groups, (1, 1, pixels), (1, 1, kernel), (1, 1, 1), (1, 1, 1)), 2).stream

    held = 2 * 2 * cache_bytes(2) // (64 * 4)  # half of it by the second level of two threads
    half = cache_bytes(3) // 2 // (64 * 4)
    assert not stores_past_them(held)
    assert stores_past_them(held + 1)
    assert not stores_past_them(max(held, half - 1), kernel=3)  # Winograd fetches them instead
    assert stores_past_them(max(held + 1, half), kernel=3)
    assert not stores_past_them(held + 1, kernel=3, groups=64)  # waits for memory, not for products
    assert stores_past_them(cache_bytes(3) // (64 * 4), kernel=3, groups=64)


def test_wrong_arguments_are_named() -> None:
    x, weight = torch.zeros(1, 4, 8, 8), torch.zeros(6, 4, 3, 3)
    for wrong, message in (
        ({"x": x[0]}, "pass \\(N, C, \\*spatial\\)"),
        ({"groups": 3}, "in 3 groups does not fit"),
        ({"x": x[:, :0], "weight": weight[:, :0]}, "has no input channels: pass one or more"),
        ({"x": x.double()}, "x is torch.float64 and weight torch.float32"),
        ({"bias": torch.zeros(4)}, r"bias has shape \(4,\): pass \(6,\)"),
        ({"stride": 0}, "stride is 0: pass 1 or more"),
        ({"padding": (1, 1, 1)}, r"padding is \(1, 1, 1\): pass 0 or more, one number or 2"),
        ({"dilation": 9}, "is larger than the padded input"),
        ({"residual": x}, r"residual is \(1, 4, 8, 8\), torch.float32: pass \(1, 6, 6, 6\)"),
        ({"activation": "square"}, "activation is 'square'"),
        ({"implementation": "cuda"}, r"'cuda': pass one of winograd, .*, triton_product, torch"),
        ({"implementation": "grouped"}, "'grouped' cannot run: 4 channels to 6 in 1 groups"),
        ({"implementation": "winograd", "stride": 3}, r"'winograd' cannot run: stride is \(1, 3, 3\); it needs 1"),
    ):
        with pytest.raises(InputError, match=message):
            conv(**{"x": x, "weight": weight, **wrong})
    packed = PackedConv(weight)
    with pytest.raises(InputError, match=r"leave it, or call under torch\.no_grad"):
        packed(x.requires_grad_(), out=torch.zeros(1, 6, 6, 6))
    with pytest.raises(InputError, match=r"weight is torch.float64 on cpu"):
        PackedConv(weight.double())
    with torch.no_grad(), pytest.raises(InputError, match="planar cannot run: out has strides"):
        packed(x, out=torch.zeros(1, 6, 6, 6))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_products_leave_out_taps_that_no_pixel_of_a_block_has(data: st.DataObject) -> None:
    """Of whole factors: 16 channels in float32, 32 in bfloat16, of which fewer make part of one."""
    axes = data.draw(st.integers(1, 3))
    channels = data.draw(st.sampled_from([16, 32, 64, 8]))
    groups = data.draw(st.sampled_from([1, 1, 2]))
    spatial = data.draw(st.lists(st.integers(1, 9), min_size=axes, max_size=axes))
    kernel = data.draw(st.lists(st.sampled_from([1, 2, 3, 3, 5]), min_size=axes, max_size=axes))
    dilation = data.draw(st.lists(st.integers(1, 6), min_size=axes, max_size=axes))
    stride = data.draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = [(data.draw(st.integers(0, r + 2)), data.draw(st.integers(0, r + 2))) for r in reach]
    padding = [
        (before, max(after, r + 1 - n - before)) for (before, after), r, n in zip(padding, reach, spatial, strict=True)
    ]
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    x = torch.randn((data.draw(st.integers(1, 2)), channels * groups, *spatial), generator=random).to(dtype)
    weight = torch.randn((data.draw(st.sampled_from([8, 40])) * groups, channels, *kernel), generator=random).to(dtype)
    config = ConvConfig("product", block=data.draw(st.integers(1, 40)))
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    exact = getattr(functional, f"conv{axes}d")
    widths = [width for pair in reversed(padding) for width in pair]
    expected = exact(functional.pad(x.double(), widths), weight.double(), **options)
    with poisoned(), thread_count(data.draw(st.integers(1, 3))):
        actual = PackedConv(weight, padding=padding, config=config, **options)(x)
    assert relative_error(actual, expected) <= (2e-6 if dtype == torch.float32 else 4e-3)
