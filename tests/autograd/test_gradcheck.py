"""The checker itself: what it accepts, what it says when it objects, and that it leaves no trace."""

import math

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.autograd import GradcheckError, gradcheck, gradgradcheck
from tinygrad_cnn.primitive import primitive


def leaf(values, dtype=tg.float64):
    return tg.tensor(np.array(values), dtype=dtype, requires_grad=True)


@primitive
def cubed_wrong(x):
    """x**3 with a rule that forgets one element of the third row."""
    return x**3


@cubed_wrong.vjp(0)
def _(g, x):
    mask = np.ones(x.shape)
    mask[2, 1] = 2
    return 3 * g * x * x * mask


def test_right_gradients_pass():
    x, y = leaf([[1.0, 2.0]]), leaf([0.5, -1.0])
    assert gradcheck(lambda a, b: (a * b).exp(), (x, y)) is True
    assert gradgradcheck(lambda a, b: (a * b).exp(), [x, y]) is True
    assert gradcheck(tg.exp, x) is True


def test_the_message_names_input_index_values_tolerance_and_cause():
    x = leaf(np.arange(1.0, 7.0).reshape(3, 2))
    with pytest.raises(GradcheckError) as error:
        gradcheck(lambda first, image: first * cubed_wrong(image), (2.0, x))
    message = str(error.value)
    for part in ("output 0", "input 1 (image, shape (3, 2), float64)", "1 of 36 elements", "d output[2, 1] / d input[2, 1]", "432 analytically",
                 "216", "atol 1e-05", "rtol 0.001", "wrong rule; the numeric value is stable"):
        assert part in message, (part, message)
    assert isinstance(error.value, RuntimeError)
    assert gradcheck(cubed_wrong, x, raise_exception=False) is False


def test_positional_names_fall_back_to_the_variadic_name():
    with pytest.raises(GradcheckError, match=r"input 1 \(xs\[1\], "):
        gradcheck(lambda *xs: xs[0] + cubed_wrong(xs[1]), (leaf(np.ones((3, 2))), leaf(np.ones((3, 2)))))


@pytest.mark.parametrize(("function", "value", "cause"), [
    (lambda x: x.relu(), [3e-7], "a kink"),
    (lambda x: (x.relu() * 2 - x), [0.0], "a kink"),
    (lambda x: tg.where(x > 0, x, x - 1), [0.0], "a kink or jump"),
    (lambda x: (x * 3e5).sin(), [0.3], "more curvature than eps"),
    (lambda x: x.float() * 2, [0.7], "float32"),
    (lambda x: x.sqrt(), [0.0], "not finite"),
    (lambda x: x.detach() * 2, [1.0], "leaves the graph"),
])
def test_the_likely_cause(function, value, cause):
    with pytest.raises(GradcheckError, match=cause):
        gradcheck(function, leaf(value))


def test_float32_inputs_are_to_blame():
    with pytest.raises(GradcheckError, match=r"float32.*check in float64"):
        gradcheck(lambda x: x.exp(), leaf([0.7, 1.3], tg.float32))
    with pytest.raises(GradcheckError, match="lost in rounding"):
        gradcheck(lambda x: x.exp(), leaf([100.0], tg.float32))
    assert gradcheck(lambda x: x.exp(), leaf([0.7, 1.3], tg.float32), eps=1e-2, atol=1e-2)


def test_smooth_functions_of_high_curvature_are_not_called_kinks():
    with pytest.raises(GradcheckError, match="wrong rule"):
        gradcheck(lambda x: cubed_wrong(x * 50), leaf(np.ones((3, 2))))


def test_integer_outputs_and_constants_are_ignored():
    x = leaf([[3.0, 1.0, 2.0]])
    assert gradcheck(lambda t: t.max(1), x)
    assert gradcheck(lambda t: (t * t, t.detach() * 2), x)
    assert gradcheck(lambda t, k, s: t * k if s == "times" else t, (x, 3, "times"))


def test_several_outputs():
    x = leaf([1.0, 2.0])
    assert gradcheck(lambda t: (t * t, t.exp().sum()), x)
    assert gradgradcheck(lambda t: (t * t, t.exp().sum()), x)


def test_a_joint_rule_that_only_works_alone_is_found():
    @primitive(returns=("a", "b"))
    def two(x):
        return 2 * x, 3 * x

    @two.vjp(0)
    def _(g):
        a, b = g
        return 2 * a if b is None else 3 * b               # drops a where both come

    with pytest.raises(GradcheckError, match="not the sum"):
        gradcheck(two, leaf([1.0, 2.0]))
    assert gradcheck(two, leaf([1.0, 2.0]), check_undefined_grad=False)


def test_gradients_that_forget_their_history_are_found_next_to_others_that_do_not():
    @primitive
    def product(x, y):
        return x * y

    @product.vjp(0)
    def _(g, y):
        return (g * y).detach()

    @product.vjp(1)
    def _(g, x):
        return g * x

    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    assert gradcheck(product, (x, y))
    with pytest.raises(GradcheckError, match="gradient 0"):
        gradgradcheck(product, (x, y))


