"""Training goes as PyTorch's does: optimizers and schedules alone, then a CNN on the bundled digits."""

import copy
import warnings

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn

torch = pytest.importorskip("torch")

OPTIMIZERS = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.6), "amsgrad": True}),
    ("Adam", {"lr": 0.1, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "betas": (0.5, 0.6), "amsgrad": True}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1, "momentum_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.9, "momentum": 0.5, "centered": True, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.05, "eps": 0.1, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.3, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
]
SCHEDULES = [
    ("StepLR", {"step_size": 7, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [3, 11, 11, 20], "gamma": 0.7}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("LambdaLR", {"lr_lambda": lambda t: 1 / (1 + t)}),
    ("CosineAnnealingLR", {"T_max": 9, "eta_min": 0.001}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 30}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 31, "pct_start": 0.25, "three_phase": True,
                    "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 0.3, "epochs": 5, "steps_per_epoch": 6, "cycle_momentum": False, "div_factor": 10}),
]


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    """PyTorch's idle threads spin, and would slow ours down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def float64_default():
    """PyTorch keeps NAdam's product of momenta in its default dtype; ours is float64 always."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Quadratic:
    """The same random bowl, with the same two starting points, in both libraries."""

    def __init__(self, optimizer, options):
        rng = np.random.default_rng(1)
        matrix, offset = rng.standard_normal((2, 6, 6))
        bowl = matrix @ matrix.T / 6 + np.eye(6)
        start = rng.standard_normal(6), rng.standard_normal((2, 6))
        self.sides = []
        for library in (tg, torch):
            params = [library.tensor(s.copy(), dtype=library.float64, requires_grad=True) for s in start]
            constants = [library.tensor(c, dtype=library.float64) for c in (bowl, offset[0])]
            groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.03}]
            self.sides.append((params, constants, getattr(library.optim, optimizer)(groups, **options)))

    def step(self):
        """One step on both sides; the losses before it."""
        return [self._step(*side) for side in self.sides]

    @staticmethod
    def _step(params, constants, optimizer):
        a, b = params
        bowl, offset = constants
        optimizer.zero_grad()
        loss = (a @ bowl @ a) / 2 + offset @ a + ((b - a) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    def compare(self):
        """That the parameters, of order 1, and the states agree; rounding feeds back through the gradients."""
        (ours, _, optimizer), (theirs, _, reference) = self.sides
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-12)
        mine, other = optimizer.state_dict()["state"], reference.state_dict()["state"]
        for number in other:
            assert sorted(mine[number]) == sorted(other[number])
            for key, value in other[number].items():
                np.testing.assert_allclose(mine[number][key].numpy(), value.numpy(), 1e-12, 1e-12, err_msg=key)


@pytest.mark.parametrize("name, options", OPTIMIZERS, ids=[f"{name} {sorted(options)}" for name, options in OPTIMIZERS])
def test_optimizers(name, options, float64_default):
    quadratic = Quadratic(name, options)
    for _ in range(30):
        ours, theirs = quadratic.step()
        assert ours == pytest.approx(theirs, rel=1e-12)
    quadratic.compare()


@pytest.mark.parametrize("name, options", OPTIMIZERS, ids=[f"{name} {sorted(options)}" for name, options in OPTIMIZERS])
def test_a_state_saved_by_pytorch_goes_on(name, options, float64_default):
    """The layout is PyTorch's: its state_dict, with arrays for tensors, loads into ours."""
    quadratic = Quadratic(name, options)
    for _ in range(5):
        quadratic.step()
    (_, _, ours), (_, _, theirs) = quadratic.sides
    saved = copy.deepcopy(theirs.state_dict())
    saved["state"] = {number: {key: value.numpy().copy() for key, value in state.items()}
                      for number, state in saved["state"].items()}
    for state in ours.state.values():
        state.clear()
    ours.load_state_dict(saved)
    for _ in range(5):
        quadratic.step()
    quadratic.compare()


@pytest.mark.parametrize("optimizer, options", [("SGD", {"momentum": 0.9}), ("Adam", {})])
@pytest.mark.parametrize("name, arguments", SCHEDULES, ids=[f"{name}{i}" for i, (name, _) in enumerate(SCHEDULES)])
def test_schedules(name, arguments, optimizer, options):
    quadratic = Quadratic(optimizer, {"lr": 0.1, **options})
    schedules = [getattr(library.optim.lr_scheduler, name)(side[2], **arguments)
                 for library, side in zip((tg, torch), quadratic.sides, strict=True)]
    for _ in range(29):
        ours, theirs = quadratic.step()
        assert ours == pytest.approx(theirs, rel=1e-11)
        for schedule in schedules:
            schedule.step()
        assert schedules[0].get_last_lr() == pytest.approx(schedules[1].get_last_lr(), rel=1e-12)
        for mine, other in zip(*(side[2].param_groups for side in quadratic.sides), strict=True):
            for key in {"momentum", "betas"} & mine.keys():
                assert mine[key] == pytest.approx(other[key], rel=1e-12)


@pytest.mark.parametrize("arguments", [
    {}, {"patience": 1, "factor": 0.5}, {"mode": "max", "patience": 2, "cooldown": 2},
    {"patience": 1, "threshold": 0.2, "threshold_mode": "abs", "min_lr": [0.01, 0.02]},
    {"mode": "max", "patience": 0, "threshold": 0.3, "factor": 0.9}])
