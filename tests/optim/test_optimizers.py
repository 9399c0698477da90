"""Every optimizer against its formula by hand, bad configurations, and states that can be saved."""

import copy
import math
import pickle

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn, optim

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, dampening=0.2),
    "sgd nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.01),
    "adam amsgrad": lambda p: optim.Adam(p, lr=0.1, betas=(0.8, 0.9), amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "adamw amsgrad": lambda p: optim.AdamW(p, lr=0.1, amsgrad=True),
    "nadam": lambda p: optim.NAdam(p, lr=0.1, weight_decay=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.1, alpha=0.9, weight_decay=0.01),
    "rmsprop centered": lambda p: optim.RMSprop(p, lr=0.1, alpha=0.9, centered=True, momentum=0.8),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.5, lr_decay=0.1, initial_accumulator_value=0.5, weight_decay=0.01),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def scalar(value):
    return tg.tensor([value], dtype=tg.float64, requires_grad=True)


def run(optimizer, w, gradients):
    """The values of w after each step with the given gradients."""
    values = []
    for g in gradients:
        w.grad = tg.tensor([g], dtype=tg.float64)
        optimizer.step()
        values.append(w.item())
    return values


def test_sgd_by_hand():
    w = scalar(1.0)
    # v = 2 + 0.1 = 2.1, w = 1 - 0.5 * 2.1 = -0.05
    # v = 0.5 * 2.1 + 0.75 * (4 - 0.005) = 4.04625, w = -0.05 - 0.5 * 4.04625
    values = run(optim.SGD([w], lr=0.5, momentum=0.5, dampening=0.25, weight_decay=0.1), w, [2.0, 4.0])
    assert values == pytest.approx([-0.05, -2.073125], rel=1e-14)


def test_nesterov_by_hand():
    w = scalar(1.0)
    # v: 2; w = 1 - 0.1 * (2 + 0.5 * 2) = 0.7; v: 0.5 * 2 + 4 = 5; w = 0.7 - 0.1 * (4 + 0.5 * 5) = 0.05
    values = run(optim.SGD([w], lr=0.1, momentum=0.5, nesterov=True), w, [2.0, 4.0])
    assert values == pytest.approx([0.7, 0.05], rel=1e-13)


def test_adam_by_hand():
    w = scalar(1.0)
    # betas (1/2, 3/4), eps 1. t = 1: m = 1, v = 1; hats 2 and 4: step 0.1 * 2 / (2 + 1).
    # t = 2, g = 4: m = 2.5, v = 0.75 + 4 = 4.75; hats 2.5 / 0.75 and 4.75 / (7 / 16)
    first = 1 - 0.1 * 2 / 3
    second = first - 0.1 * (2.5 / 0.75) / (math.sqrt(4.75 * 16 / 7) + 1)
    values = run(optim.Adam([w], lr=0.1, betas=(0.5, 0.75), eps=1.0), w, [2.0, 4.0])
    assert values == pytest.approx([first, second], rel=1e-14)


def test_amsgrad_divides_by_the_largest_second_moment():
    w = scalar(0.0)
    # betas (0, 1/2), eps 0, gradients 4 and 0.5: v = 8, then 4.125 < 8; hats by 1 - 1/2, 1 - 1/4
    values = run(optim.Adam([w], lr=1.0, betas=(0.0, 0.5), eps=0.0, amsgrad=True), w, [4.0, 0.5])
    assert values == pytest.approx([-1.0, -1.0 - 0.5 / math.sqrt(8 / 0.75)], rel=1e-14)


def test_adamw_decays_apart_from_the_gradient():
    w = scalar(2.0)
    # the first Adam step is lr * sign(g) whatever the decay; the weight itself shrinks by 1 - lr * decay
    values = run(optim.AdamW([w], lr=0.1, weight_decay=0.5, eps=0.0), w, [3.0])
    assert values == pytest.approx([2 * 0.95 - 0.1], rel=1e-14)