def test_not_deterministic():
    with pytest.raises(GradcheckError, match=r"not deterministic.*nondet_tol=0.0"):
        gradcheck(lambda x: x * tg.rand(2).double(), leaf([1.0, 2.0]))
    drift = iter(range(10**6))
    assert gradcheck(lambda x: x * (1 + 1e-9 * next(drift)), leaf([1.0]), nondet_tol=1e-6, atol=1e-2)


@pytest.mark.parametrize("option", ["fast_mode", "check_forward_ad", "check_batched_grad", "masked"])
def test_what_cannot_be_honoured_is_refused(option):
    for check in (gradcheck, gradgradcheck):
        with pytest.raises(ValueError, match=option):
            check(tg.exp, leaf([1.0]), **{option: True})
        assert check(tg.exp, leaf([1.0]), **{option: False})
        with pytest.raises(TypeError, match="fastmode"):
            check(tg.exp, leaf([1.0]), fastmode=True)
    with pytest.raises(ValueError, match="nothing to check"):
        gradcheck(tg.exp, leaf([1.0]), check_backward_ad=False)


def test_wrong_calls_speak():
    for check in (gradcheck, gradgradcheck):
        with pytest.raises(ValueError, match=f"{check.__name__}: no input requires grad"):
            check(tg.exp, tg.ones(2))
        with pytest.raises(TypeError, match=f"{check.__name__}: func must return"):
            check(lambda x: x.numpy(), leaf([1.0]))
    with pytest.raises(ValueError, match="2 grad_outputs for 1"):
        gradgradcheck(tg.exp, leaf([1.0]), [tg.ones(1), tg.ones(1)])


def test_nothing_has_changed_afterwards_also_when_the_function_raises():
    base = np.random.default_rng(0).standard_normal((2, 3, 4, 2))
    x = tg.tensor(base).permute(0, 3, 1, 2).detach().requires_grad_()
    before, memory, version, strides = x.numpy().copy(), x._data, x._storage.version, x._data.strides
    calls = []

    def fragile(t):
        calls.append(t._data.strides)
        if len(calls) > 20:
            raise KeyError("twenty is enough")
        return t.exp()

    assert gradcheck(lambda t: t.exp().sum((0, 2)), x)
    with pytest.raises(KeyError):
        gradcheck(fragile, x)
    assert x._data is memory and x._storage.version == version and x.grad is None
    assert set(calls) == {strides}             # the copy lies in memory as the original does
    np.testing.assert_array_equal(x.numpy(), before)
    assert tg.is_grad_enabled()


def test_functions_that_close_over_the_inputs_are_checked_too():
    """`gradcheck(lambda *parameters: model(x), parameters)`: the function reads the tensors it was given elsewhere."""
    w = leaf(np.ones((3, 2)))
    assert gradcheck(lambda _: w * w, w)
    with pytest.raises(GradcheckError):
        gradcheck(lambda _: cubed_wrong(w), w)


def test_read_only_and_expanded_inputs():
    assert gradcheck(lambda t: t * t, tg.ones(1, dtype=tg.float64).expand(3).detach().requires_grad_())
    y = leaf([1.0, 2.0]) * 2
    assert gradcheck(lambda t: t.exp(), y)     # an input that was itself computed


def test_the_global_generator_is_not_used():
    state = tg.get_rng_state()
    gradgradcheck(tg.sigmoid, leaf([1.0, 2.0]))
    assert tg.get_rng_state() == state


def test_empty_and_zero_dimensional_inputs():
    assert gradcheck(lambda x: x.exp().sum(), leaf(np.ones((0, 2))))
    assert gradcheck(lambda x: x.exp(), leaf(np.ones((0, 2))))
    assert gradgradcheck(lambda x: x.exp(), leaf(0.3))


def test_given_and_strided_cotangents():
    x = leaf([[1.0, 2.0], [3.0, 0.5]])
    assert gradgradcheck(tg.sin, x, tg.ones(2, 2, dtype=tg.float64))
    assert gradgradcheck(tg.sin, x, gen_non_contig_grad_outputs=True)


def test_works_inside_no_grad_and_restores_it():
    with tg.no_grad():
        assert gradcheck(tg.exp, leaf([1.0]))
        assert gradgradcheck(tg.exp, leaf([1.0]))
        assert not tg.is_grad_enabled()


def test_large_values_do_not_fool_the_difference():
    """At 1e6 the step 1e-6 is rounded by 5e-11: dividing by the step really taken keeps the slope of x right."""
    assert gradcheck(lambda x: x * 3, leaf([1e6, 12345678.9]), atol=1e-3)


def test_nan_is_never_equal():
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: x * math.nan, leaf([1.0]))


def test_agrees_with_pytorchs_verdicts():
    torch = pytest.importorskip("torch")
    for ours, theirs, value in ((tg.exp, torch.exp, 0.5), (tg.abs, torch.abs, 0.0), (tg.relu, torch.relu, 0.0), (lambda x: x.detach() * x, lambda x: x.detach() * x, 2.0)):
        x = torch.tensor([value], dtype=torch.float64, requires_grad=True)
        assert gradcheck(ours, leaf([value]), raise_exception=False) == torch.autograd.gradcheck(theirs, x, raise_exception=False)
