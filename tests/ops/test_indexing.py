"""Indexing against NumPy's: reading, writing, and gradients that add up where an element is taken twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_cnn as tg

INDICES = [
    0, -1, slice(None), slice(1, None), slice(None, None, -1), slice(3, 0, -2), slice(2, 2), Ellipsis, None, (), (0, 1), (0, 1, 2), (slice(None), 1), (Ellipsis, 1), (1, Ellipsis),
    (None, 0, None), (slice(None), None, slice(1, 3)), (0, slice(None), -1), [0, 2], [[0, 1], [2, 2]], (slice(None), [0, 0, 2]), ([0, 1, 1], [2, 2, 0]), ([[0], [1]], [[0, 2]]),
    ([0, 1], slice(None), [1, 3]), (slice(1, 3), [0, 1], None), ([0, 0, 0],), np.array([True, False, True]), (slice(None), np.array([True, True, False])),
    (np.array([True, False, True]), [0, 1]), np.zeros(3, bool), [], np.array(1), (np.int64(1), 2), (Ellipsis, [3, 3]), True, False,
]


def base():
    return np.arange(36.0).reshape(3, 3, 4)


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_reading_writing_and_gradient(index):
    a = base()
    x = tg.tensor(a, requires_grad=True)
    expected = a[index]
    out = x[index]
    assert out.shape == expected.shape
    np.testing.assert_array_equal(out.numpy(), expected)
    g = np.random.default_rng(0).standard_normal(expected.shape)
    out.backward(g)
    gradient = np.zeros_like(a)
    np.add.at(gradient, index, g)
    np.testing.assert_allclose(x.grad.numpy(), gradient)
    written, target = a.copy(), tg.tensor(a)
    written[index], target[index] = g, tg.tensor(g)
    np.testing.assert_array_equal(target.numpy(), written)
    written[index], target[index] = 7, 7
    np.testing.assert_array_equal(target.numpy(), written)


@pytest.mark.parametrize("index", [(tg.tensor([0, 2]),), (tg.tensor(1),), (slice(None), tg.tensor([[0, 1]])), (tg.tensor([True, False, True]),), (slice(tg.tensor(1), None),)], ids=repr)
def test_tensors_as_indices(index):
    a = base()
    plain = tuple(np.asarray(i) if isinstance(i, tg.Tensor) else slice(1, None) if isinstance(i, slice) and i.start is not None else i for i in index)
    np.testing.assert_array_equal(tg.tensor(a)[index].numpy(), a[plain])


def test_a_mask_of_comparison():
    x = tg.tensor([1.0, -2.0, 3.0], requires_grad=True)
    x[x > 0].sum().backward()
    assert x.grad.tolist() == [1, 0, 1]
    y = tg.tensor([1.0, -2.0, 3.0])
    y[y < 0] = 0.0
    assert y.tolist() == [1, 0, 3]


def test_basic_indexing_gives_views_and_advanced_copies():
    x = tg.tensor(base())
    assert np.shares_memory(x[0]._data, x._data) and np.shares_memory(x[:, ::-1, None]._data, x._data)
    assert not np.shares_memory(x[[0]]._data, x._data)


@pytest.mark.parametrize(("index", "message"), [
    (3, "getitem: .*out of bounds"), ((0, 0, 0, 0), "getitem: too many indices"), (1.5, "getitem: an index must be made of ints.*float64"), ("a", "getitem"),
    ([0.5], "getitem"), (np.ones(4, bool), "getitem: boolean index"), ([5], "getitem: .*out of bounds"), (([0, 1], [0, 1, 2]), "getitem: .*broadcast"),
])
def test_wrong_indices(index, message):
    x = tg.tensor(base())
    with pytest.raises(IndexError, match=message):
        x[index]
    with pytest.raises((IndexError, ValueError)):
        x[index] = 1.0
    assert x._storage.version == 0


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_index_numpy_takes(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    basic = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    advanced = data.draw(hnp.integer_array_indices(shape))
    mask = data.draw(hnp.arrays(bool, shape))
    a = np.random.default_rng(0).standard_normal(shape)
    for index in (basic, advanced, mask):
        x = tg.tensor(a, requires_grad=True)
        out = x[index]
        np.testing.assert_array_equal(out.numpy(), a[index])
        g = np.random.default_rng(1).standard_normal(out.shape)
        out.backward(g)
        gradient = np.zeros(shape)
        np.add.at(gradient, index, g)
        np.testing.assert_allclose(x.grad.numpy(), gradient, atol=1e-12)


def test_gather_and_scatter_add():
    a, index = np.arange(6.0).reshape(2, 3), np.array([[2, 0], [1, 1]])
    x = tg.tensor(a, requires_grad=True)
    out = x.gather(1, tg.tensor(index))
    np.testing.assert_array_equal(out.numpy(), np.take_along_axis(a, index, 1))
    out.backward(tg.tensor([[1.0, 10.0], [100.0, 1000.0]]))
    assert x.grad.tolist() == [[10, 0, 1], [0, 1100, 0]]
    base_, src = tg.zeros(3, requires_grad=True), tg.tensor([1.0, 2.0, 4.0], requires_grad=True)
    summed = base_.scatter_add(0, tg.tensor([0, 2, 0]), src)
    assert summed.tolist() == [5, 0, 2]
    summed.backward(tg.tensor([1.0, 2.0, 3.0]))
    assert src.grad.tolist() == [1, 3, 1] and base_.grad.tolist() == [1, 2, 3]


@st.composite
def along(draw):
    """A shape, a dim, and an index that fits: outside the dim it may be smaller, and the source larger than it."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4))
    dim = draw(st.integers(-max(len(shape), 1), max(len(shape), 1) - 1))
    d = dim % max(len(shape), 1)
    sizes = [draw(st.integers(0, 5 if i == d else n)) for i, n in enumerate(shape)]
    size = shape[d] if shape else 1
    index = np.asarray(draw(hnp.arrays(np.int64, tuple(sizes), elements=st.integers(0, size - 1))))
    source = tuple(n + draw(st.integers(0, 1)) for n in sizes)
    return shape, dim, d, index, source


