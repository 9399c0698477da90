"""Gradient ascent on the image: the steps by hand, the regularizers' closed forms, repeatability, honest failure."""

import json

import numpy as np
import pytest
from PIL import Image

import tinygrad_cnn as tg
from tinygrad_cnn import autograd, explain, nn

from .models import digits

QUIET = {"progress": False}


def linear(classes=3, shape=(2, 3, 4)):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes)).double()


def slope_of_r(image, l2, tv):
    """d/dI of -l2 sum I^2 - tv sum |differences|, pixel by pixel."""
    out = -2 * l2 * image
    rows, cols = image.shape[1:]
    for c, i, j in np.ndindex(image.shape):
        for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= a < rows and 0 <= b < cols:
                out[c, i, j] -= tv * np.sign(image[c, i, j] - image[c, a, b])
    return out


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bounds", [None, (-0.1, 0.3)])
def test_the_steps_by_hand(normalize, bounds):
    model, start = linear(), np.random.default_rng(3).uniform(-0.1, 0.3, (2, 3, 4))
    found = explain.maximize(model, 1, start=start, steps=6, lr=0.2, bounds=bounds, normalize=normalize,
                             regularizers=(explain.l2(0.3), explain.total_variation(0.05)), **QUIET)
    row, image, f = model[1].weight.numpy()[1].reshape(2, 3, 4), start.copy(), []
    for step in range(6):
        f.append((row * image).sum() + model[1].bias.numpy()[1])
        steep = np.sqrt((row**2).mean()) if normalize else 1
        image = image + 0.2 * (1 - step / 6) * (row / steep + slope_of_r(image, 0.3, 0.05))
        image = image if bounds is None else np.clip(image, *bounds)
    np.testing.assert_allclose(found.image[0], image, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.history[:6, 0], f, rtol=1e-12)
    np.testing.assert_allclose(found.activation, (row * image).sum() + model[1].bias.numpy()[1], rtol=1e-12)
    assert np.array_equal(found.start[0], start)


