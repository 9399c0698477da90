"""Wrong rules, planted one at a time: the checks must object to every one, and the message says why weaker checks are not enough."""

import functools

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.autograd import GradcheckError, gradcheck, gradgradcheck
from tinygrad_cnn.primitive import Rule, registry

from ..op_samples import SAMPLES
from . import planted


def plant(monkeypatch, name, argument, wrong):
    """Replace a rule by `wrong(right gradient, the values the rule read by name)`; None is a joint rule."""
    p = registry[name]
    right = (p.joint_rule if argument is None else p.rules[argument]).function
    names = Rule(right, p).function.__code__.co_varnames

    @functools.wraps(right)                    # keeps the signature, by which the rule's values are looked up
    def rule(*values):
        return wrong(right(*values), **dict(zip(names, values, strict=False)))

    if argument is None:
        monkeypatch.setattr(p, "joint_rule", Rule(rule, p))
    else:
        monkeypatch.setitem(p.rules, argument, Rule(rule, p))


def scaled(right, **_):
    return right * 1.01


def negated(right, **_):
    return -right


def one_element_doubled(right, **_):
    mask = np.ones(right.shape)
    mask.reshape(-1)[right.numel() // 2 : right.numel() // 2 + 1] = 2      # in the middle: a border may meet padding only
    return right * mask


def untouched(right, g, **_):
    return g


def plant_detached(monkeypatch, name, argument, value):
    """A rule that reads one of its values detached: right at first order, wrong at second."""
    p = registry[name]
    right = p.rules[argument].function
    names = right.__code__.co_varnames

    @functools.wraps(right)
    def rule(*values):
        return right(*(v.detach() if n == value and isinstance(v, tg.Tensor) else v for n, v in zip(names, values, strict=False)))

    monkeypatch.setitem(p.rules, argument, Rule(rule, p))


# (primitive, argument or None for the joint rule, what the wrong rule returns given the right gradient)
WRONG_AT_ONCE = {
    **{f"{name}-{i}-scaled": (name, i, scaled) for name, i in (
        ("add", 0), ("mul", 1), ("div", 0), ("exp", 0), ("log", 0), ("_sum", 0), ("_matmul", 1), ("_linear", 1), ("_conv2d", 0), ("_conv2d", 1),
        ("_conv2d", 2), ("_softmax", 0), ("_getitem", 0), ("_max_pool2d", 0), ("_avg_pool2d", 0), ("_resize", 0), ("_unfold", 0), ("_gather", 0),
        ("_conv2d_input_grad", 0), ("_conv2d_weight_grad", 1), ("_scatter_add", 0), ("_channel_dot", 1), ("_surviving", 0), ("keep_scaled", 0), ("cross_entropy", 0), ("_scatter_taps", 0))},
    **{f"{name}-{i}-sign": (name, i, negated) for name, i in (("sub", 1), ("cos", 0), ("acos", 0), ("atan2", 1), ("logsigmoid", 0))},
    **{f"{name}-{i}-one-element": (name, i, one_element_doubled) for name, i in (
        ("tanh", 0), ("_conv2d", 1), ("_conv2d", 0), ("_reshape", 0), ("_pad", 0), ("_unfold", 0), ("_logsumexp", 0))},
    **{f"{name}-{i}-passes-g-on": (name, i, untouched) for name, i in (
        ("_flip", 0), ("relu", 0), ("abs", 0), ("clamp", 0), ("_log_softmax", 0), ("sigmoid", 0), ("erf", 0))},
    "matmul-not-transposed": ("_matmul", 0, lambda right, g, y: registry["_matmul"](g, y) if y.shape[-1] == y.shape[-2] else right * 2),
    "permute-by-the-same-dims": ("_permute", 0, lambda right, g, dims: registry["_permute"](g, dims=dims).reshape(right.shape)),
    "cumsum-not-reversed": ("_cumsum", 0, lambda right, g, dim, reverse: registry["_cumsum"](g, dim=dim, reverse=reverse)),
    "broadcast-averages-instead-of-summing": ("_broadcast_to", 0, lambda right, g, x_shape: right * (right.numel() / max(g.numel(), 1))),
    "tan-drops-a-term": ("tan", 0, lambda right, g, out: g * out * out),
    "softmax-drops-a-term": ("_softmax", 0, lambda right, g, out, dim: g * out),
    "where-swapped": ("where", 1, lambda right, g, condition: tg.where(condition, 0.0, g)),
    "minimum-gives-the-larger": ("minimum", 0, lambda right, g, x, y: g * registry["_share"](x, y)),
    "maximum-gives-both-all": ("maximum", 1, untouched),
    "pow-wrong-exponent": ("pow", 0, lambda right, g, x, y: g * y * x**y),
    "pad-shifted": ("_pad", 0, lambda right, g, x_shape, widths: right.roll(1, 0) if right.ndim else right),
    "getitem-overwrites-duplicates": ("_getitem", 0, lambda right, g, x_shape, index: registry["_assign"](
        tg.zeros(x_shape, dtype=g.dtype), g, index=index)),
    "setitem-keeps-the-overwritten": ("_assign", 0, untouched),
    "setitem-pays-losers": ("_assign", 1, lambda right, g, index, x_shape, value_shape: g[index].sum_to_size(value_shape)
                            if len(g[index].shape) >= len(value_shape) else right),
    "cat-in-reverse": ("_cat", None, lambda right, **_: [r if r is None else r.flip(0) for r in right]),
    "einsum-forgets-an-operand": ("_einsum", None, lambda right, operands, **_: [r if r is None else r / x for r, x in zip(right, operands, strict=True)]),
    "linear-bias-mean": ("_linear", 2, lambda right, g, bias_shape: right * (bias_shape[0] / g.numel())),
    "avg-pool-pad-count": ("_avg_pool2d", 0, lambda right, g, x_shape, windows, count_include_pad, divisor: registry["_avg_pool2d_adjoint"](
        g, windows=windows, size=x_shape[2:], count_include_pad=not count_include_pad, divisor=divisor)),
    "max-pool-neighbour": ("_max_pool2d", 0, lambda right, g, taps, x_shape, windows: right.roll(1, 3)),
    "prod-divides-by-x": ("_prod", 0, lambda right, g, x, dim: right * (x / x)),
    "amax-ignores-position": ("_amax", 0, lambda right, g, x, dim: right * 0 + right.mean()),
    "batch-norm-statistics-constant": ("_batch_norm", None, lambda right, g, x, weight, invstd, **_: (
        g * (weight * invstd).reshape(1, -1, *(1,) * (x.ndim - 2)), *right[1:])),
    "batch-norm-weight-unnormalised": ("_batch_norm", None, lambda right, invstd, **_: (right[0], right[1] / invstd, right[2])),
    "conv-kernel-flipped": ("_conv2d", 0, lambda right, g, weight, x_shape, stride, padding, dilation, groups: registry["_conv2d_input_grad"](
        g, weight.flip(2, 3), stride=stride, padding=padding, dilation=dilation, groups=groups, size=x_shape[2:])),
    "cross-entropy-forgets-the-divisor": ("cross_entropy", 0, lambda right, g, probs, wanted: right * (wanted.divisor or 1)),
    "cross-entropy-grad-of-probabilities-only": ("_cross_entropy_grad", None, lambda right, g, needs, grad_output, probs, wanted: (
        (g * probs).sum() if wanted.divisor else (g * probs).sum(wanted.axis), right[1])),
    "scatter-for-gather": ("_gather_taps", 0, lambda right, g, taps, x_shape, windows: right.flip(2)),
}

WRONG_AT_SECOND_ORDER = [
    ("exp", 0, "out"), ("tanh", 0, "out"), ("sigmoid", 0, "out"), ("sqrt", 0, "out"), ("mul", 0, "y"), ("mul", 1, "x"), ("div", 1, "y"),
    ("log", 0, "x"), ("square", 0, "x"), ("sin", 0, "x"), ("pow", 0, "x"), ("_matmul", 0, "y"), ("_linear", 1, "x"), ("_conv2d", 0, "weight"),
    ("_conv2d", 1, "x"), ("_softmax", 0, "out"), ("_logsumexp", 0, "x"), ("_prod", 0, "x"), ("_channel_dot", 0, "y"), ("add", 0, "g"),
    ("_max_pool2d", 0, "g"), ("_getitem", 0, "g"), ("cross_entropy", 0, "probs"), ("keep_scaled", 0, "g"),
]


def objection(check, name):
    """What the check says of the first sample of the primitive at which it raises; None if it is content with all."""
    for sample in SAMPLES[name]:
        try:
            if sample.order:
                check(sample.run, sample.tensors())
        except GradcheckError as error:
            return str(error)
    return None


def test_there_are_enough_of_them():
    assert len(WRONG_AT_ONCE) + len(WRONG_AT_SECOND_ORDER) >= 30


@pytest.mark.parametrize("which", WRONG_AT_ONCE)
def test_gradcheck_catches(which, monkeypatch):
    name, argument, wrong = WRONG_AT_ONCE[which]
    plant(monkeypatch, name, argument, wrong)
    message = objection(gradcheck, name)
    assert message is not None, "no sample shows the wrong rule"
    assert "wrong rule" in message


@pytest.mark.parametrize(("name", "argument", "value"), WRONG_AT_SECOND_ORDER)
def test_only_gradgradcheck_catches(name, argument, value, monkeypatch):
    if value == "g" and name == "_max_pool2d":
        plant(monkeypatch, name, argument, lambda right, **_: right.detach())
    else:
        plant_detached(monkeypatch, name, argument, value)
    assert objection(gradcheck, name) is None
    assert objection(gradgradcheck, name) is not None


def test_a_wrong_term_in_batch_norms_second_derivative_shows_at_second_order_only(monkeypatch):
    plant(monkeypatch, "_batch_norm_grad", None, lambda right, **_: (right[0], None if right[1] is None else right[1] * 1.01, *right[2:]))
    assert objection(gradcheck, "_batch_norm") is None
    assert objection(gradgradcheck, "_batch_norm") is not None
    assert objection(gradcheck, "_batch_norm_grad") is not None


def test_the_conv_triad_scaled_deep_down_shows_in_the_primitives_own_sample(monkeypatch):
    plant(monkeypatch, "_conv2d_weight_grad", 0, scaled)
    assert objection(gradcheck, "_conv2d") is None
    assert objection(gradgradcheck, "_conv2d") is not None
    assert objection(gradcheck, "_conv2d_weight_grad") is not None


@pytest.mark.parametrize(("name", "argument"), [("_flip", 0), ("_permute", 0)])
def test_a_check_through_a_sum_is_too_weak(name, argument, monkeypatch):
    """A cotangent of ones looks the same flipped or transposed: what hides from it, the full Jacobian sees."""
    x = tg.randn(3, 3, dtype=tg.float64, requires_grad=True)
    plant(monkeypatch, name, argument, untouched)
    call = (lambda t: t.flip(0)) if name == "_flip" else (lambda t: t.permute(1, 0))
    assert gradcheck(lambda t: call(t).sum(), x)
    with pytest.raises(GradcheckError, match="wrong rule"):
        gradcheck(call, x)


def test_one_wrong_element_hides_from_one_random_direction(monkeypatch):
    """Compare along one direction, as fast modes do: 1 of 1,000 elements doubled stays within a 10 % tolerance; the Jacobian sees it."""
    x = tg.rand(1000, dtype=tg.float64, requires_grad=True)
    plant(monkeypatch, "exp", 0, one_element_doubled)
    direction = np.abs(np.random.default_rng(0).standard_normal(1000))
    x.exp().sum().backward()
    along = float(x.grad.numpy() @ direction)
    eps = 1e-6
    numeric = float((np.exp(x.numpy() + eps * direction) - np.exp(x.numpy() - eps * direction)).sum() / (2 * eps))
    assert abs(along - numeric) < 0.01 * abs(numeric)
    with pytest.raises(GradcheckError, match=r"1 of 20 elements .* Worst: d output\[\] / d input\[10\]"):
        gradcheck(lambda t: t.exp().sum(), x.detach()[:20].clone().requires_grad_())


@pytest.mark.parametrize("name", [n for n in sorted(SAMPLES) if registry[n].rules or registry[n].joint_rule])
def test_everything_planted_in_a_primitive_is_noticed_or_the_same_anyway(name):
    left, total = planted.survivors(name, SAMPLES[name])
    assert total > 0 and [what for what in left if planted.reason(name, what) is None] == []
