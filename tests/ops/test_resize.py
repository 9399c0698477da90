"""Resizing takes the pixels and the size that exact arithmetic gives."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_cnn as tg
from tinygrad_cnn import nn
from tinygrad_cnn.nn import functional as F


def line(n):
    return tg.arange(n, dtype=tg.float64).reshape(1, 1, 1, n)


def taken(n, mode, **how):
    return F.interpolate(line(n), mode=mode, **how).flatten().tolist()


@pytest.mark.parametrize("n", range(1, 40))
def test_nearest_pixels_of_every_size(n):
    for out in range(1, 80):
        assert taken(n, "nearest", size=(1, out)) == [i * n // out for i in range(out)]
        assert taken(n, "nearest-exact", size=(1, out)) == [(2 * i + 1) * n // (2 * out) for i in range(out)]


simple = st.tuples(st.integers(1, 200), st.integers(1, 100)).map(lambda t: (t[0] / t[1], Fraction(*t)))
decimal = st.integers(5, 2000).map(lambda k: (k / 100, Fraction(k, 100)))
odd = st.floats(0.05, 20).map(lambda f: (f * 2**0.5, Fraction(f * 2**0.5)))


@given(st.integers(1, 60), simple | decimal | odd)
def test_nearest_pixels_by_any_factor(n, factor):
    """A factor of 1.05 is 105 / 100, though no float is."""
    given_factor, exact = factor
    out = math.floor(n * exact)
    if out:
        for mode, shift in (("nearest", 0), ("nearest-exact", Fraction(1, 2))):
            assert taken(n, mode, scale_factor=(1.0, given_factor)) == [min(math.floor((i + shift) / exact), n - 1) for i in range(out)]


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_quotient_of_sizes_as_factor_gives_that_size_and_its_pixels(n, out):
    assert taken(n, "nearest", scale_factor=(1.0, out / n)) == [i * n // out for i in range(out)]
    assert nn.Upsample(scale_factor=(1.0, out / n))(line(n)).shape == (1, 1, 1, out)


@given(st.integers(1, 30), st.integers(1, 60), st.booleans())
def test_bilinear_positions(n, out, align):
    def place(i):
        if align:
            return Fraction(i * (n - 1), max(out - 1, 1))
        return max(Fraction(2 * i + 1, 2) * n / out - Fraction(1, 2), Fraction(0))

    expected = [float(min(place(i), Fraction(n - 1))) for i in range(out)]          # a line's value is its place
    np.testing.assert_allclose(taken(n, "bilinear", size=(1, out), align_corners=align), expected, rtol=1e-14, atol=1e-14)


def test_gradients_count_the_pixels_taken():
    x = tg.zeros(1, 1, 1, 2, requires_grad=True)
    F.interpolate(x, size=(1, 50)).sum().backward()
    assert x.grad.flatten().tolist() == [25, 25]


def test_factors_that_are_no_numbers():
    for factor in (0, -1.0, math.nan, math.inf, True, "2", (1.0, 2.0, 3.0), 1j):
        with pytest.raises(ValueError, match="interpolate: scale_factor must be a positive number or a pair"):
            F.interpolate(line(3), scale_factor=factor)
