"""Random programs in PyTorch and here, step by step: the same values and gradients, or a refusal. Never another gradient in silence.

A program makes leaves, computes from them, takes views, writes in place, switches recording off and on, detaches, hooks, and walks
back, once or more, to first or second order. After every step every tensor that is still there has the values it has in PyTorch, so a
write that reaches too much or too little shows; at the end all gradients are compared.
"""

import collections
import contextlib
import re
import warnings

import numpy as np
import pytest

import tinygrad_cnn as tg

PROGRAMS, STEPS = 1000, 14


class Refused(Exception):
    """We refuse a step. Nothing has changed then, and the program goes on without it."""


class Ended(Exception):
    """The program cannot go on: PyTorch refuses what we do, or a walk back was refused half-way."""


class Program:
    """The same tensors in both libraries, and the steps that make more of them."""

    def __init__(self, torch, seed):
        self.torch, self.random = torch, np.random.default_rng(seed)
        self.pairs, self.leaves, self.log = [], [], []
        for shape in ((2, 3), (2, 2, 3, 3), (3,)):
            self.leaf(shape)
        self.keep(*self.both(lambda lib, x: x * 1.5, self.leaves[1]))

    def number(self, low=-2.0, high=2.0):
        return float(np.round(self.random.uniform(low, high), 3))

    def choice(self, options):
        return options[self.random.integers(len(options))]

    def leaf(self, shape, requires_grad=True):
        values = self.random.uniform(0.3, 1.8, shape)
        pair = tg.tensor(values, requires_grad=requires_grad), self.torch.tensor(values, requires_grad=requires_grad)
        self.leaves.append(pair)
        self.keep(*pair)

    def keep(self, ours, theirs):
        if isinstance(ours, tuple):
            ours, theirs = ours[0], theirs[0]
        if ours.numel() and ours.ndim < 6 and not any(ours is o for o, _ in self.pairs):
            self.pairs.append((ours, theirs))

    def both(self, call, *pairs):
        """The call on our tensors and, unless we refuse it, on theirs."""
        try:
            ours = call(tg, *(pair[0] for pair in pairs))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise Refused(str(error)) from error
        try:
            return ours, call(self.torch, *(pair[1] for pair in pairs))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise Ended(f"PyTorch refuses: {error}") from error

    def pick(self, wanted=lambda t: True):
        fitting = [pair for pair in self.pairs if wanted(pair[0])]
        if not fitting:
            raise Refused("nothing fits")
        return self.choice(fitting)

    def may_be_written(self, t):
        """Mostly what is no leaf: those are refused."""
        return not tg.is_grad_enabled() or not t._storage.guarded or self.random.random() < 0.1

    def partner(self, pair):
        """Another tensor that broadcasts to the shape of this one, and does not make it larger."""
        shape = pair[0].shape

        def fits(t):                           # PyTorch does not say what happens where it reads what it writes
            apart = t is pair[0] or not np.may_share_memory(t._data, pair[0]._data)
            return apart and t.ndim <= len(shape) and all(n in (1, m) for n, m in zip(t.shape, shape[len(shape) - t.ndim :], strict=True))
        return self.pick(fits)

    # ---- steps ------------------------------------------------------------------------------------------------------

    def compute(self):
        pair, k = self.pick(), self.number()
        call = self.choice([lambda lib, x: x.exp().clamp(max=20.0), lambda lib, x: x.sigmoid(), lambda lib, x: x * x, lambda lib, x: x * k, lambda lib, x: x + k, lambda lib, x: x.sin(),
                            lambda lib, x: x.relu(), lambda lib, x: x.clone(), lambda lib, x: x / 2, lambda lib, x: -x, lambda lib, x: x.tanh() ** 2, lambda lib, x: x.sum(-1, keepdim=True),
                            lambda lib, x: lib.cat([x, x], -1), lambda lib, x: lib.stack([x, x * k]), lambda lib, x: x.flip(-1), lambda lib, x: x.repeat(*(1,) * x.ndim),
                            lambda lib, x: x.roll(1, -1), lambda lib, x: lib.where(x > k, x, x * 2), lambda lib, x: x.amax(-1), lambda lib, x: x[..., [0, -1]]])
        self.keep(*self.both(call, pair))

    def combine(self):
        pair = self.pick()
        other = self.partner(pair)
        self.keep(*self.both(self.choice([lambda lib, x, y: x + y, lambda lib, x, y: x * y, lambda lib, x, y: x - y, lambda lib, x, y: lib.maximum(x, y)]), pair, other))

    def image(self):
        """A convolution, whose output lies in another order in memory here."""
        pair = self.pick(lambda t: t.ndim == 4 and min(t.shape[2:]) > 1)
        channels = pair[0].shape[1]
        values = self.random.uniform(-0.5, 0.5, (self.choice([1, 2, 3]), channels, 2, 2))
        weight = tg.tensor(values), self.torch.tensor(values)
        self.keep(*self.both(lambda lib, x, w: lib.nn.functional.conv2d(x, w, padding=1), pair, weight))

    def view(self):
        pair = self.pick()
        n = pair[0].ndim
        dim, other = int(self.random.integers(max(n, 1))), int(self.random.integers(max(n, 1)))
        order = tuple(map(int, self.random.permutation(n)))
        call = self.choice([lambda lib, x: x[0] if x.ndim else x, lambda lib, x: x[..., 1:] if x.ndim else x, lambda lib, x: x[..., ::2] if x.ndim else x, lambda lib, x: x.reshape(-1),
                            lambda lib, x: x.view(x.shape[0], -1) if x.ndim else x, lambda lib, x: x.flatten(min(1, max(x.ndim - 1, 0))), lambda lib, x: x.permute(order),
                            lambda lib, x: x.transpose(dim, other), lambda lib, x: x.unsqueeze(dim), lambda lib, x: x.squeeze(), lambda lib, x: x.contiguous(),
                            lambda lib, x: x.expand(2, *x.shape), lambda lib, x: x.detach(), lambda lib, x: x.data, lambda lib, x: x.unbind(dim)[-1] if x.ndim else x,
                            lambda lib, x: x.chunk(2, dim)[0] if x.ndim else x, lambda lib, x: x.view(-1), lambda lib, x: x.reshape(x.shape), lambda lib, x: x.movedim(dim, other)])
        # PyTorch's views that are taken without recording still claim to require grad, so they are detached there.
        ours, theirs = self.both(call if tg.is_grad_enabled() else lambda lib, x: call(lib, x).detach(), pair)
        if theirs is pair[1] and ours is not pair[0]:          # contiguous() of an image: there itself, here a copy with a history of its own
            same("values", ours._values("compare"), theirs)
        else:
            self.keep(ours, theirs)

    def write(self):
        pair, k = self.pick(self.may_be_written), self.number()
        other = self.partner(pair)
        call = self.choice([lambda lib, x, y: x.add_(k), lambda lib, x, y: x.mul_(k), lambda lib, x, y: x.add_(y), lambda lib, x, y: x.mul_(y), lambda lib, x, y: x.sub_(y),
                            lambda lib, x, y: x.relu_(), lambda lib, x, y: x.zero_(), lambda lib, x, y: x.fill_(k), lambda lib, x, y: x.copy_(y), lambda lib, x, y: x.clamp_(-1.0, 1.0),
                            lambda lib, x, y: x.div_(1.5), lambda lib, x, y: lib.nn.functional.relu(x, inplace=True), lambda lib, x, y: lib.nn.functional.silu(x, inplace=True),
                            lambda lib, x, y: lib.nn.functional.leaky_relu(x, 0.1, inplace=True), lambda lib, x, y: lib.nn.functional.relu6(x, inplace=True)])
        self.both(call, pair, other)

    def assign(self):
        pair, k = self.pick(lambda t: t.ndim > 0 and self.may_be_written(t)), self.number()
        other = self.partner((pair[0].detach()[..., 0], None))

        def put(index, value):
            def call(lib, x, y):
                x[index] = y if value == "tensor" else k
            return call
        self.both(put(self.choice([..., 0, (..., 0), (..., slice(1, None))]), "number"), pair, other)
        if self.random.random() < 0.5 and other[0].ndim <= pair[0].ndim - 1:
            self.both(put((..., 0), "tensor"), pair, other)

    def switch(self):
        """Some steps without recording."""
        with tg.no_grad(), self.torch.no_grad():
            for _ in range(self.random.integers(1, 3)):
                self.choice([self.compute, self.view, self.write, self.assign])()

    def freeze(self):
        pair = self.choice(self.leaves)
        flag = bool(self.random.integers(2))
        self.both(lambda lib, x: x.requires_grad_(flag), pair)
        self.pairs = [p for p in self.pairs if p[1]._base is not pair[1]]      # PyTorch's views of it change with it, though they are leaves

    def new_leaf(self):
        if self.random.random() < 0.5:
            self.leaf(self.choice([(3,), (2, 3), (1, 2, 3, 3), ()]), bool(self.random.integers(2)))
        else:
            pair = tuple(self.both(lambda lib, x: x.detach().requires_grad_(), self.pick()))
            self.leaves.append(pair)
            self.keep(*pair)

    def hook(self):
        pair, k = self.pick(lambda t: t.requires_grad), self.number(0.5, 2.0)
        if not pair[1]._is_view():           # PyTorch forgets a view's hooks when its base is written to
            if self.random.random() < 0.6:
                self.both(lambda lib, x: x.register_hook(lambda g: g * k) and None, pair)
            elif not pair[0].is_leaf:
                self.both(lambda lib, x: x.retain_grad(), pair)

    def loss(self):
        pair = self.pick(lambda t: t.requires_grad)
        weights = self.random.uniform(0.5, 1.5, pair[0].shape)
        return self.both(lambda lib, x: (x * lib.tensor(weights)).sum(), pair)

    def walk(self):
        pair = self.loss()
        keep = bool(self.random.random() < 0.7)
        self.walked(lambda lib, x: x.backward(retain_graph=keep), pair)

    def walked(self, call, *pairs):
        """A refusal half-way may leave some gradients behind: the program ends with it."""
        try:
            return self.both(call, *pairs)
        except Refused as refusal:
            raise Ended(f"a walk back is refused: {refusal}") from refusal

    def grad(self):
        pair, target = self.loss(), self.pick(lambda t: t.requires_grad)
        if target[1]._is_view():               # a write to the base, recorded or not, cuts PyTorch's views of it off from one another
            return
        create = bool(self.random.random() < 0.5)
        found = self.walked(lambda lib, x, t: lib.autograd.grad(x, t, create_graph=create, retain_graph=True, allow_unused=True)[0], pair, target)
        assert (found[0] is None) == (found[1] is None), "only one is used"
        if found[0] is None:
            return
        if found[0].requires_grad != found[1].requires_grad:       # a derivative that is zero everywhere: relu's second
            found = [g.detach() for g in found]
        self.keep(*found)

    # ---- the whole --------------------------------------------------------------------------------------------------

    def run(self):
        steps = [self.compute] * 5 + [self.combine] * 3 + [self.view] * 6 + [self.write] * 5 + [self.assign] * 2 + [self.image] * 2
        steps += [self.switch, self.switch, self.freeze, self.new_leaf, self.hook, self.hook, self.walk, self.grad]
        refusals = collections.Counter()
        for _ in range(STEPS):
            try:
                self.choice(steps)()
            except Refused as refusal:
                refusals[str(refusal)] += 1
            self.compare()
        for _ in range(2):
            with contextlib.suppress(Refused):
                self.walk()
            self.compare()
        return refusals

    def compare(self):
        kept = []
        for ours, theirs in self.pairs:
            try:
                values = ours._values("compare")
            except RuntimeError as error:      # a copy in place of a view, whose original was written to
                assert "the original was written to since" in str(error)
                continue
            same("values", values, theirs)
            try:
                facts = theirs.requires_grad, theirs.is_leaf
            except RuntimeError:               # PyTorch's: one of several views, of which another was written to
                continue
            if ours._rebased == ours._storage.rebased:         # else its history is lost, which any use of it will say
                assert (ours.requires_grad, ours.is_leaf) == facts
            kept.append((ours, theirs))
        self.pairs = kept
        for ours, theirs in (*self.leaves, *kept):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")        # PyTorch's about .grad of a tensor that is no leaf
                gradient = theirs.grad
            assert (ours.grad is None) == (gradient is None), "only one has a gradient"
            if gradient is not None:
                same("gradients", ours.grad._data, gradient)


def same(what, ours, theirs):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    close = (ours == theirs) | (abs(ours - theirs) <= 1e-9 * (1 + abs(theirs))) | (np.isnan(ours) & np.isnan(theirs))
    assert close.all(), f"{what}: {ours} is not {theirs}"


def run_programs(seeds):
    """Why programs ended, and how often steps were refused for each reason."""
    torch = pytest.importorskip("torch")
    ends, refusals = collections.Counter(), collections.Counter()
    for seed in seeds:
        try:
            with np.errstate(all="ignore"):
                refusals += Program(torch, seed).run()
            ends["ran to its end"] += 1
        except Ended as end:
            ends[re.sub(r"\d+", "n", str(end))[:60]] += 1
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    return ends, refusals


def test_random_programs_compute_what_pytorch_computes():
    ends, refusals = run_programs(range(PROGRAMS))
    assert ends["ran to its end"] > PROGRAMS / 2, ends
    assert refusals.total() < PROGRAMS * STEPS / 4, refusals
