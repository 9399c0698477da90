"""Huge window arguments give the right answer, or an error: no crash, no hang, no number that wrapped around."""

import sys

import pytest

import tinygrad_cnn as tg
from tests import child

F = tg.nn.functional


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and time are Linux's")
def test_huge_integers_give_the_right_answer_or_an_error():
    called = int(child.run("tests.ops.huge_sizes", "0", "1500", seconds=600).split()[-1])
    assert called > 1000