def test_nadam_by_hand():
    w = scalar(0.0)
    # eps 0, t = 1: m = (1 - beta1) g, v-hat = g^2
    mu1, mu2 = (0.9 * (1 - 0.5 * 0.96 ** (t * 0.004)) for t in (1, 2))
    expected = -0.1 * ((1 - mu1) / (1 - mu1) + mu2 * 0.1 / (1 - mu1 * mu2))
    assert run(optim.NAdam([w], lr=0.1, eps=0.0), w, [5.0]) == pytest.approx([expected], rel=1e-12)


def test_rmsprop_by_hand():
    w = scalar(0.0)
    # alpha 3/4: v = 1 then 0.75 + 4 = 4.75; eps 1 outside the root
    values = run(optim.RMSprop([w], lr=1.0, alpha=0.75, eps=1.0), w, [2.0, 4.0])
    assert values == pytest.approx([-1.0, -1.0 - 4 / (math.sqrt(4.75) + 1)], rel=1e-14)


def test_rmsprop_centered_with_momentum_by_hand():
    w = scalar(0.0)
    # alpha 1/2: v = 2, 9; a = 1, 2.5; roots 1, sqrt(2.75); b = 2, then 0.5 * 2 + 4 / sqrt(2.75)
    values = run(optim.RMSprop([w], lr=1.0, alpha=0.5, eps=0.0, centered=True, momentum=0.5), w, [2.0, 4.0])
    assert values == pytest.approx([-2.0, -3.0 - 4 / math.sqrt(2.75)], rel=1e-14)


def test_adagrad_by_hand():
    w = scalar(0.0)
    # sums 5 + 4 = 9, 9 + 16 = 25; rates 1, 1 / 1.5
    values = run(optim.Adagrad([w], lr=1.0, lr_decay=0.5, initial_accumulator_value=5, eps=0.0), w, [2.0, 4.0])
    assert values == pytest.approx([-2 / 3, -2 / 3 - 4 / 5 / 1.5], rel=1e-14)


@every_optimizer
def test_every_optimizer_descends_and_maximize_ascends(make):
    target = tg.tensor([1.0, -2.0, 3.0], dtype=tg.float64)
    w = tg.zeros(3, dtype=tg.float64, requires_grad=True)
    optimizer = make([w])
    for _ in range(200):
        optimizer.zero_grad()
        ((w - target) ** 2).sum().backward()
        optimizer.step()
    assert ((w - target) ** 2).sum().item() < 0.3 * 14
    up, down = tg.ones(3, requires_grad=True), tg.ones(3, requires_grad=True)
    climbing, falling = make([up]), make([down])
    climbing.param_groups[0]["maximize"] = True
    for group in climbing.param_groups + falling.param_groups:
        group["weight_decay"] = 0
    up.grad, down.grad = tg.tensor([1.0, 2.0, -3.0]), tg.tensor([-1.0, -2.0, 3.0])
    climbing.step()
    falling.step()
    np.testing.assert_array_equal(up.numpy(), down.numpy())
    np.testing.assert_array_equal(up.grad.numpy(), [1.0, 2.0, -3.0])


@every_optimizer
def test_float32_stays_and_state_lies_as_the_parameter(make):
    w = tg.tensor(np.zeros((3, 3, 2, 4), np.float32).transpose(3, 2, 0, 1), requires_grad=True)
    optimizer = make([w])
    w.grad = tg.tensor(np.ones((4, 2, 3, 3), np.float32))
    strides = w.numpy().strides
    for _ in range(2):
        optimizer.step()
    assert w.dtype == tg.float32 and w.numpy().strides == strides
    for key, value in optimizer.state[w].items():
        assert key in ("step", "mu_product") or (value.dtype, value.numpy().strides) == (tg.float32, strides)


LAYOUTS = {
    "row-major": lambda x: np.array(x, order="C"),
    "column-major": lambda x: np.array(x, order="F"),
    "taps first": lambda x: np.ascontiguousarray(x.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1),
    "with gaps": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed": lambda x: np.array(x[::-1], order="C")[::-1],
}


