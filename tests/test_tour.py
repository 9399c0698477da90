"""The tour end to end, short, and its command line."""

import re

import numpy as np
import pytest
from PIL import Image

import tinygrad_cnn as tg
from tinygrad_cnn import tour
from tinygrad_cnn.__main__ import main

PICTURES = ["layers", "training", "model", "graph", "filters", "digit", "activations_1", "activations_2", "activations_3",
            "saliency_right", "saliency_wrong", "ascent", "ascent_from_image"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tour")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "COMPARED_EPOCHS", 1)
        assert main(["tour", "--out", str(folder), "--epochs", "1", "--seed", "3"]) == 0
    return folder


def test_every_picture_is_there_and_shows_something(made):
    for name in PICTURES:
        pixels = np.asarray(Image.open(made / f"{name}.png").convert("L"))
        assert pixels.shape[0] >= 80 and pixels.std() > 5, name
    assert {path.stem for path in made.glob("*.png")} == set(PICTURES)
    assert all((made / f"{name}.svg").read_text(encoding="utf-8").count("<svg") == 1 for name in ("model", "graph"))


def test_the_report_stands_alone_and_its_numbers_are_right(made):
    text = (made / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert text.count("<img") == len(PICTURES) - 2 and text.count("<svg") == 2
    for formula in ("= 1,230,880", "14·14·((4·4·1)·8 + 8) = 26,656", "(4·4·1)·8 + 8 = 136", "(28 − 4 + 2·1)/2 + 1 = 14",
                    "(28 − 5 + 2·2)/1 + 1 = 28", "(5·5·1)·16 + 16 = 416", "(5·5·16)·32 + 32 = 12,832", "(3·3·32)·64 + 64 = 18,496",
                    "3,136·10 + 10 = 31,370"):
        assert formula in text, formula
    right = int(re.search(r"<b>(\d+) of 1,000</b>", text)[1])
    assert right > 900                                                   # one epoch; chance would be 100
    table = re.search(r"<table><thead><tr><th[^>]*>true.*?</table>", text, re.DOTALL)[0]
    rows = [[int(v) if v else 0 for v in re.findall(r"<td[^>]*>(\d*)</td>", row)] for row in table.split("<tr>")[2:]]
    confusion = np.array(rows)[:, 1:]
    labels = np.asarray(tg.data.mnist5k(train=False)[:][1])
    np.testing.assert_array_equal(confusion.sum(1), np.bincount(labels))
    assert np.trace(confusion) == right


def test_formulas_agree_with_the_network():
    model = tour.network()
    rows = tour.derive(model, tg.zeros(1, 1, 28, 28))
    assert [row[2] for row in rows[:1]] == ["16 × 28 × 28"] and rows[-1][-1] == sum(p.numel() for p in model.parameters())
    for row in rows[:-1]:
        if row[3]:
            assert int(row[3].rsplit("= ", 1)[1].replace(",", "")) == row[4]
        if row[1]:
            assert row[1].endswith(f"= {row[2].split(' × ')[1]}")


@pytest.mark.parametrize("arguments", [[], ["tour", "--epochs", "0"], ["tour", "--epochs", "many"], ["fly"]])
def test_wrong_command_lines_say_so(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "usage: tinygrad-cnn" in capsys.readouterr().err


def test_a_file_in_the_way_is_named(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert main(["tour", "--out", str(tmp_path / "taken")]) == 1
    assert "taken" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out.strip() == f"tinygrad-cnn {tg.__version__}"
