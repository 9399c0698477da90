"""Pictures of known arrays: grey levels, scales, places of the tiles, PNG files."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import tinygrad_cnn as tg
from tinygrad_cnn import explain


def test_one_scale_for_all_images_and_zero_is_mid_grey():
    images = np.array([[[[-4.0, 0.0]]], [[[1.0, 2.0]]]])
    picture = explain.grid(images, columns=2, enlarge=1, pad=0)
    # (value + 4) / 8 * 255 rounded to the nearest, halves up
    assert picture.pixels[0, :, 0].tolist() == [0, 128, 159, 191]
    assert picture.info["scale"] == (-4.0, 4.0)


def test_values_without_a_sign_go_from_black_to_white():
    assert explain.grid(np.array([[[0.0, 0.5, 2.0]]]), enlarge=1).pixels[0, :, 0].tolist() == [0, 64, 255]


def test_a_given_scale_cuts():
    picture = explain.grid(np.array([[[-1.0, 0.0, 1.0, 9.0]]]), scale=(0, 1), enlarge=1)
    assert picture.pixels[0, :, 0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("value, level", [(0.0, 0), (3.0, 255), (-3.0, 0)])
def test_constant_images(value, level):
    assert (explain.grid(np.full((2, 1, 3, 3), value), enlarge=1, pad=0).pixels == level).all()


def test_colour_channels_stay_red_green_blue():
    image = np.zeros((1, 3, 1, 3))
    image[0, 0, 0, 0] = image[0, 1, 0, 1] = image[0, 2, 0, 2] = 1
    assert explain.grid(image, enlarge=1).pixels.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


def test_tiles_lie_row_by_row_enlarged_with_white_lines_between():
    images = np.arange(5.0)[:, None, None, None] * np.ones((1, 1, 2, 2))
    pixels = explain.grid(images, columns=3, enlarge=3, pad=1).pixels[:, :, 0]
    assert pixels.shape == (2 * 6 + 1, 3 * 6 + 2)
    for i in range(5):
        top, left = (i // 3) * 7, (i % 3) * 7
        assert (pixels[top:top + 6, left:left + 6] == int(i * 255 / 4 + 0.5)).all()
    assert (pixels[6] == 255).all() and (pixels[:, 6] == 255).all()
    assert (pixels[7:, 14:] == 255).all()      # the place of a sixth image stays white


def test_enlarging_repeats_pixels_and_invents_none():
    image = np.random.default_rng(0).random((1, 1, 5, 7))
    small, large = explain.grid(image, enlarge=1).pixels, explain.grid(image, enlarge=4).pixels
    assert np.array_equal(large[::4, ::4], small) and np.array_equal(large[3::4, 3::4], small)


@pytest.mark.parametrize("count, columns", [(1, 1), (3, 3), (7, 3), (10, 5), (12, 4), (16, 4), (32, 8), (64, 8)])
def test_default_columns_leave_no_hole_near_the_square(count, columns):
    assert explain.grid(np.ones((count, 1, 2, 2)), enlarge=1, pad=0).pixels.shape[1] == 2 * columns


def test_float32_extremes_do_not_overflow():
    image = np.array([[[-3e38, 0.0, 3e38]]], np.float32)
    assert explain.grid(image, enlarge=1).pixels[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("images, error, words", [
    (np.ones((2, 4, 3, 3)), ValueError, "got (2, 4, 3, 3)"),
    (np.ones((3, 3)), ValueError, "got (3, 3)"),
    (np.ones((0, 1, 3, 3)), ValueError, "empty"),
    (np.array([[[np.nan]]]), ValueError, "NaN"),
    (np.array([[[np.inf]]]), ValueError, "NaN or infinity"),
    (np.array([[[1j]]]), TypeError, "complex128"),
    ([[[1.0]]], TypeError, "list"),
])
def test_wrong_images_are_named(images, error, words):
    with pytest.raises(error, match="grid") as caught:
        explain.grid(images)
    assert words in str(caught.value)


@pytest.mark.parametrize("options, words", [({"columns": 0}, "columns"), ({"enlarge": 0}, "enlarge"), ({"pad": -1}, "pad"),
                                            ({"scale": (1, 1)}, "scale")])
def test_wrong_options_are_named(options, words):
    with pytest.raises(ValueError, match=f"grid: {words}"):
        explain.grid(np.ones((1, 1, 2, 2)), **options)


def test_png_round_trip_with_metadata(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    info = {"objective": "class_logit(3) ≥ „x“", "seed": 7, "regularizers": ["l2(0.1)"], "bounds": None}
    path = explain.Picture(pixels, info).save(tmp_path / "picture.png")
    with Image.open(path) as read:
        assert np.array_equal(np.asarray(read), pixels)
        assert {key: json.loads(value) for key, value in read.text.items()} == info


def test_a_notebook_gets_the_same_bytes_as_the_file(tmp_path):
    picture = explain.grid(np.eye(4)[None])
    assert picture._repr_png_() == picture.save(tmp_path / "x.PNG").read_bytes() == picture.png()
    with Image.open(io.BytesIO(picture.png())) as read:
        assert np.array_equal(np.asarray(read), np.asarray(picture))


def test_only_png_and_only_pictures(tmp_path):
    with pytest.raises(ValueError, match=r"name it x\.png"):
        explain.grid(np.ones((1, 2, 2))).save(tmp_path / "x.jpg")
    with pytest.raises(ValueError, match=r"\(2, 2\) and float64"):
        explain.Picture(np.ones((2, 2)))


def test_filters_over_three_channels_are_in_colour_and_share_a_scale():
    weight = np.zeros((2, 3, 1, 2))
    weight[0, 0, 0, 0], weight[1, 2, 0, 1] = 1.0, -0.5
    picture = explain.filters(tg.tensor(weight), enlarge=1, pad=0)
    assert picture.pixels.tolist() == [[[255, 128, 128], [128, 128, 128], [128, 128, 128], [128, 128, 64]]]


def test_zero_is_mid_grey_in_filters_also_without_negative_weights():
    assert explain.filters(np.array([[[[0.0, 1.0]]]]), enlarge=1).pixels[0, :, 0].tolist() == [128, 255]


def test_filters_over_other_channels_are_a_row_of_slices_each():
    weight = np.arange(3 * 2.0).reshape(3, 2, 1, 1)
    levels = explain.filters(weight, enlarge=1, pad=0).pixels[:, :, 0]
    assert levels.tolist() == [[int((v + 5) / 10 * 255 + 0.5) for v in row] for row in ((0, 1), (2, 3), (4, 5))]


def test_filters_of_layers():
    conv, dense = tg.nn.Conv2d(3, 8, 5), tg.nn.Linear(12, 2)
    assert explain.filters(conv, enlarge=1, pad=0).pixels.shape == (10, 20, 3)
    drawn = explain.filters(dense, shape=(3, 2, 2), enlarge=1, pad=0).pixels
    rows = dense.weight.detach().numpy().reshape(2, 3, 2, 2)
    limit = np.abs(rows).max()
    assert np.array_equal(drawn[:, :2], np.floor((rows[0].transpose(1, 2, 0) / limit + 1) * 127.5 + 0.5))


def test_filters_say_what_they_need():
    with pytest.raises(TypeError, match="ReLU"):
        explain.filters(tg.nn.ReLU())
    with pytest.raises(ValueError, match=r"got \(2, 12\).*shape=\(C, H, W\)"):
        explain.filters(tg.nn.Linear(12, 2))
    with pytest.raises(ValueError, match=r"got \(1, 2, 2\) for weights \(2, 12\)"):
        explain.filters(tg.nn.Linear(12, 2), shape=(1, 2, 2))


def test_activation_grid_has_a_row_per_image():
    values = np.random.default_rng(2).random((2, 8, 3, 3))
    pixels = explain.activation_grid(values, enlarge=1, pad=0).pixels
    assert pixels.shape == (6, 24, 3)
    assert np.array_equal(pixels[3:, 6:9, 0], np.floor(values[1, 2] / values.max() * 255 + 0.5))
    assert np.array_equal(explain.activation_grid(values[0]).pixels, explain.activation_grid(values[:1]).pixels)
    with pytest.raises(ValueError, match=r"got \(4, 10\)"):
        explain.activation_grid(np.ones((4, 10)))


def test_overlay_reddens_by_the_share_of_each_maps_greatest_value():
    images = np.array([[[[0.0, 1.0]]], [[[1.0, 0.0]]]])
    picture = explain.overlay(images, np.array([[[0.0, 1.0]], [[5.0, 10.0]]]), columns=1, enlarge=1, pad=0)
    assert picture.pixels.tolist() == [[[0, 0, 0], [255, 60, 0]], [[255, 158, 128], [255, 60, 0]]]


def test_overlay_refuses_signed_and_misfitting_maps():
    with pytest.raises(ValueError, match="saliency_map"):
        explain.overlay(np.ones((1, 1, 2, 2)), -np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match=r"got \(1, 1, 2, 2\) and \(1, 2, 3\)"):
        explain.overlay(np.ones((1, 1, 2, 2)), np.ones((1, 2, 3)))
    assert (explain.overlay(np.ones((1, 1, 2, 2)), np.zeros((1, 2, 2)), enlarge=1).pixels == 255).all()