@every_optimizer
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("gradient_layout", ["row-major", "taps first", "with gaps"])
def test_layouts_of_parameter_gradient_and_state_do_not_matter(make, layout, gradient_layout):
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal((3, 2, 1, 4)), rng.standard_normal((4, 3, 2, 1, 4))
    plain, odd = tg.tensor(start, requires_grad=True), tg.tensor(start, requires_grad=True)
    odd.data = tg.Tensor._wrap(layout(start))
    assert odd._data.strides == layout(start).strides
    usual, other = make([plain]), make([odd])
    for i, g in enumerate(gradients):
        plain.grad, odd.grad = tg.tensor(g), tg.Tensor._wrap(LAYOUTS[gradient_layout](g))
        if i == 2:                             # the parameter moves; its state follows
            odd.data = tg.Tensor._wrap(LAYOUTS["row-major"](odd.numpy()))
        usual.step()
        other.step()
        np.testing.assert_array_equal(odd.numpy(), plain.numpy())


@every_optimizer
def test_resuming_from_a_state_dict_is_bitwise(make):
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((10, 4, 3)).astype(np.float32)

    def start():
        first = np.arange(12.0, dtype=np.float32).reshape(4, 3)
        return [tg.tensor(first, requires_grad=True), tg.ones(3, requires_grad=True)]

    def train(optimizer, params, part):
        for g in part:
            params[0].grad, params[1].grad = tg.tensor(g), tg.tensor(g[0])
            optimizer.step()

    unbroken = start()
    train(make(unbroken), unbroken, gradients)

    first = start()
    optimizer = make(first)
    train(optimizer, first, gradients[:4])
    saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
    second = [tg.tensor(p.numpy(), requires_grad=True) for p in first]
    resumed = make(second)
    resumed.load_state_dict(saved)
    train(optimizer, first, gradients[4:7])                     # goes on: the loaded state must be a copy
    train(resumed, second, gradients[4:])
    for a, b in zip(unbroken, second, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_state_dict_has_pytorchs_layout():
    w, b = tg.ones(2, requires_grad=True), tg.ones(3, requires_grad=True)
    optimizer = optim.Adam([{"params": [w], "lr": 0.5}, {"params": b}])
    b.grad = tg.ones(3)
    optimizer.step()
    saved = optimizer.state_dict()
    assert list(saved) == ["state", "param_groups"]
    assert [group["params"] for group in saved["param_groups"]] == [[0], [1]]
    assert [group["lr"] for group in saved["param_groups"]] == [0.5, 1e-3]
    assert list(saved["state"]) == [1] and list(saved["state"][1]) == ["step", "exp_avg", "exp_avg_sq"]
    assert saved["state"][1]["step"].shape == () and saved["state"][1]["step"].item() == 1


def loaded_adam():
    w, b = tg.ones(2, requires_grad=True), tg.ones(3, requires_grad=True)
    optimizer = optim.Adam([w, b])
    w.grad, b.grad = tg.ones(2), tg.ones(3)
    optimizer.step()
    return optimizer


def _without(saved, number, key):
    del saved["state"][number][key]


BAD_STATES = {
    "not a dict": (lambda s: s.clear(), "'state' and 'param_groups'"),
    "groups": (lambda s: s["param_groups"].append(s["param_groups"][0]), r"\[2, 2\]"),
    "params": (lambda s: s["param_groups"][0]["params"].pop(), r"\[1\]"),
    "no betas": (lambda s: s["param_groups"][0].pop("betas"), "group 0 lacks betas"),
    "bad betas": (lambda s: s["param_groups"][0].update(betas=(0.9, 1.0)), r"betas\[1\]"),
    "no moment": (lambda s: _without(s, 1, "exp_avg"), "state 1 lacks exp_avg"),
    "shape": (lambda s: s["state"][1].update(exp_avg=tg.ones(2)), r"exp_avg has shape \(2,\)"),
    "step shape": (lambda s: s["state"][0].update(step=tg.ones(2)), "step has shape"),
    "text": (lambda s: s["state"][0].update(exp_avg="gone"), "exp_avg has shape"),
    "unexpected": (lambda s: s["state"][0].update(momentum_buffer=tg.ones(2)), "unexpected momentum_buffer"),
    "no params": (lambda s: s["param_groups"][0].pop("params"), "group 0 of the state has no 'params', or not a name for each"),
    "too few names": (lambda s: s["param_groups"][0].update(param_names=["w"]), "group 0 of the state has no 'params', or not a name for each"),
    "twice": (lambda s: s["param_groups"][0].update(params=[0, 0]), "name a parameter twice"),
    "no largest moment": (lambda s: s["param_groups"][0].update(amsgrad=True), "state 0 lacks max_exp_avg_sq; state 1 lacks max_exp_avg_sq"),
    "unknown": (lambda s: s["state"].update({7: {"step": 1.0}}), "state 7 belongs to no parameter"),
    "two at once": (lambda s: (_without(s, 1, "exp_avg"), _without(s, 0, "step")),
                    "state 0 lacks step; state 1 lacks exp_avg"),
}


@pytest.mark.parametrize("spoil, message", BAD_STATES.values(), ids=BAD_STATES)
def test_a_state_that_does_not_fit_is_refused_and_nothing_changes(spoil, message):
    optimizer = loaded_adam()
    before, saved = pickle.dumps(optimizer.state_dict()), copy.deepcopy(optimizer.state_dict())
    spoil(saved)
    with pytest.raises(ValueError, match=f"Adam.load_state_dict: .*{message}"):
        optimizer.load_state_dict(saved)
    assert pickle.dumps(optimizer.state_dict()) == before


def test_another_optimizers_state_is_refused():
    w = tg.ones(2, requires_grad=True)
    other = optim.RMSprop([w])
    w.grad = tg.ones(2)
    other.step()
    with pytest.raises(ValueError, match=r"lacks betas.*lacks exp_avg"):
        optim.Adam([w]).load_state_dict(other.state_dict())


@pytest.mark.parametrize("option, key", [({"centered": True}, "grad_avg"), ({"momentum": 0.9}, "momentum_buffer")])
def test_state_that_only_an_option_needs_must_be_there(option, key):
    w = tg.ones(2, requires_grad=True)
    optimizer = optim.RMSprop([w], **option)
    w.grad = tg.ones(2)
    optimizer.step()
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    del saved["state"][0][key]
    with pytest.raises(ValueError, match=f"state 0 lacks {key}"):
        optimizer.load_state_dict(saved)


# ---- parameters with names ------------------------------------------------------------------------------------------


NAMES = ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]


