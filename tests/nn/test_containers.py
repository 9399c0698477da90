"""Sequential, ModuleList, ModuleDict, ParameterList."""

from collections import OrderedDict

import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn


def names(module):
    return [name for name, _ in module.named_children()]


def test_sequential_runs_in_order():
    class Add(nn.Module):
        def forward(self, x):
            return x + 1

    class Double(nn.Module):
        def forward(self, x):
            return x * 2

    assert nn.Sequential(Add(), Double(), Add())(tg.tensor(1.0)).item() == 5
    assert nn.Sequential()(tg.tensor(1.0)).item() == 1


def test_sequential_from_an_ordered_dict_keeps_names():
    model = nn.Sequential(OrderedDict(first=nn.ReLU(), second=nn.Tanh()))
    assert names(model) == ["first", "second"]
    assert model.first is model[0]
    part = model[1:]
    assert type(part) is nn.Sequential and names(part) == ["second"] and part[0] is model[1]


@pytest.mark.parametrize("make", [lambda *m: nn.Sequential(*m), lambda *m: nn.ModuleList(m)])
def test_list_operations(make):
    a, b, c, d = nn.ReLU(), nn.Tanh(), nn.SiLU(), nn.GELU()
    modules = make(a, b)
    assert len(modules) == 2 and list(modules) == [a, b] and modules[-1] is b and b in modules
    assert modules.append(c) is modules
    modules.insert(1, d)
    assert list(modules) == [a, d, b, c] and names(modules) == ["0", "1", "2", "3"]
    del modules[0]
    assert list(modules) == [d, b, c] and names(modules) == ["0", "1", "2"]
    modules[1] = a
    assert list(modules) == [d, a, c]
    assert modules.pop() is c and list(modules) == [d, a]
    modules.extend([b, c])
    assert list(modules[1:3]) == [a, b] and type(modules[1:3]) is type(modules)
    assert list(modules[::-1]) != []
    del modules[1:3]
    assert list(modules) == [d, c] and names(modules) == ["0", "1"]


def test_module_list_adds_in_place():
    modules = nn.ModuleList([nn.ReLU()])
    modules += [nn.Tanh()]
    assert [type(m).__name__ for m in modules] == ["ReLU", "Tanh"]


@pytest.mark.parametrize(("act", "error", "message"), [
    (lambda m: m[2], IndexError, "Sequential: index 2 is out of range for 2 entries"),
    (lambda m: m[-3], IndexError, "index -3"),
    (lambda m: m.append(nn.ReLU), TypeError, "must be a Module or None, got type"),
    (lambda m: m.insert(0, 3), TypeError, "wanted a Module, got int"),
    (lambda m: m.__setitem__(0, tg.ones(1)), TypeError, "as child module '0'"),
    (lambda m: m.__delitem__(5), IndexError, "index 5"),
])
def test_bad_use_of_a_sequence_changes_nothing(act, error, message):
    modules = nn.Sequential(nn.ReLU(), nn.Tanh())
    before = list(modules)
    with pytest.raises(error, match=message):
        act(modules)
    assert list(modules) == before


def test_sequential_refuses_what_is_not_a_module():
    with pytest.raises(TypeError, match="must be a Module or None, got function"):
        nn.Sequential(nn.Linear(2, 2), lambda x: x)
    with pytest.raises(KeyError, match="dot"):
        nn.Sequential(OrderedDict({"a.b": nn.ReLU()}))


def test_module_dict():
    modules = nn.ModuleDict({"a": nn.ReLU()})
    modules["b"] = nn.Linear(2, 2)
    modules.update([("c", nn.Tanh())])
    assert list(modules) == list(modules.keys()) == ["a", "b", "c"]
    assert len(modules) == 3 and "b" in modules and modules["b"] is modules.b
    assert [type(m).__name__ for m in modules.values()] == ["ReLU", "Linear", "Tanh"]
    assert list(modules.state_dict()) == ["b.weight", "b.bias"]
    assert isinstance(modules.pop("b"), nn.Linear)
    del modules["a"]
    assert [k for k, _ in modules.items()] == ["c"]
    modules.clear()
    assert len(modules) == 0
    with pytest.raises(KeyError, match="nothing"):
        modules["nothing"]


def test_parameter_list():
    values = nn.ParameterList([tg.ones(2), nn.Parameter(tg.zeros(3))])
    values.append(tg.ones(1))
    values[-1] = tg.zeros(4)
    assert [name for name, _ in values.named_parameters()] == ["0", "1", "2"]
    assert [p.shape for p in values] == [(2,), (3,), (4,)]
    assert values[0].requires_grad and len(values[1:]) == 2
    assert repr(nn.ParameterList([tg.ones(2, 3)])) == "ParameterList((0): Parameter containing: [float32 of size 2x3])"
    with pytest.raises(IndexError, match="out of range for 3 entries"):
        values[3]
