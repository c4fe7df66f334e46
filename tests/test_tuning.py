"""Tuning: what is found is kept, and a file that is missing, damaged or read-only changes no result."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from fastnets.ops.conv import PackedConv
from fastnets.ops.conv_arguments import ConvCall, window_of
from fastnets.ops.conv_choice import candidates, choose, heuristic, tuning_key
from fastnets.ops.conv_config import ConvConfig, ConvShape
from fastnets.ops.conv_tuning import fastest
from fastnets.ops.layout import threads
from fastnets.ops.tuned import TunedChoices, user_choices

SHAPE = (1, 16, 14, 15)
SLOWEST = ConvConfig("product", block=1)


def layer() -> tuple[PackedConv, ConvShape]:
    weight = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(0)) / 12
    call = ConvCall(torch.empty(SHAPE, device="meta"), weight, None, None, window_of(2, 1, 1, 1), 1)
    return PackedConv(weight, padding=1), call.shape


def check_result(conv: PackedConv) -> None:
    x = torch.randn(SHAPE)
    torch.testing.assert_close(conv(x), functional.conv2d(x, conv.weight, padding=1), rtol=1e-4, atol=1e-4)


def test_a_tuned_choice_outlives_the_process() -> None:
    conv, shape = layer()
    config = conv.tune(SHAPE)
    assert conv.prepare(SHAPE) == config
    check_result(conv)
    user_choices.cache_clear()  # as a new process: the file is read
    assert choose(shape, threads()) == config
    assert layer()[0].prepare(SHAPE) == config


def test_the_stored_choice_is_what_runs() -> None:
    conv, shape = layer()
    assert heuristic(shape, threads()) != SLOWEST
    user_choices().store(tuning_key(shape, threads()), {**vars(SLOWEST)})
    assert choose(shape, threads()) == SLOWEST
    assert conv.prepare(SHAPE) == SLOWEST
    check_result(conv)
    assert choose(shape, threads(), "winograd").algorithm == "winograd"
    assert choose(shape, threads() + 1) == heuristic(shape, threads() + 1)  # tuned for another number of threads


def test_taps_that_cannot_be_kept_are_left_aside() -> None:
    shape = ConvShape(1, 16, 21, 1, (1, 20, 20), (1, 3, 3), (1, 1, 1), (1, 1, 1))  # 21 outputs are half a panel
    user_choices().store(tuning_key(shape, threads()), {"algorithm": "winograd", "tile": [1, 4, 4], "taps": True})
    assert choose(shape, threads()) == heuristic(shape, threads())


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"algorithm": "magic", "tile": [1, 1, 1]},
        {"algorithm": "winograd", "tile": [1, 5, 5]},
        {"algorithm": "grouped", "tile": [1, 1, 1]},
        {"algorithm": "product", "tile": 3},
        {"algorithm": "product", "tile": [1, 1, 1], "block": 0},
        {"algorithm": "product", "tile": [1, 1, 1], "knob": 1},
    ],
)
def test_a_choice_that_cannot_run_is_left_aside(choice: dict[str, object]) -> None:
    _, shape = layer()
    user_choices().store(tuning_key(shape, threads()), choice)
    assert choose(shape, threads()) == heuristic(shape, threads())


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"key": 3}', "\x00\xff"])
def test_a_damaged_file_is_left_aside(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(content)
    choices = TunedChoices(path)
    assert choices.find("key") is None
    choices.store("key", {"block": 7})
    assert TunedChoices(path).find("key") == {"block": 7}


def test_a_folder_that_cannot_be_made_keeps_choices_for_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    choices = TunedChoices(tmp_path / "file" / "folder" / "tuned.json")
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("fastnets.ops.tuned")
    log.addHandler(handler)
    choices.store("key", {"block": 7})
    log.removeHandler(handler)
    assert choices.find("key") == {"block": 7}
    assert any("cannot be written" in message for message in messages)


def test_two_writers_keep_what_both_stored(tmp_path: Path) -> None:
    first, second = TunedChoices(tmp_path / "tuned.json"), TunedChoices(tmp_path / "tuned.json")
    assert first.find("a") is None
    second.store("b", {"block": 2})
    first.store("a", {"block": 1})
    assert json.loads((tmp_path / "tuned.json").read_text()) == {"a": {"block": 1}, "b": {"block": 2}}


def test_the_fastest_wins_and_noise_does_not() -> None:
    now, cost = 0.0, {1: 1.0, 2: 0.99, 3: 0.5, 4: 2.0}

    def prepare(config: ConvConfig) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            now += cost[config.block]

        return run

    def winner(*blocks: int) -> int:
        return fastest([ConvConfig("product", block=b) for b in blocks], prepare, lambda: now).block

    assert winner(1, 2, 3, 4) == 3
    assert winner(4, 1, 2) == 2
    assert winner(1, 2, 4) == 1  # 1 % is no reason to change


def test_candidates_hold_every_kernel_that_can_run() -> None:
    found = {(config.algorithm, config.tile) for _, config in candidates(layer()[1], 1)}
    assert {("product", (1, 1, 1)), ("winograd", (1, 4, 4)), ("winograd", (1, 6, 6))} <= found