def named(groups, make=lambda groups: optim.Adam(groups)):
    """An optimizer over groups of names, and its parameters, all of one shape, by name."""
    params = {name: tg.full((2, 3), float(i), requires_grad=True) for i, name in enumerate(NAMES)}
    optimizer = make([{"params": [(name, params[name]) for name in group]} for group in groups])
    return optimizer, params


def step(optimizer, params, number):
    for i, name in enumerate(NAMES):
        params[name].grad = tg.tensor(np.random.default_rng((i, number)).standard_normal((2, 3)), dtype=tg.float32)
    optimizer.step()


@every_optimizer
@pytest.mark.parametrize("before, after", [
    ([[0, 1, 2, 3]], [[3, 1, 0, 2]]), ([[0, 1], [2, 3]], [[3, 2], [1, 0]]), ([[0], [1, 2, 3]], [[2, 3, 1], [0]]), ([[0, 2], [], [1, 3]], [[0, 2], [3, 1], []])])
def test_names_decide_which_state_is_whose(make, before, after):
    before, after = ([[NAMES[i] for i in group] for group in groups] for groups in (before, after))
    optimizer, params = named(before, make)
    for group in optimizer.param_groups:       # options of their own, which must arrive at the same parameters
        group["lr"] = 0.01 * (1 + len(group["params"]) + NAMES.index(group.get("param_names", NAMES)[0]) % 2)
    step(optimizer, params, 0)
    step(optimizer, params, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    second, others = named(after, make)
    for name in NAMES:
        others[name].data.copy_(params[name].data)
    second.load_state_dict(saved)
    assert [group.get("param_names", []) for group in second.param_groups] == after
    for number in (2, 3):
        step(optimizer, params, number)
        step(second, others, number)
    for name in NAMES:
        assert others[name].numpy().tobytes() == params[name].numpy().tobytes()


def test_names_decide_in_a_state_of_pytorchs_too():
    torch = pytest.importorskip("torch")
    weights = {name: torch.full((2, 3), float(i), requires_grad=True) for i, name in enumerate(NAMES)}
    theirs = torch.optim.Adam(weights.items())
    for i, name in enumerate(NAMES):
        weights[name].grad = torch.full((2, 3), float(i + 1))
    theirs.step()
    optimizer, params = named([NAMES[::-1]])
    optimizer.load_state_dict(theirs.state_dict())
    for i, name in enumerate(NAMES):
        np.testing.assert_allclose(optimizer.state[params[name]]["exp_avg"], np.full((2, 3), 0.1 * (i + 1)), rtol=1e-6)


def test_without_names_on_one_side_the_order_decides():
    optimizer, params = named([NAMES])
    step(optimizer, params, 0)
    wanted = [optimizer.state[params[name]]["exp_avg"].tolist() for name in NAMES]
    saved = optimizer.state_dict()
    plain = optim.Adam([tg.zeros(2, 3, requires_grad=True) for _ in NAMES])
    plain.load_state_dict(saved)
    assert [plain.state[p]["exp_avg"].tolist() for p in plain.param_groups[0]["params"]] == wanted
    assert plain.param_groups[0]["param_names"] == NAMES
    del saved["param_groups"][0]["param_names"]
    other, others = named([NAMES[::-1]])
    other.load_state_dict(saved)
    assert [other.state[others[name]]["exp_avg"].tolist() for name in NAMES[::-1]] == wanted
    assert other.param_groups[0]["param_names"] == NAMES[::-1]


def test_names_that_do_not_tell():
    """A generator and a discriminator with the same names: the same order is taken as it is, another is refused."""
    def make(*names):
        return optim.Adam([(name, tg.ones(2, requires_grad=True)) for name in names])

    make("w", "b", "w", "b").load_state_dict(make("w", "b", "w", "b").state_dict())
    with pytest.raises(ValueError, match="some parameters share a name.*delete 'param_names'"):
        make("b", "w", "w", "b").load_state_dict(make("w", "b", "w", "b").state_dict())


@pytest.mark.parametrize("before, after, message", [
    ([NAMES[:3]], [NAMES], r"the state is of other parameters: it lacks \['fc.bias'\], it has \[\] instead; .*delete 'param_names'"),
    ([NAMES[:3]], [NAMES[1:]], r".*it lacks \['fc.bias'\], it has \['conv.weight'\] instead"),
    ([NAMES], [NAMES[:2], NAMES[2:]], "the groups hold the parameters"),
    ([NAMES[:2], NAMES[2:]], [NAMES[::2], NAMES[1::2]], "the groups hold the parameters")])
def test_names_that_do_not_fit_are_refused(before, after, message):
    optimizer, params = named(before)
    step(optimizer, params, 0)
    other, params = named(after)
    step(other, params, 0)
    state = pickle.dumps(other.state_dict())
    with pytest.raises(ValueError, match=f"Adam.load_state_dict: {message}"):
        other.load_state_dict(optimizer.state_dict())
    assert pickle.dumps(other.state_dict()) == state


def test_all_groups_have_names_or_none():
    optimizer, _ = named([NAMES])
    with pytest.raises(ValueError, match="some groups have names; wanted all or none"):
        optimizer.add_param_group({"params": [tg.ones(1, requires_grad=True)]})
    optimizer.add_param_group({"params": []})
    optimizer.add_param_group({"params": [("more", tg.ones(1, requires_grad=True))]})
    assert len(optimizer.param_groups) == 3


# ---- states that are kept, changed and added to ---------------------------------------------------------------------


def test_a_loaded_state_is_a_copy_in_every_part():
    optimizer = loaded_adam()
    optimizer.param_groups[0]["betas"], optimizer.param_groups[0]["notes"] = [0.9, 0.99], ["mine"]
    saved = optimizer.state_dict()
    second = loaded_adam()
    second.load_state_dict(saved)
    before = pickle.dumps(second.state_dict())
    saved["param_groups"][0]["betas"][0] = 0.5
    saved["param_groups"][0]["notes"].append("changed")
    saved["state"][0]["exp_avg"].fill_(7)
    saved["state"][0]["step"].fill_(7)
    saved["state"].clear()
    assert pickle.dumps(second.state_dict()) == before
    assert optimizer.param_groups[0]["betas"] == [0.9, 0.99] and optimizer.param_groups[0]["notes"] == ["mine"]


def test_what_a_schedule_keeps_in_the_groups_survives_a_state_without_it():
    optimizer = loaded_adam()
    saved = loaded_adam().state_dict()
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=10)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    schedule.step()
    assert 1 / 25 < optimizer.param_groups[0]["lr"] < 1