def test_it_comes_to_rest_where_the_slopes_of_f_and_r_cancel():
    """f linear, R = -w |I|^2: with the slope of f set to rms 1, I* = row / rms(row) / (2 w)."""
    model = linear()
    found = explain.maximize(model, [0, 2], shape=(2, 3, 4), steps=400, lr=0.1, bounds=None, regularizers=[explain.l2(0.5)], **QUIET)
    for image, k in zip(found.image, (0, 2), strict=True):
        row = model[1].weight.numpy()[k].reshape(2, 3, 4)
        np.testing.assert_allclose(image, row / np.sqrt((row**2).mean()), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_f_rises_on_a_network_with_batch_norm_in_grey_and_colour(channels):
    model = digits(channels)
    found = explain.maximize(model, range(5), start="noise", shape=(channels, 8, 8), steps=30, **QUIET)
    assert found.image.shape == (5, channels, 8, 8) and found.image.dtype == tg.float64
    assert (found.activation > found.history[0]).all() and found.history.shape == (31, 5)
    assert found.image.min().item() >= 0 and found.image.max().item() <= 1


def test_the_activation_is_that_of_the_image_returned():
    model = digits()
    found = explain.maximize(model, explain.channel("conv2", [1, 4]), start="noise", shape=(1, 8, 8), steps=4, **QUIET)
    reached = explain.activations(model, found.image, "conv2").mean((2, 3)).numpy()[[0, 1], [1, 4]]
    np.testing.assert_allclose(found.activation, reached, rtol=1e-12)


@pytest.mark.parametrize("start", ["zeros", "noise"])
def test_the_same_call_gives_the_same_bits(start):
    model = digits().float()
    def call(seed):
        tg.randn(3)                            # whatever was drawn before must not matter
        return explain.maximize(model, [0, 1], start=start, shape=(1, 8, 8), steps=12, seed=seed, **QUIET)
    first, again, other = call(5), call(5), call(6)
    assert first.image.numpy().tobytes() == again.image.numpy().tobytes()
    assert first.history.tobytes() == again.history.tobytes() and first.recipe == again.recipe
    assert (first.image.numpy().tobytes() == other.image.numpy().tobytes()) == (start == "zeros")


def test_a_model_with_randomness_of_its_own_is_repeatable_too():
    class Shaky(nn.Module):
        def forward(self, x):
            return (x + tg.rand(*x.shape)).flatten(1)[:, :2]
    first = explain.maximize(Shaky(), 0, shape=(1, 2, 2), steps=3, **QUIET)
    tg.randn(3)
    again = explain.maximize(Shaky(), 0, shape=(1, 2, 2), steps=3, **QUIET)
    assert np.array_equal(first.history, again.history)


def test_images_of_a_batch_do_not_mix():
    model = digits()
    together = explain.maximize(model, [3, 0], start="noise", shape=(1, 8, 8), steps=10, **QUIET)
    for i, k in enumerate((3, 0)):
        alone = explain.maximize(model, k, start=together.start[i], steps=10, **QUIET)
        np.testing.assert_allclose(alone.image[0], together.image[i], rtol=1e-9, atol=1e-12)


def test_from_an_existing_image_it_stays_near_and_leaves_the_caller_s_alone():
    model, image = digits(), tg.rand(1, 8, 8, dtype=tg.float64, requires_grad=True)
    before = np.array(image.detach())
    found = explain.maximize(model, [0, 1], start=image, steps=3, lr=0.01, regularizers=(), **QUIET)
    assert found.image.shape == (2, 1, 8, 8) and found.recipe["start"] == "image"
    moved = found.image.numpy() - before
    assert (np.sqrt((moved**2).mean((1, 2, 3))) <= 0.01 * (1 + 2 / 3 + 1 / 3)).all() and moved.any((1, 2, 3)).all()
    assert np.array_equal(image.detach(), before) and image.requires_grad and image.grad is None


def test_small_steps_do_not_depend_on_the_scale_of_the_network():
    model = linear()
    first = explain.maximize(model, 0, shape=(2, 3, 4), steps=5, **QUIET)
    with tg.no_grad():
        model[1].weight.mul_(1e-6)
    np.testing.assert_allclose(explain.maximize(model, 0, shape=(2, 3, 4), steps=5, **QUIET).image, first.image, rtol=1e-9)


def test_regularizers_closed_forms():
    flat = tg.full((2, 3, 4, 5), 0.5, dtype=tg.float64)
    np.testing.assert_allclose(explain.l2(2.0)(flat), [-2 * 0.25 * 60] * 2)
    assert explain.total_variation(2.0)(flat).tolist() == [0.0, 0.0]
    ramp = tg.tensor(np.arange(4.0)[:, None] * np.ones((1, 1, 4, 5)))           # three steps of 1 down each of 5 columns
    assert explain.total_variation(2.0)(ramp).tolist() == [-30.0]
    image = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    steps = np.abs(np.diff(image, axis=2)).sum((1, 2, 3)) + np.abs(np.diff(image, axis=3)).sum((1, 2, 3))
    np.testing.assert_allclose(explain.total_variation(0.7)(tg.tensor(image)), -0.7 * steps, rtol=1e-12)
    assert explain.total_variation(1.0)(tg.ones(1, 1, 1, 1)).tolist() == [0.0]


@pytest.mark.parametrize("regularizer", [explain.l2(0.3), explain.total_variation(0.7)])
def test_regularizers_gradients(regularizer):
    image = tg.randn(2, 2, 3, 4, dtype=tg.float64, requires_grad=True)
    assert autograd.gradcheck(regularizer, (image,))
    cotangent = tg.randn(2, dtype=tg.float64)
    (gradient,) = autograd.grad(regularizer(image), image, cotangent)
    l2, tv = (0.3, 0.0) if regularizer.label == "l2(0.3)" else (0.0, 0.7)
    wanted = [c * slope_of_r(one, l2, tv) for c, one in zip(cotangent.numpy(), np.array(image.detach()), strict=True)]
    np.testing.assert_allclose(gradient, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("make", [explain.l2, explain.total_variation])
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_regularizers_take_off_never_add(make, weight):
    with pytest.raises(ValueError, match=f"{make.__name__}: weight must be (0 or more|a number)"):
        make(weight)


def test_an_own_regularizer():
    def brightness(image):
        return -100 * image.mean((1, 2, 3))
    model = linear()
    bright = explain.maximize(model, 0, shape=(2, 3, 4), regularizers=(), bounds=(-1, 1), **QUIET)
    dark = explain.maximize(model, 0, shape=(2, 3, 4), regularizers=[brightness], bounds=(-1, 1), **QUIET)
    assert dark.image.mean().item() < bright.image.mean().item() and dark.recipe["regularizers"] == ["brightness"]
    with pytest.raises(ValueError, match=r"regularizer <lambda> .* shape \(1,\), got \(\)"):
        explain.maximize(model, 0, shape=(2, 3, 4), regularizers=[lambda image: image.sum()], **QUIET)


def test_a_dead_unit_is_named_not_painted_grey():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
    with tg.no_grad():
        model[0].bias.copy_(tg.tensor([1.0, -100.0, 1.0]))
    with pytest.warns(UserWarning, match=r"channel\('1', \[0, 1, 2\]\) did not respond in 5 steps from start 'zeros'.*in image 1;"):
        found = explain.maximize(model, explain.channel("1", range(3)), shape=(1, 6, 6), steps=5, bounds=(-1, 1), **QUIET)
    assert found.unresponsive == (1,) and found.recipe["activation"][1] == 0
    with pytest.warns(UserWarning, match=r"from start 'image'.*in image 1;"):     # R alone moves the image; f shows nothing
        found = explain.maximize(model, explain.channel("1", range(3)), start=tg.rand(1, 6, 6), steps=5, **QUIET)
    assert found.unresponsive == (1,) and not np.array_equal(found.image[1], found.start[1])


def test_an_image_that_can_only_leave_the_bounds_is_named():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    with tg.no_grad():
        model[1].weight.fill_(-1.0)
    with pytest.warns(UserWarning, match=r"R and bounds=\(0\.0, 1\.0\) leave it no way"):
        assert explain.maximize(model, 0, shape=(1, 2, 2), steps=3, **QUIET).unresponsive == (0,)


def test_bounds_and_steps_of_numpy_types_keep_float32():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    found = explain.maximize(model, [0, 1], start="noise", shape=(1, 2, 2), steps=3, lr=np.float64(0.1),
                             bounds=(np.float64(-1), np.float64(1)), **QUIET)
    assert found.image.dtype == tg.float32 and json.loads(json.dumps(found.recipe)) == found.recipe


def test_the_picture_carries_its_recipe(tmp_path):
    found = explain.maximize(digits(), range(2), start="noise", shape=(1, 8, 8), steps=3, seed=4, **QUIET)
    path = found.picture(enlarge=1, pad=0).save(tmp_path / "classes.png")
    with Image.open(path) as read:
        text = {key: json.loads(value) for key, value in read.text.items()}
        pixels = np.asarray(read)
    assert text == {"objective": "class_logit([0, 1])", "start": "noise", "shape": [2, 1, 8, 8], "steps": 3, "lr": 0.05, "seed": 4,
                    "regularizers": ["l2(0.1)", "total_variation(0.3)"], "bounds": [0.0, 1.0], "normalize": True,
                    "activation": found.activation.tolist(), "scale": [0.0, 1.0]}
    assert np.array_equal(pixels[:, 8:, 0], np.floor(found.image[1, 0].numpy() * 255 + 0.5))


def test_the_progress_bar_goes_to_stderr_and_shows_the_activation(capsys):
    found = explain.maximize(linear(), 0, shape=(2, 3, 4), steps=3)
    out, err = capsys.readouterr()
    assert out == "" and "class_logit(0)" in err and "3/3" in err and f"activation={found.activation[0]:.3g}" in err
    explain.maximize(linear(), 0, shape=(2, 3, 4), steps=3, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("options, error, words", [
    ({}, ValueError, "pass shape=(C, H, W)"),
    ({"shape": (2, 12)}, ValueError, "got shape=(2, 12)"),
    ({"shape": (2, 3, 4), "start": "ones"}, ValueError, "'zeros', 'noise' or an image, got 'ones'"),
    ({"shape": (2, 3, 4), "start": np.zeros((2, 3, 4))}, ValueError, "leave shape=(2, 3, 4) out"),
    ({"start": np.zeros((3, 4))}, ValueError, "got (3, 4)"),
    ({"start": np.zeros((2, 3, 4), int)}, TypeError, "float32 or float64, got int64"),
    ({"start": np.full((2, 3, 4), 2.0)}, ValueError, "2 to 2, do not lie in bounds=(0.0, 1.0)"),
    ({"start": np.zeros((2, 2, 3, 4)), "objective": [0, 1, 2]}, ValueError, "about 3 images, start has 2"),
    ({"shape": (2, 3, 4), "steps": 0}, ValueError, "steps must be an integer of 1 or more, got 0"),
    ({"shape": (2, 3, 4), "lr": -1}, ValueError, "lr must be greater than 0, got -1"),
    ({"shape": (2, 3, 4), "bounds": (1, 0)}, ValueError, "bounds must be (lowest, highest)"),
    ({"shape": (2, 3, 4), "objective": "cat"}, TypeError, "got 'cat'"),
    ({"shape": (2, 3, 4), "objective": 3}, IndexError, "class 3 is out of range, there are 3"),
    ({"shape": (2, 3, 4), "objective": lambda out: out[:, 0] / 0}, FloatingPointError, "step 0"),
])
def test_wrong_arguments_are_named(options, error, words):
    with pytest.raises(error, match="maximize|class_logit") as caught:
        explain.maximize(linear(), **{"objective": 0, **options}, **QUIET)
    assert words in str(caught.value)