@settings(deadline=None, max_examples=200)
@given(along())
def test_gather_and_scatter_add_of_any_shape(case):
    shape, dim, d, index, source = case
    random = np.random.default_rng(0)
    x, src = (tg.tensor(random.standard_normal(s), requires_grad=True) for s in (shape, source))
    picked, summed = x.gather(dim, tg.tensor(index)), x.scatter_add(dim, tg.tensor(index), src)
    places = {at: (*at[:d], int(index[at]), *at[d + 1 :])[: len(shape)] for at in np.ndindex(index.shape)}
    assert picked.shape == index.shape and all(picked._data[at] == x._data[place] for at, place in places.items())
    g, h = random.standard_normal(picked.shape), random.standard_normal(shape)
    total, to_x, to_src = x.numpy().copy(), np.zeros(shape), np.zeros(source)
    for at, place in places.items():
        total[place] += src._data[at]
        to_x[place] += g[at]
        to_src[at] = h[place]
    np.testing.assert_allclose(summed.numpy(), total, rtol=1e-12)
    np.testing.assert_allclose(tg.autograd.grad(picked, x, tg.tensor(g))[0].numpy(), to_x, rtol=1e-12)
    got_x, got_src = tg.autograd.grad(summed, [x, src], tg.tensor(h))
    np.testing.assert_array_equal(got_x.numpy(), h)
    np.testing.assert_array_equal(got_src.numpy(), to_src)


def test_indices_of_numbers():
    z, line = tg.tensor(5.0), tg.tensor([1.0, 2.0, 3.0])
    assert z.gather(0, tg.tensor([0, 0])).tolist() == [5, 5] and line.gather(0, tg.tensor(2)).item() == 3 and line.gather(0, tg.tensor(2)).shape == ()
    assert z.index_select(0, tg.tensor([0])).shape == () and z.index_select(0, tg.tensor(0)).item() == 5 and line.index_select(0, tg.tensor(1)).tolist() == [2]
    assert z.scatter_add(0, tg.tensor([0, 0]), tg.tensor([2.0, 3.0])).item() == 10 and line.scatter_add(0, tg.tensor(1), tg.tensor(2.0)).tolist() == [1, 4, 3]
    for call, error, message in ((lambda: z.index_select(0, tg.tensor([0, 0])), ValueError, "index_select: of a 0-d x one slice"),
                                 (lambda: z.index_select(0, tg.tensor(1)), IndexError, "index_select: index must lie in 0 .. 0"),
                                 (lambda: z.gather(0, tg.tensor(1)), IndexError, "gather"), (lambda: z.gather(1, tg.tensor(0)), IndexError, "gather: dim 1"),
                                 (lambda: line.scatter_add(0, tg.tensor([0]), tg.tensor([1.0], dtype=tg.float64)), TypeError, "scatter_add: src must have x's dtype")):
        with pytest.raises(error, match=message):
            call()


def test_no_dims_are_none_where_pytorch_says_so():
    x = tg.tensor([[[1.0], [0.0]]])
    assert x.squeeze(()).shape == (1, 2, 1) and x.squeeze((0, 2)).shape == (2,) and x.squeeze((1,)).shape == (1, 2, 1)
    assert x.any(()).tolist() == x.all(()).tolist() == [[[True], [False]]]
    assert x.sum(()).item() == 1 and x.mean(()).item() == 0.5 and x.amax(()).item() == 1           # here they are all dims


def test_masked_select_and_fill():
    x, mask = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True), tg.tensor([[True], [False]])
    assert x.masked_select(mask).tolist() == [1, 2] and x.masked_fill(mask, -1.0).tolist() == [[-1, -1], [3, 4]]
    x.masked_fill(mask, -1.0).sum().backward()
    assert x.grad.tolist() == [[0, 0], [1, 1]]