@every_optimizer
def test_a_group_added_after_loading(make):
    def run(load):
        a, b = tg.ones(2, requires_grad=True), tg.ones(3, requires_grad=True)
        optimizer = make([a])
        for i in range(4):
            if i == 2:
                if load:
                    saved, optimizer = optimizer.state_dict(), make([a])
                    optimizer.load_state_dict(saved)
                optimizer.add_param_group({"params": [b], "lr": 0.02})
            a.grad, b.grad = tg.tensor([1.0, i]), tg.tensor([2.0, i, -1])
            optimizer.step()
        again = make([tg.ones(2, requires_grad=True)])
        with pytest.raises(ValueError, match=r"the groups hold \[1, 1\] parameters, this optimizer's \[1\]"):
            again.load_state_dict(optimizer.state_dict())
        again.add_param_group({"params": [tg.ones(3, requires_grad=True)]})
        again.load_state_dict(optimizer.state_dict())
        return pickle.dumps((a.numpy(), b.numpy(), again.state_dict()))

    assert run(load=True) == run(load=False)


LEAF = tg.ones(2, requires_grad=True)
BAD_CONFIGURATIONS = [
    (lambda: optim.SGD([]), ValueError, "SGD: params is empty"),
    (lambda: optim.SGD(LEAF), TypeError, "wrap a single one in a list"),
    (lambda: optim.SGD(3), TypeError, "params must be an iterable"),
    (lambda: optim.SGD([LEAF, 3.0]), TypeError, r"params\[1\] must be a Tensor, got float"),
    (lambda: optim.SGD([np.ones(2)]), TypeError, "got ndarray"),
    (lambda: optim.SGD([LEAF, LEAF]), ValueError, r"params\[1\] of shape \(2,\) is given twice"),
    (lambda: optim.SGD([{"params": [LEAF]}, {"params": LEAF}]), ValueError, "given twice"),
    (lambda: optim.SGD([{"params": {LEAF}}]), TypeError, "is a set"),
    (lambda: optim.SGD({LEAF}), TypeError, "is a set"),
    (lambda: optim.SGD([{"params": frozenset([LEAF])}]), TypeError, "is a set"),
    (lambda: optim.SGD([{"lr": 1.0}]), TypeError, "'params' entry"),
    (lambda: optim.SGD([("w", LEAF), tg.ones(1)]), ValueError, "1 of 2 params have names"),
    (lambda: optim.SGD([LEAF * 2]), ValueError, "only leaves can be optimized"),
    (lambda: optim.SGD([LEAF], lr=-1), ValueError, "SGD: lr must be a finite number of 0 or more, got -1"),
    (lambda: optim.SGD([LEAF], lr=math.nan), ValueError, "lr"),
    (lambda: optim.SGD([LEAF], lr=math.inf), ValueError, "lr"),
    (lambda: optim.SGD([LEAF], lr="fast"), TypeError, "lr must be a (real )?number"),
    (lambda: optim.SGD([{"params": [LEAF], "lr": -1}]), ValueError, "lr"),
    (lambda: optim.SGD([LEAF], momentum=-0.1), ValueError, "momentum"),
    (lambda: optim.SGD([LEAF], dampening="x"), TypeError, "dampening"),
    (lambda: optim.SGD([LEAF], weight_decay=-1), ValueError, "weight_decay"),
    (lambda: optim.SGD([LEAF], nesterov=True), ValueError, "nesterov wants momentum above 0"),
    (lambda: optim.SGD([LEAF], nesterov=True, momentum=0.9, dampening=0.1), ValueError, "nesterov"),
    *[(lambda c=c, k=k, v=v: c([LEAF], **{k: v}), ValueError, f"{c.__name__}: {k}")
      for c in (optim.Adam, optim.AdamW, optim.NAdam) for k, v in (("lr", -1), ("eps", -1e-8), ("weight_decay", -1),
                                                                  ("betas", (1.0, 0.9)), ("betas", (0.9, -0.1)))],
    (lambda: optim.Adam([LEAF], betas=0.9), TypeError, "betas must be a pair"),
    (lambda: optim.Adam([LEAF], betas=(0.9, 0.99, 0.999)), TypeError, "betas must be a pair"),
    (lambda: optim.NAdam([LEAF], momentum_decay=-1), ValueError, "momentum_decay"),
    (lambda: optim.RMSprop([LEAF], alpha=1), ValueError, "alpha"),
    (lambda: optim.RMSprop([LEAF], momentum=-1), ValueError, "momentum"),
    (lambda: optim.RMSprop([LEAF], eps=-1), ValueError, "eps"),
    (lambda: optim.Adagrad([LEAF], lr_decay=-1), ValueError, "lr_decay"),
    (lambda: optim.Adagrad([LEAF], initial_accumulator_value=-1), ValueError, "initial_accumulator_value"),
]