def test_reduce_on_plateau(arguments):
    quadratic = Quadratic("SGD", {"lr": 0.1})
    schedules = [library.optim.lr_scheduler.ReduceLROnPlateau(side[2], **arguments)
                 for library, side in zip((tg, torch), quadratic.sides, strict=True)]
    for measure in np.random.default_rng(0).random(40) + 0.2:
        for schedule in schedules:
            schedule.step(measure)
        assert schedules[0].get_last_lr() == pytest.approx(schedules[1].get_last_lr(), rel=1e-12)


@pytest.mark.parametrize("last_epoch", [0, 4, 9, 17])
@pytest.mark.parametrize("name, arguments", SCHEDULES[:4], ids=[name for name, _ in SCHEDULES[:4]])
def test_schedules_going_on_from_a_later_epoch(name, arguments, last_epoch):
    rates = []
    for library in (tg, torch):
        optimizer = library.optim.SGD([library.ones(1, requires_grad=True)], lr=0.1)
        optimizer.param_groups[0]["initial_lr"] = 0.2
        schedule = getattr(library.optim.lr_scheduler, name)(optimizer, last_epoch=last_epoch, **arguments)
        seen = [schedule.get_last_lr()[0]]
        for _ in range(12):
            optimizer.step()
            schedule.step()
            seen.append(schedule.get_last_lr()[0])
        rates.append(seen)
    assert rates[0] == pytest.approx(rates[1], rel=1e-12)


def test_a_schedule_saved_by_pytorch_goes_on():
    theirs = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1)], lr=0.1), 4)
    ours = tg.optim.lr_scheduler.StepLR(tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=0.1), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")        # PyTorch's, about an optimizer that made no step
        theirs.step()
    ours.load_state_dict(theirs.state_dict())
    assert (ours.last_epoch, ours.step_size, ours.base_lrs) == (1, 4, [0.1])


@pytest.mark.parametrize("norm_type", [1, 2, 3.5, np.inf])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 100.0])
def test_clipping(norm_type, max_norm):
    gradients = [np.random.default_rng(i).standard_normal((3, i + 1)) for i in range(3)]
    sides = []
    for library in (tg, torch):
        params = [library.tensor(np.zeros_like(g), requires_grad=True) for g in gradients]
        for p, g in zip(params, gradients, strict=True):
            p.grad = library.tensor(g.copy())
        clip = library.nn.utils
        norm = clip.clip_grad_norm_(params, max_norm, norm_type=norm_type)
        sides.append([float(norm), *(p.grad.numpy().copy() for p in params)])
        clip.clip_grad_value_(params, 0.1)
        sides[-1] += [p.grad.numpy() for p in params]
    for a, b in zip(*sides, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# ---- a CNN ----------------------------------------------------------------------------------------------------------


def cnn(layers):
    """Two convolutions with batch norm, max pooling, a linear layer, from either library's `nn`.

    No bias before a batch norm: its true gradient is 0, and Adam would scale the rounding errors of either side to full steps.
    """
    return layers.Sequential(
        layers.Conv2d(1, 8, 3, padding=1, bias=False), layers.BatchNorm2d(8), layers.ReLU(), layers.MaxPool2d(2),
        layers.Conv2d(8, 16, 3, padding=1, bias=False), layers.BatchNorm2d(16), layers.ReLU(), layers.MaxPool2d(2),
        layers.Flatten(), layers.Linear(16 * 7 * 7, 10))


@pytest.mark.parametrize("name, options", [
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}), ("Adam", {"lr": 1e-3}),
    ("AdamW", {"lr": 1e-3, "weight_decay": 0.05}), ("RMSprop", {"lr": 1e-3})], ids=["SGD", "Adam", "AdamW", "RMSprop"])
def test_a_cnn_trains_as_pytorchs(name, options):
    """50 steps on real digits from the same weights: the same losses to 1e-9, weights and running statistics too."""
    torch.manual_seed(0)
    theirs = cnn(torch.nn).double()
    ours = cnn(nn).double()
    ours.load_state_dict({key: tg.tensor(value.numpy()) for key, value in theirs.state_dict().items()})
    mine = getattr(tg.optim, name)(ours.parameters(), **options)
    other = getattr(torch.optim, name)(theirs.parameters(), **options)
    measure, reference = nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()
    batches = tg.data.DataLoader(tg.data.mnist5k(train=True), 32, shuffle=True, generator=0)
    losses = []
    for (images, labels), _ in zip(batches, range(50), strict=False):
        loss = measure(ours(images.double()), labels)
        mine.zero_grad()
        loss.backward()
        mine.step()
        expected = reference(theirs(torch.tensor(images.numpy()).double()), torch.tensor(labels.numpy()))
        other.zero_grad()
        expected.backward()
        other.step()
        losses.append((loss.item(), expected.item()))
    losses = np.array(losses)
    assert len(losses) == 50 and losses[-10:, 1].mean() < losses[0, 1] / 2          # it did learn
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=0, atol=1e-9)
    trained = ours.state_dict()
    assert list(trained) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(trained[key].numpy(), value.numpy(), rtol=0, atol=1e-7, err_msg=key)
