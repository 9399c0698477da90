"""What a reader of a picture sees: text inside its box in any font, titles beside the arrows, arrows downwards, no squares for letters."""

import html
import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from PIL import Image

import tinygrad_cnn as tg
from tinygrad_cnn import draw, nn

SVG = "{http://www.w3.org/2000/svg}"
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.shortcut = nn.Sequential(nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        return (self.body(x) + self.shortcut(x)).relu()


class Dense(nn.Module):
    """Every layer gets what all before it made."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.BatchNorm2d(2 * i + 2), nn.Conv2d(2 * i + 2, 2, 1)) for i in range(layers)])

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(tg.cat(features, 1)))
        return tg.cat(features, 1)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.pool = nn.Conv2d(2, 2, 1), nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(2, 2, 1))
        self.wide = nn.Sequential(nn.Sequential(nn.Conv2d(2, 2, 1), nn.LeakyReLU(0.2)), nn.Conv2d(2, 2, 5, padding=2))

    def forward(self, x):
        return tg.cat([self.one(x), self.pool(x), self.wide(x)], 1)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({"W" * 38: nn.Identity(), "über_größe → π": nn.Linear(2, 2), "encoder.".replace(".", "_") * 9: nn.ReLU(),
                                     "(a, b) & <c>": nn.Flatten(0, 1)})

    def forward(self, x):
        for layer in self.layers.values():
            x = layer(x)
        return x


MODELS = {"residual": (Residual(2), (1, 2, 6, 6)), "dense": (Dense(6), (1, 2, 4, 4)), "branches": (Branches(), (1, 2, 6, 6)),
          "names": (Named(), (3, 2))}


def drawing_of(name):
    kind, _, what = name.partition(" ")
    model, shape = MODELS[what]
    x = tg.randn(*shape)
    return draw.model(model, x) if kind == "model" else draw.graph(model(x).sum(), dict(model.named_parameters()))


DRAWINGS = [f"{kind} {what}" for kind in ("model", "graph") for what in MODELS]


@pytest.fixture(params=["wheel", "system"])
def engine(request, monkeypatch):
    if request.param == "wheel":
        monkeypatch.setenv("PATH", "")
    elif shutil.which("dot") is None:
        pytest.skip("no Graphviz is installed")
    return request.param


@dataclass
class Box:
    """A node or a box around nodes: its outline (left, top, right, bottom) and its texts (x, baseline, size, bold, text)."""

    outline: tuple[float, float, float, float]
    texts: list[tuple[float, float, float, bool, str]]


def read_svg(picture):
    """The nodes, the boxes around them and the arrows (points along each, tail first) of an SVG, y downwards."""
    found = {"graph": [], "node": [], "cluster": [], "edge": []}
    for group in ElementTree.fromstring(picture).iter(f"{SVG}g"):
        points = [np.array([p.split(",") for p in shape.get("points").split()], float) for shape in group.findall(f"{SVG}polygon")]
        if group.get("class") == "edge":
            numbers = re.findall(r"-?[\d.]+", group.find(f"{SVG}path").get("d"))
            found["edge"].append(np.concatenate([curve_points(np.array(numbers, float).reshape(-1, 2)), points[0]]))
            continue
        texts = [(float(t.get("x")), float(t.get("y")), float(t.get("font-size")), t.get("font-weight") == "bold", t.text)
                 for t in group.findall(f"{SVG}text")]
        corners = np.concatenate(points)
        found[group.get("class")].append(Box((*corners.min(0), *corners.max(0)), texts))
    return found


def curve_points(knots):
    t = np.linspace(0, 1, 200)[:, None]
    return np.concatenate([(1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d
                           for a, b, c, d in zip(knots[:-3:3], knots[1::3], knots[2::3], knots[3::3], strict=True)])


def width_in_dejavu(text, size, bold):
    font = FontProperties(fname=FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), size=size)
    return TextToPath().get_text_width_height_descent(text.replace("$", r"\$"), font, False)[0]


@pytest.mark.parametrize("name", DRAWINGS)
def test_text_stays_inside_its_box_in_the_widest_common_font(engine, name):
    seen = read_svg(drawing_of(name).pipe("svg"))
    for box in [*seen["node"], *seen["cluster"], *seen["graph"]]:
        left, top, right, bottom = box.outline
        assert box.texts
        for x, y, size, bold, text in box.texts:
            assert left < x and x + width_in_dejavu(text.strip(), size, bold) < right, (text, box.outline)
            assert top < y - 0.7 * size and y + 0.2 * size < bottom


@pytest.mark.parametrize("name", [name for name in DRAWINGS if name.startswith("model")])
def test_no_arrow_crosses_the_title_of_a_box(engine, name):
    seen = read_svg(drawing_of(name).pipe("svg"))
    for box, points in itertools.product(seen["cluster"], seen["edge"]):
        for x, y, size, bold, text in box.texts:
            inside = (points[:, 0] > x) & (points[:, 0] < x + width_in_dejavu(text, size, bold))
            assert not (inside & (points[:, 1] > y - size) & (points[:, 1] < y + 0.2 * size)).any(), text


@pytest.mark.parametrize("name", DRAWINGS)
def test_arrows_lead_downwards(engine, name):
    for points in read_svg(drawing_of(name).pipe("svg"))["edge"]:
        assert points[-1, 1] > points[0, 1]


def test_a_drawing_changed_by_hand_is_still_drawn():
    drawing = draw.model(Residual(2), tg.zeros(1, 2, 4, 4))
    drawing.edge("n5", "n0", label="again")                              # a cycle
    with drawing.subgraph(name="cluster_own") as box:
        box.attr(label="a < b")
        box.node("own")
    assert ">a &lt; b</text>" in drawing.pipe("svg", encoding="utf-8")


def test_a_picture_has_no_tooltips_with_the_names_of_nodes():
    assert "<title>" not in draw.graph(tg.ones(2, requires_grad=True).exp()).pipe("svg", encoding="utf-8")


# ---- letters of other scripts -------------------------------------------------------------------------------------


def fontconfig(folder, *fonts):
    """Settings of a machine that has only the fonts in some folders."""
    (folder / "fonts.conf").write_text(f'<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
                                       f'{"".join(f"<dir>{font}</dir>" for font in fonts)}<cachedir>{folder}/cache</cachedir>'
                                       '<include ignore_missing="yes">/etc/fonts/conf.d</include></fontconfig>')
    return str(folder / "fonts.conf")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="chooses fonts by fontconfig's settings")
def test_a_letter_that_any_installed_font_has_is_drawn_in_png(engine, monkeypatch, tmp_path):
    pytest.importorskip("resvg_py")
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    for move, point in zip((pen.moveTo, *[pen.lineTo] * 3), ((50, -100), (50, 850), (950, 850), (950, -100)), strict=True):
        move(point)                            # the letter is a full square, so that it is easily told from an empty one
    pen.closePath()
    glyph = pen.glyph()
    builder.setupGlyphOrder([".notdef", "layer"])
    builder.setupCharacterMap({ord("層"): "layer"})
    builder.setupGlyf({".notdef": glyph, "layer": glyph})
    builder.setupHorizontalMetrics({".notdef": (1000, 50), "layer": (1000, 50)})
    builder.setupHorizontalHeader(ascent=850, descent=-150)
    builder.setupOS2(sTypoAscender=850, sTypoDescender=-150, usWinAscent=850, usWinDescent=150)
    builder.setupNameTable({"familyName": "Layer", "styleName": "Regular", "psName": "Layer-Regular"})
    builder.setupPost()
    (tmp_path / "fonts").mkdir()
    builder.save(tmp_path / "fonts" / "layer.ttf")
    code = ("import sys, tinygrad_cnn as tg; w = tg.ones(2, requires_grad=True); "
            "tg.draw.save(tg.draw.graph(w.exp(), {'層層層層': w}), sys.argv[1])")
    dark = {}
    for name, fonts in (("without", [FONTS]), ("with", [FONTS, tmp_path / "fonts"])):
        monkeypatch.setenv("FONTCONFIG_FILE", fontconfig(tmp_path, *fonts))
        subprocess.run([sys.executable, "-c", code, str(tmp_path / f"{name}.png")], check=True)       # fonts are looked up once
        dark[name] = int((np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) < 80).sum())
    square = (12 * 96 / 72) ** 2 * 0.9 * 0.95
    assert dark["with"] - dark["without"] > 4 * 0.5 * square


# ---- in a browser -------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LIBERATION = Path("/usr/share/fonts/truetype/liberation")
MEASURE = """<body><script>
const outside = [];
for (const group of document.querySelectorAll('g.node, g.cluster, g.graph')) {
  const boxes = [...group.children].filter(e => e.tagName == 'polygon').map(e => e.getBBox());
  const left = Math.min(...boxes.map(b => b.x)), right = Math.max(...boxes.map(b => b.x + b.width));
  for (const text of group.children) if (text.tagName == 'text') {
    const b = text.getBBox();
    if (b.x < left || b.x + b.width > right) outside.push(text.textContent);
  }
}
document.title = JSON.stringify([document.querySelectorAll('text').length, outside]);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("fonts", [FONTS, LIBERATION], ids=["DejaVu", "Liberation"])
def test_text_stays_inside_its_box_in_a_browser(engine, fonts, monkeypatch, tmp_path):
    if not fonts.exists():
        pytest.skip("these fonts are not installed")
    pictures = [drawing_of(name).pipe("svg", encoding="utf-8") for name in DRAWINGS]
    page = "".join(picture[picture.index("<svg"):] for picture in pictures)
    (tmp_path / "page.html").write_text(f'<meta charset="utf-8">{page}{MEASURE}', encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}/profile", "--dump-dom", f"file://{tmp_path}/page.html"],
        capture_output=True, text=True, timeout=120, env={"FONTCONFIG_FILE": fontconfig(tmp_path, fonts), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    count, outside = json.loads(html.unescape(re.search("<title>(.*)</title>", done.stdout)[1]))
    assert count > 400 and outside == []