@pytest.mark.parametrize("make, error, message", BAD_CONFIGURATIONS, ids=range(len(BAD_CONFIGURATIONS)))
def test_bad_configurations_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_refused_group_leaves_the_optimizer_as_it_was():
    optimizer = optim.SGD([LEAF])
    with pytest.raises(ValueError):
        optimizer.add_param_group({"params": [tg.ones(1, requires_grad=True), LEAF]})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": tg.ones(1, requires_grad=True), "lr": 0.5})
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 0.5]


def test_parameters_without_a_gradient_are_skipped():
    w, b = tg.ones(2, requires_grad=True), tg.ones(2, requires_grad=True)
    optimizer = optim.Adam([w, b], weight_decay=0.5)
    w.grad = tg.ones(2)
    optimizer.step()
    assert b.tolist() == [1, 1] and b not in optimizer.state and w.tolist() != [1, 1]


def test_nan_gradients_spread_without_a_warning():
    w = tg.ones(2, requires_grad=True)
    for optimizer in (make([w]) for make in OPTIMIZERS.values()):
        w.grad = tg.tensor([math.nan, 1e30])
        optimizer.step()
    assert math.isnan(w.tolist()[0])


def test_zero_grad():
    w = tg.ones(2, requires_grad=True)
    optimizer = optim.SGD([w])
    (w * w).sum().backward()
    held = w.grad
    optimizer.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0, 0] and held.tolist() == [0, 0] and not w.grad.requires_grad
    optimizer.zero_grad()
    assert w.grad is None
    optimizer.zero_grad(set_to_none=False)
    assert w.grad is None


