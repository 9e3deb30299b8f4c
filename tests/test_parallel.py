from __future__ import annotations

from threading import Barrier

import pytest
import torch

from metacalo.errors import ConfigError
from metacalo.runtime.threads import side_by_side


@pytest.fixture
def two_cores():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_calls_run_at_once_and_come_back_in_order(two_cores):
    both = Barrier(2, timeout=600)

    def call(name: str) -> str:
        both.wait()  # breaks unless the other call runs at the same time
        return f"{name}{torch.get_num_threads()}"

    assert side_by_side([lambda: call("a"), lambda: call("b")], "cpu") == ["a1", "b1"]
    assert torch.get_num_threads() == 2


def test_more_calls_than_cores(two_cores):
    assert side_by_side([lambda i=i: i**2 for i in range(5)], "cpu") == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_core_or_one_accelerator_takes_one_call_after_the_other(device):
    seen = []
    assert side_by_side([lambda i=i: seen.append(i) for i in range(3)], device) == [None] * 3
    assert seen == [0, 1, 2]


def test_an_error_of_a_call_is_raised(two_cores):
    def fail() -> None:
        message = "no such thing"
        raise ConfigError(message)

    with pytest.raises(ConfigError, match="no such thing"):
        side_by_side([lambda: None, fail], "cpu")
