"""Every schedule against its closed form, bad configurations, and states that can be saved."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import optim
from tinygrad_cnn.optim import lr_scheduler
from tinygrad_cnn.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from .test_optimizers import OPTIMIZERS

every_optimizer = pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)

def sgd(lr=1.0, **options):
    return optim.SGD([tg.ones(1, requires_grad=True)], lr=lr, **options)


def rates(optimizer, schedule, steps):
    seen = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


class Falling:
    """A callable object: its attributes belong to the schedule's state."""

    def __init__(self, base):
        self.base = base

    def __call__(self, epoch):
        return self.base**epoch


CLOSED_FORMS = {
    "step": (lambda o: StepLR(o, 3, 0.5), lambda t: 2 * 0.5 ** (t // 3)),
    "multistep": (lambda o: MultiStepLR(o, [2, 5, 5], 0.1), lambda t: 2 * 0.1 ** ((t >= 2) + 2 * (t >= 5))),
    "exponential": (lambda o: ExponentialLR(o, 0.9), lambda t: 2 * 0.9**t),
    "lambda": (lambda o: LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: 2 / (1 + t)),
    "callable": (lambda o: LambdaLR(o, [Falling(0.5)]), lambda t: 2 * 0.5**t),
    "cosine": (lambda o: CosineAnnealingLR(o, 4, 0.5), lambda t: 0.5 + 0.75 * (1 + math.cos(math.pi * t / 4))),
    "one cycle": (lambda o: OneCycleLR(o, 3.0, 20, pct_start=0.25, anneal_strategy="linear", div_factor=3,
                                       final_div_factor=100, cycle_momentum=False),
                  lambda t: 1 + t / 2 if t <= 4 else 3 - (3 - 0.01) * (t - 4) / 15),
}
every_schedule = pytest.mark.parametrize("make, closed", CLOSED_FORMS.values(), ids=CLOSED_FORMS)


@every_schedule
def test_closed_forms(make, closed):
    optimizer = sgd(2.0)
    assert rates(optimizer, make(optimizer), 19) == pytest.approx([closed(t) for t in range(20)], rel=1e-12)


# ---- resuming --------------------------------------------------------------------------------------------------------

RESUMED = {
    **{name: make for name, (make, _) in CLOSED_FORMS.items()},
    "callable": lambda o: LambdaLR(o, [Falling(0.9) for _ in o.param_groups]),
    "milestone 0": lambda o: MultiStepLR(o, [0, 3], 0.5),
    "warm-up": lambda o: LambdaLR(o, lambda t: min(1, (t + 1) / 8)),
    "cosine that restarts": lambda o: CosineAnnealingLR(o, 3, 0.1),
    "one cycle with momentum": lambda o: OneCycleLR(o, 2.0, 20, cycle_momentum=bool({"momentum", "betas"} & o.defaults.keys())),
    "three phases": lambda o: OneCycleLR(o, 2.0, 20, three_phase=True, cycle_momentum=False),
    "plateau": lambda o: ReduceLROnPlateau(o, factor=0.5, patience=1, cooldown=1),
}
every_resumed = pytest.mark.parametrize("make", RESUMED.values(), ids=RESUMED)
ORDERS = [("make", "schedule", "optimizer"), ("make", "optimizer", "schedule"), ("optimizer", "make", "schedule")]
every_order = pytest.mark.parametrize("order", ORDERS, ids=", ".join)
GRADIENTS = np.random.default_rng(0).standard_normal((12, 4, 3)).astype(np.float32)
MEASURES = [3, 3, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1]


def model():
    return [tg.tensor(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), requires_grad=True), tg.ones(3, requires_grad=True)]


def groups(params):
    return [{"params": params[:1]}, {"params": params[1:], "lr": 0.25}]


def train(optimizer, schedules, steps):
    """The options of all groups before each step: rates, momentum and all."""
    seen = []
    for i in steps:
        seen.append([{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups])
        for group, gradient in zip(optimizer.param_groups, (GRADIENTS[i], GRADIENTS[i][0]), strict=True):
            group["params"][0].grad = tg.tensor(gradient)
        optimizer.step()
        for schedule in schedules:
            schedule.step(*[MEASURES[i]] * isinstance(schedule, ReduceLROnPlateau))
    return seen


def saved_after(optimizer, schedules, steps):
    """What a file would hold: the parameters and the states."""
    train(optimizer, schedules, steps)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return pickle.loads(pickle.dumps(([p.numpy() for p in params], optimizer.state_dict(), [s.state_dict() for s in schedules])))


def resumed(make_optimizer, makes, saved, order):
    arrays, state, states = copy.deepcopy(saved)
    params = [tg.tensor(a, requires_grad=True) for a in arrays]
    optimizer, schedules = make_optimizer(groups(params)), []
    for action in order:
        if action == "make":
            schedules += [make(optimizer) for make in makes]
        elif action == "optimizer":
            optimizer.load_state_dict(state)
        else:
            for schedule, one in zip(schedules, states, strict=True):
                schedule.load_state_dict(one)
    return params, optimizer, schedules


def check_resumed(make_optimizer, makes, order, cut=5, change=lambda optimizer: None):
    whole = model()
    optimizer = make_optimizer(groups(whole))
    schedules = [make(optimizer) for make in makes]
    saved = saved_after(optimizer, schedules, range(cut))
    change(optimizer)
    saved = saved[0], copy.deepcopy(optimizer.state_dict()), saved[2]
    expected = train(optimizer, schedules, range(cut, 12))
    params, optimizer, schedules = resumed(make_optimizer, makes, saved, order)
    assert train(optimizer, schedules, range(cut, 12)) == expected
    assert [p.numpy().tobytes() for p in params] == [p.numpy().tobytes() for p in whole]


@every_optimizer
@every_resumed
@every_order
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(make_optimizer, make, order):
    check_resumed(make_optimizer, [make], order)


@every_resumed
@every_order
@pytest.mark.parametrize("cut", range(1, 12))
def test_wherever_it_was_interrupted(make, order, cut):
    check_resumed(lambda p: optim.SGD(p, lr=1.0, momentum=0.9), [make], order, cut)


CHAINS = [("step", "exponential"), ("cosine", "plateau"), ("warm-up", "plateau"), ("exponential", "step", "plateau"), ("callable", "multistep")]


@every_order
@pytest.mark.parametrize("chain", CHAINS, ids=" ".join)
def test_several_schedules_on_one_optimizer_resume(chain, order):
    check_resumed(lambda p: optim.SGD(p, lr=1.0), [RESUMED[name] for name in chain], order)


@every_order
@pytest.mark.parametrize("chain", CHAINS, ids=" ".join)
def test_their_states_may_be_loaded_in_another_order(chain, order):
    params = model()
    optimizer = optim.SGD(groups(params), lr=1.0)
    schedules = [RESUMED[name](optimizer) for name in chain]
    saved = saved_after(optimizer, schedules, range(5))
    expected = train(optimizer, schedules, range(5, 12))
    turned = saved[0], saved[1], saved[2][::-1]
    _, optimizer, schedules = resumed(lambda p: optim.SGD(p, lr=1.0), [RESUMED[name] for name in chain[::-1]], turned, order)
    assert train(optimizer, schedules[::-1], range(5, 12)) == expected


@every_order
@pytest.mark.parametrize("name", ["step", "exponential", "cosine", "plateau"])
def test_a_rate_that_was_changed_by_hand_stays(name, order):
    def change(optimizer):
        optimizer.param_groups[0]["lr"] *= 0.3

    check_resumed(lambda p: optim.SGD(p, lr=1.0), [RESUMED[name]], order, change=change)


@every_resumed
def test_a_state_of_the_schedule_alone_brings_its_rates(make):
    """Plain SGD has no state worth saving but the rates; PyTorch goes on from the first ones here."""
    optimizer = optim.SGD(groups(model()), lr=1.0, momentum=0.9)
    schedules = [make(optimizer)]
    states = saved_after(optimizer, schedules, range(5))[2]
    expected = train(optimizer, schedules, range(5, 12))
    optimizer = optim.SGD(groups(model()), lr=1.0, momentum=0.9)
    schedules = [make(optimizer)]
    schedules[0].load_state_dict(states[0])
    assert train(optimizer, schedules, range(5, 12)) == expected


def test_a_schedule_made_anew_on_a_loaded_optimizer_begins_at_its_start():
    first = optim.SGD(groups(model()), lr=1.0)
    train(first, [RESUMED["warm-up"](first)], range(3))
    second = optim.SGD(groups(model()), lr=1.0)
    second.load_state_dict(first.state_dict())
    assert RESUMED["warm-up"](second).get_last_lr() == [1 / 8, 0.25 / 8]


def test_going_back_to_an_earlier_state():
    optimizer = optim.SGD(groups(model()), lr=1.0)
    schedule = RESUMED["warm-up"](optimizer)
    early = saved_after(optimizer, [schedule], range(2))
    expected = train(optimizer, [schedule], range(2, 8))
    for turn in (1, -1):
        for load, state in [(optimizer.load_state_dict, early[1]), (schedule.load_state_dict, early[2][0])][::turn]:
            load(state)
        assert train(optimizer, [schedule], range(2, 8)) == expected


def test_a_loaded_state_and_a_kept_one_are_copies():
    class Counting:
        def __init__(self):
            self.seen = []

        def __call__(self, epoch):
            self.seen.append(epoch)
            return 1.0

    schedule, other = LambdaLR(sgd(), Counting()), LambdaLR(sgd(), Counting())
    kept = schedule.state_dict()
    other.load_state_dict(kept)
    kept["base_lrs"].append("changed")
    kept["lr_lambdas"][0]["seen"].append("changed")
    assert schedule.base_lrs == other.base_lrs == [1.0] and other.lr_lambdas[0].seen == [0]


GOES_ON = {
    "step": lambda o, last: StepLR(o, 3, 0.5, last_epoch=last),
    "multistep": lambda o, last: MultiStepLR(o, [0, 2, 5, 5], 0.1, last_epoch=last),
    "exponential": lambda o, last: ExponentialLR(o, 0.9, last_epoch=last),
    "lambda": lambda o, last: LambdaLR(o, lambda t: 1 / (2 + t), last_epoch=last),
    "cosine": lambda o, last: CosineAnnealingLR(o, 4, 0.1, last_epoch=last),
    "one cycle": lambda o, last: OneCycleLR(o, 2.0, 20, last_epoch=last),
}


@pytest.mark.parametrize("done", range(1, 11))
@pytest.mark.parametrize("make", GOES_ON.values(), ids=GOES_ON)
def test_last_epoch_instead_of_a_state(make, done):
    """With the optimizer's state the rates stand, at a milestone too, where PyTorch's StepLR falls twice; without it they are caught up with."""
    optimizer = optim.SGD(groups(model()), lr=1.0, momentum=0.9)
    schedule = make(optimizer, -1)
    saved = saved_after(optimizer, [schedule], range(done))
    expected = train(optimizer, [schedule], range(done, 12))
    second = optim.SGD(groups(model()), lr=1.0, momentum=0.9)
    second.load_state_dict(saved[1])
    assert train(second, [make(second, done - 1)], range(done, 12)) == expected
    third = optim.SGD(groups(model()), lr=1.0, momentum=0.9)
    for group, first in zip(third.param_groups, expected[0], strict=True):
        group["initial_lr"] = group["lr"] = first["initial_lr"]
    schedule = make(third, done - 1)
    assert schedule.last_epoch == done and train(third, [schedule], range(done, 12)) == expected


@every_resumed
def test_a_group_added_later(make):
    optimizer = sgd(momentum=0.9)
    schedule = make(optimizer)
    optimizer.step()
    optimizer.add_param_group({"params": tg.ones(2, requires_grad=True), "lr": 0.25})
    if isinstance(schedule, (StepLR, MultiStepLR, ExponentialLR, ReduceLROnPlateau)):
        for measure in [1] * 8:
            schedule.step(*[measure] * isinstance(schedule, ReduceLROnPlateau))
        ratios = [group["lr"] for group in optimizer.param_groups]
        assert ratios[1] < 0.25 and (ratios[0] / ratios[1] == pytest.approx(4) or isinstance(schedule, MultiStepLR))
    else:
        with pytest.raises(ValueError, match=f"{type(schedule).__name__}: has rates for 1 groups, the optimizer has 2; make the schedule after"):
            for _ in range(5):
                schedule.step()


def test_callable_objects_get_their_attributes_back():
    first, second = Falling(0.25), Falling(0.5)
    LambdaLR(sgd(), second).load_state_dict(LambdaLR(sgd(), first).state_dict())
    assert second.base == 0.25


def test_schedules_can_be_chained():
    optimizer = sgd(1.0)
    schedules = [StepLR(optimizer, 2, 0.5), ExponentialLR(optimizer, 0.9)]
    for _ in range(4):
        optimizer.step()
        for schedule in schedules:
            schedule.step()
    assert schedules[1].get_last_lr() == pytest.approx([0.25 * 0.9**4])


def test_groups_keep_their_own_rates():
    optimizer = optim.SGD([{"params": [tg.ones(1, requires_grad=True)], "lr": lr} for lr in (1.0, 0.1)])
    optimizer.step()
    schedule = LambdaLR(optimizer, [lambda t: 1 + t, lambda t: 1 - t / 2])
    schedule.step()
    assert schedule.get_last_lr() == [2.0, 0.05]
    cycle = OneCycleLR(optimizer, [0.5, 5.0], total_steps=10, div_factor=10)
    assert cycle.get_last_lr() == pytest.approx([0.05, 0.5], rel=1e-12)


@pytest.mark.parametrize("optimizer, momentum", [
    (sgd(momentum=0.5), lambda o: o.param_groups[0]["momentum"]),
    (optim.Adam([tg.ones(1, requires_grad=True)]), lambda o: o.param_groups[0]["betas"][0])])
def test_one_cycle_moves_momentum_against_the_rate(optimizer, momentum):
    schedule = OneCycleLR(optimizer, 1.0, epochs=2, steps_per_epoch=5, pct_start=0.5)
    seen = [(optimizer.param_groups[0]["lr"], momentum(optimizer))]
    for _ in range(9):
        optimizer.step()
        schedule.step()
        seen.append((optimizer.param_groups[0]["lr"], momentum(optimizer)))
    assert seen[0] == pytest.approx((1 / 25, 0.95)) and seen[4] == pytest.approx((1.0, 0.85))
    assert seen[2] == pytest.approx(((1 + 1 / 25) / 2, 0.9)) and seen[9] == pytest.approx((1 / 25e4, 0.95))
    optimizer.step(), schedule.step()                           # a loop that steps after its last batch is let be
    with pytest.raises(ValueError, match=r"step 11 is past the cycle's 10 \(total_steps\)"):
        schedule.step()


def test_one_cycle_with_three_phases():
    optimizer = sgd(momentum=0.9)
    options = {"three_phase": True, "anneal_strategy": "linear"}
    schedule = OneCycleLR(optimizer, 1.0, 21, pct_start=1 / 3, div_factor=10, **options)
    seen = rates(optimizer, schedule, 20)
    assert [seen[0], seen[6], seen[12], seen[20]] == pytest.approx([0.1, 1.0, 0.1, 1e-5])
    assert seen[3] == pytest.approx(0.55) and seen[9] == pytest.approx(0.55)


@pytest.mark.parametrize("pct_start, steps", [(0, 5), (1, 5), (0.2, 5), (0.3, 1)])
def test_one_cycle_with_empty_phases(pct_start, steps):
    optimizer = sgd(momentum=0.9)
    seen = rates(optimizer, OneCycleLR(optimizer, 1.0, steps, pct_start=pct_start), steps)
    assert all(0 < lr <= 1 for lr in seen[:steps])


def plateau(measures, **options):
    optimizer = sgd(1.0)
    schedule = ReduceLROnPlateau(optimizer, factor=0.5, **options)
    seen = []
    for measure in measures:
        schedule.step(measure)
        seen.append(schedule.get_last_lr()[0])
    return seen


def test_reduce_on_plateau():
    assert plateau([1, 0.9, 0.9, 0.9, 0.9, 0.9], patience=1) == [1, 1, 1, 0.5, 0.5, 0.25]
    assert plateau([1, 2, 2.05, 3], mode="max", patience=0, threshold=0.1) == [1, 1, 0.5, 0.5]
    assert plateau([1, 0.95, 0.85], patience=0, threshold=0.1, threshold_mode="abs") == [1, 0.5, 0.5]
    assert plateau([1, 1, 1, 1, 1], patience=0, cooldown=2) == [1, 0.5, 0.5, 0.5, 0.25]
    assert plateau([1, 1, 1], patience=0, min_lr=0.4) == [1, 0.5, 0.4]
    assert plateau([1, 1, 1], patience=0, min_lr=0.4, eps=0.2) == [1, 0.5, 0.5]
    assert plateau([tg.tensor(1.0), math.nan, tg.tensor([0.5])], patience=0) == [1, 0.5, 0.5]


def test_plateau_resumes():
    first, second = sgd(), sgd()
    a, b = ReduceLROnPlateau(first, patience=1), ReduceLROnPlateau(second, patience=1)
    a.step(1.0), a.step(1.0)
    b.load_state_dict(a.state_dict())
    b.step(1.0)
    assert second.param_groups[0]["lr"] == 0.1


def test_a_first_step_before_the_optimizers_is_warned_about_once():
    optimizer = sgd()
    schedule = StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match="StepLR.step was called before optimizer.step"):
        schedule.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()


def test_going_on_from_a_later_epoch():
    optimizer = sgd()
    with pytest.raises(KeyError, match="initial_lr"):
        StepLR(optimizer, 2, last_epoch=3)
    optimizer.param_groups[0]["initial_lr"] = 4.0
    schedule = StepLR(optimizer, 2, 0.5, last_epoch=2)
    assert schedule.last_epoch == 3 and schedule.base_lrs == [4.0]


BAD_CONFIGURATIONS = [
    (lambda: StepLR("sgd", 1), TypeError, "StepLR: optimizer must be an Optimizer, got str"),
    (lambda: LambdaLR(None, abs), TypeError, "LambdaLR: optimizer"),
    (lambda: ReduceLROnPlateau(3), TypeError, "ReduceLROnPlateau: optimizer"),
    (lambda: StepLR(sgd(), 0), ValueError, "step_size must be an int of 1 or more, got 0"),
    (lambda: StepLR(sgd(), 1.5), TypeError, "step_size"),
    (lambda: StepLR(sgd(), 1, gamma=-1), ValueError, "gamma"),
    (lambda: StepLR(sgd(), 1, last_epoch=-2), ValueError, "last_epoch"),
    (lambda: MultiStepLR(sgd(), [-1]), ValueError, "milestone"),
    (lambda: ExponentialLR(sgd(), math.nan), ValueError, "gamma"),
    (lambda: LambdaLR(sgd(), 0.5), TypeError, "lr_lambda must be a function"),
    (lambda: LambdaLR(sgd(), [abs, abs]), ValueError, "got 2 values of lr_lambda for 1 groups"),
    (lambda: CosineAnnealingLR(sgd(), 0), ValueError, "T_max"),
    (lambda: CosineAnnealingLR(sgd(), 5, eta_min=-1), ValueError, "eta_min"),
    (lambda: OneCycleLR(sgd(momentum=0.9), 1.0), ValueError, "pass total_steps, or epochs and steps_per_epoch"),
    (lambda: OneCycleLR(sgd(momentum=0.9), 1.0, epochs=3), ValueError, "pass total_steps"),
    (lambda: OneCycleLR(sgd(momentum=0.9), 1.0, 0), ValueError, "total_steps"),
    (lambda: OneCycleLR(sgd(momentum=0.9), 1.0, 5, pct_start=1.5), ValueError, "pct_start"),
    (lambda: OneCycleLR(sgd(momentum=0.9), 1.0, 5, anneal_strategy="exp"), ValueError, "'cos' or 'linear', got 'exp'"),
    (lambda: OneCycleLR(sgd(momentum=0.9), [1.0, 2.0], 5), ValueError, "2 values of max_lr for 1 groups"),
    (lambda: OneCycleLR(sgd(momentum=0.9), 1.0, 5, div_factor=0), ValueError, "div_factor"),
    (lambda: OneCycleLR(sgd(momentum=0.9), 1.0, 5, max_momentum=1.0), ValueError, "max_momentum"),
    (lambda: OneCycleLR(optim.Adagrad([tg.ones(1, requires_grad=True)]), 1.0, 5), ValueError, "cycle_momentum=False"),
    (lambda: ReduceLROnPlateau(sgd(), mode="low"), ValueError, "'low'"),
    (lambda: ReduceLROnPlateau(sgd(), factor=1.0), ValueError, "factor"),
    (lambda: ReduceLROnPlateau(sgd(), patience=-1), ValueError, "patience"),
    (lambda: ReduceLROnPlateau(sgd(), min_lr=[0, 0]), ValueError, "2 values of min_lr"),
    (lambda: LRScheduler(sgd()), NotImplementedError, "get_lr is not defined"),
]


@pytest.mark.parametrize("make, error, message", BAD_CONFIGURATIONS, ids=range(len(BAD_CONFIGURATIONS)))
def test_bad_configurations_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_refused_one_cycle_leaves_the_optimizer_as_it_was():
    optimizer = optim.Adagrad([tg.ones(1, requires_grad=True)])
    before = dict(optimizer.param_groups[0])
    with pytest.raises(ValueError):
        OneCycleLR(optimizer, 1.0, 5)
    assert optimizer.param_groups[0].keys() == before.keys()


def test_a_state_that_does_not_fit_is_refused():
    schedule = StepLR(sgd(), 2)
    with pytest.raises(ValueError, match=r"missing \['step_size'\], unexpected \['T_max', 'eta_min'\]"):
        schedule.load_state_dict(CosineAnnealingLR(sgd(), 2).state_dict() | {"gamma": 0.5})
    two = optim.SGD([{"params": [tg.ones(1, requires_grad=True)]} for _ in range(2)])
    with pytest.raises(ValueError, match="2 groups, the optimizer 1"):
        schedule.load_state_dict(StepLR(two, 2).state_dict())
    assert schedule.last_epoch == 0


def test_names_are_importable_as_in_pytorch():
    assert optim.lr_scheduler is lr_scheduler and optim.lr_scheduler.StepLR is StepLR
