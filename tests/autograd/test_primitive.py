"""Primitives that users define."""

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.autograd import gradcheck, gradgradcheck
from tinygrad_cnn.primitive import Primitive, primitive, registry


def x64(*values):
    return tg.tensor(np.array(values), dtype=tg.float64, requires_grad=True)


def test_a_user_defined_primitive_with_two_arguments_and_an_attribute():
    @primitive
    def blend(a, b, *, t=0.5):
        """A mix of two arrays."""
        return (1 - t) * a + t * b * b

    @blend.vjp(0)
    def _(g, t):
        return (1 - t) * g

    @blend.vjp(1)
    def _(g, b, t):
        return 2 * t * g * b

    a, b = x64(1.0, 2.0), x64(3.0, 4.0)
    for how in ({}, {"t": 0.25}):
        assert gradcheck(lambda u, v, how=how: blend(u, v, **how), (a, b)) and gradgradcheck(lambda u, v, how=how: blend(u, v, **how), (a, b))
    out = blend(a, b)
    assert out.grad_fn.name == "BlendBackward" and out.tolist() == [5, 9] and repr(blend) == "<primitive blend>"
    assert isinstance(blend(np.ones(2), np.ones(2)), np.ndarray)
    assert registry["blend"] is blend and blend.__doc__ == "A mix of two arrays." and blend.differentiable(1) and not blend.differentiable(2)
    assert [name for name, _ in out.grad_fn.saved()] == ["b"]


def test_several_outputs_with_a_joint_rule():
    @primitive(returns=("root", "square"))
    def both(x):
        return np.sqrt(x), x * x

    @both.joint_vjp
    def _(g, needs, x, root):
        assert needs == (True,)
        u, v = g
        return ((0 if u is None else u / (2 * root)) + (0 if v is None else 2 * v * x),)

    x = x64(4.0, 9.0)
    assert gradcheck(both, x) and gradgradcheck(both, x)
    root, square = both(x)
    assert root.tolist() == [2, 3] and square.tolist() == [16, 81]


def test_an_integer_output_first_does_not_stop_the_recording():
    @primitive(returns=("place", "value"))
    def largest(x):
        return np.argmax(x), np.max(x)

    @largest.vjp(0)
    def _(g, x, place):
        return tg.zeros(x.shape, dtype=x.dtype) + g[1] * (tg.arange(x.numel()) == place).to(x.dtype)

    x = x64(1.0, 5.0, 2.0)
    place, value = largest(x)
    assert place.item() == 1 and not place.requires_grad
    value.backward()
    assert x.grad.tolist() == [0, 1, 0]


def test_numpy_scalars_and_constants_as_arguments_reach_the_rule_as_given():
    @primitive
    def power(x, n):
        return x**n

    @power.vjp(0)
    def _(g, x, n):
        assert isinstance(n, (int, tg.Tensor))
        return n * g * x ** (n - 1)

    assert gradcheck(lambda x: power(x, 3), x64(1.5))
    assert gradcheck(lambda x: power(x, np.array([2.0, 3.0])), x64(1.5, 2.0))


@pytest.mark.parametrize(("rule", "error", "message"), [
    (lambda g, y: g, TypeError, "a rule asks for 'y'"),
    (lambda g, x_size: g, TypeError, "a rule asks for 'x_size'"),
])
def test_a_rule_that_asks_for_what_there_is_not(rule, error, message):
    p = Primitive(lambda x: x * 1, name="lonely")
    with pytest.raises(error, match=f"lonely: {message}"):
        p.vjp(0)(rule)


@pytest.mark.parametrize(("rule", "error", "message"), [
    (lambda g: g.sum(), RuntimeError, r"rule of crooked \(\(2,\),\) -> \(2,\) for argument 0 returned shape \(\), wanted \(2,\)"),
    (lambda g: g.numpy(), TypeError, "rule of crooked .* for argument 0 returned ndarray, wanted a Tensor"),
    (lambda g: 2.0, TypeError, "returned float, wanted a Tensor"),
])
def test_a_rule_that_returns_something_else(rule, error, message):
    p = Primitive(lambda x: x * 1, name="crooked")
    p.vjp(0)(rule)
    with pytest.raises(error, match=message):
        p(x64(1.0, 2.0)).sum().backward()


def test_no_gradient_flows_through_attributes():
    with pytest.raises(TypeError, match="clamp: min must not be a Tensor"):
        tg.clamp(x64(1.0), min=x64(0.0))


def test_results_that_tensors_do_not_hold_are_refused():
    p = Primitive(lambda x: x.astype(np.float16), name="halved")
    with pytest.raises(TypeError, match="halved: the result would be float16"):
        p(x64(1.0))


def test_a_primitive_without_rules_gives_constants():
    p = Primitive(lambda x: x * 2, name="opaque")
    assert not p(x64(1.0)).requires_grad


def test_a_primitive_is_a_method_in_a_class():
    class Box(tg.Tensor):
        doubled = Primitive(lambda x: x * 2, name="doubled")

    assert Box([1.0]).doubled().tolist() == [2]


def test_a_rule_that_is_replaced_gets_what_it_reads():
    @primitive
    def twice(x):
        return 2 * x

    @twice.vjp(0)
    def _(g):
        return 2 * g

    x = tg.tensor([3.0], requires_grad=True)
    twice(x).backward()

    @twice.vjp(0)
    def _(g, x, out):
        return g * out / x

    twice(x).backward()
    assert x.grad.tolist() == [4]
