"""From measurements to Markdown."""

import math
import re
from collections.abc import Iterable, Sequence


def geometric_mean(ratios: Iterable[float]) -> float:
    """The mean under which 2 and 1/2 cancel."""
    return math.exp(math.fsum(logs := [math.log(r) for r in ratios]) / len(logs))


def digits(value: float) -> str:
    """Three significant digits, but whole numbers from 100 on and no exponent."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else f"{value:.0f}"


def cell(ours: float, others: Sequence[float]) -> str:
    """Ours / the other engine's best (the ratio by which it needs more)."""
    return f"{digits(ours)} / {digits(min(others))} ({min(others) / ours:.2f})" if others else digits(ours)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace_section(document: str, name: str, text: str) -> str:
    """The document with `text` between its comments `<!-- name: begin -->` and `<!-- name: end -->`.

    Raises:
        ValueError: The two comments are not there exactly once, in this order.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if [m[0] for m in re.finditer(f"{begin}|{end}", document)] != [begin, end]:
        raise ValueError(f"the document needs the lines {begin} and {end}, once each and in this order")
    before, after = document.split(begin)[0], document.split(end)[1]
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"
