"""The HTML page: whole, escaped, self-contained."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tinygrad_cnn.report import Page


class Balance(HTMLParser):
    """Open tags, in order; complains about one closed out of turn."""

    VOID = frozenset(("meta", "img", "br", "link"))

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_well_formed_and_escaped(tmp_path):
    page = Page('Filters <1> & "2"', "a lead")
    page.section("Sizes < 3")
    page.text("<b>bold</b>", "two")
    page.code("a < b & c")
    page.table(["layer", "count"], [["conv", 1234567], ["none", ""]])
    text = page.save(tmp_path / "page.html").read_text(encoding="utf-8")
    parsed = Balance(text)
    assert not parsed.open
    assert "<title>Filters &lt;1&gt; &amp; &quot;2&quot;</title>" in text and "a &lt; b &amp; c" in text
    assert "1,234,567" in text and text.count("<td") == 4 and "Sizes &lt; 3" in text
    assert [attrs["href"] for tag, attrs in parsed.seen if tag == "a"] == ["#s1"]
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]             # no temporary file stays


def test_pictures_are_inlined(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.svg").write_text('<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><g/></svg>', encoding="utf-8")
    page = Page("Pictures")
    page.figure(tmp_path / "a.png", 'says "hi"', width=100)
    page.figure(tmp_path / "b.svg", "drawn")
    text = page.html()
    assert not Balance(text).open
    data = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', text)[1])
    assert data == (tmp_path / "a.png").read_bytes()
    assert "<?xml" not in text and "<svg" in text and "&quot;hi&quot;" in text


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"figure: notes.txt must end in one of"):
        Page("x").figure(tmp_path / "notes.txt", "no")