def test_a_step_between_forward_and_backward_is_noticed():
    w = tg.ones(2, requires_grad=True)
    w.grad = tg.ones(2)
    loss = (w * w).sum()
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="in-place"):
        loss.backward()


def test_a_step_that_cannot_be_made_changes_nothing():
    frozen = np.ones(2, np.float32)
    frozen.flags.writeable = False
    w, stuck = tg.ones(2, requires_grad=True), tg.from_numpy(frozen).requires_grad_()
    w.grad, stuck.grad = tg.ones(2), tg.ones(2)
    with pytest.raises(RuntimeError, match="read-only memory"):
        optim.SGD([w, stuck]).step()
    assert w.tolist() == [1, 1]


def test_a_model_converted_after_the_first_step_is_refused():
    w = tg.ones(2, requires_grad=True)
    optimizer = optim.Adam([w])
    w.grad = tg.ones(2)
    optimizer.step()
    w.grad, w.data = None, w.data.double()
    w.grad = tg.ones(2, dtype=tg.float64)
    with pytest.raises(RuntimeError, match=r"exp_avg of shape .* dtype float32"):
        optimizer.step()


def test_a_closure_recomputes_the_loss_even_under_no_grad():
    w = tg.tensor([2.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    with tg.no_grad():
        assert optimizer.step(closure).item() == 4
    assert w.tolist() == [1]


def test_named_parameters_and_repr():
    optimizer = optim.SGD([("weight", LEAF)], lr=np.float64(0.5))
    assert optimizer.param_groups[0]["param_names"] == ["weight"] and type(optimizer.param_groups[0]["lr"]) is float
    assert repr(optimizer).splitlines()[:4] == ["SGD (", "Parameter Group 0", "    dampening: 0", "    lr: 0.5"]


@every_optimizer
def test_empty_and_0d_parameters(make):
    for w in (tg.zeros(0, 3, requires_grad=True), tg.tensor(1.0, requires_grad=True)):
        optimizer = make([w])
        w.grad = tg.ones_like(w)
        optimizer.step()
        again = make([w])
        again.load_state_dict(optimizer.state_dict())
        again.step()
        assert w.ndim or w.item() < 1


# ---- clipping -------------------------------------------------------------------------------------------------------


def with_gradients(*gradients, dtype=tg.float64):
    params = [tg.zeros(*np.shape(g), dtype=dtype, requires_grad=True) for g in gradients]
    for p, g in zip(params, gradients, strict=True):
        p.grad = tg.tensor(g, dtype=dtype)
    return params


@pytest.mark.parametrize("norm_type, norm", [(1, 19), (2, 13), (3, (27 + 64 + 1728) ** (1 / 3)), (math.inf, 12)])
def test_clip_grad_norm(norm_type, norm):
    a, b = with_gradients([3.0, -4.0], [[12.0]])
    unused = tg.ones(2, requires_grad=True)
    assert nn.utils.clip_grad_norm_([a, unused, b], 2.0, norm_type).item() == pytest.approx(norm)
    np.testing.assert_allclose(a.grad.numpy(), np.array([3, -4]) * 2 / norm, rtol=1e-6)
    np.testing.assert_allclose(b.grad.numpy(), [[12 * 2 / norm]], rtol=1e-6)
    assert unused.grad is None


def test_clip_grad_norm_leaves_small_gradients_and_survives_large_ones():
    a, = with_gradients([3.0, 4.0])
    assert nn.utils.clip_grad_norm_(a, 5.1).item() == 5 and a.grad.tolist() == [3, 4]
    b, = with_gradients([1e30, 1e30], dtype=tg.float32)          # whose squares overflow float32
    assert nn.utils.clip_grad_norm_(b, 1.0).dtype == tg.float32
    np.testing.assert_allclose(b.grad.numpy(), np.sqrt([0.5, 0.5]), rtol=1e-6)
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0


def test_clip_grad_norm_of_nan():
    a, b = with_gradients([1.0], [math.nan])
    with pytest.raises(RuntimeError, match="norm is nan"):
        nn.utils.clip_grad_norm_([a, b], 1.0, error_if_nonfinite=True)
    assert a.grad.item() == 1
    nn.utils.clip_grad_norm_([a, b], 1.0)
    assert math.isnan(a.grad.item())


def test_clip_grad_value():
    a, = with_gradients([[-3.0, 0.5, 2.0, math.nan]])
    nn.utils.clip_grad_value_([a], 1.0)
    np.testing.assert_array_equal(a.grad.numpy(), [[-1, 0.5, 1, math.nan]])


@pytest.mark.parametrize("call, error", [
    (lambda: nn.utils.clip_grad_norm_([LEAF], -1.0), ValueError),
    (lambda: nn.utils.clip_grad_norm_([LEAF], math.nan), ValueError),
    (lambda: nn.utils.clip_grad_norm_([LEAF], 1.0, 0), ValueError),
    (lambda: nn.utils.clip_grad_norm_([3.0], 1.0), TypeError),
    (lambda: nn.utils.clip_grad_value_([LEAF], -1.0), ValueError),
    (lambda: nn.utils.clip_grad_value_([np.ones(1)], 1.0), TypeError)])
def test_clipping_refuses(call, error):
    with pytest.raises(error, match="clip_grad_"):
        call()
