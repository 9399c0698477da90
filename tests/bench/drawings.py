"""How long drawings take, from the tape to a file: `python -m tests.bench.drawings`."""

import tempfile
import time
import warnings
from pathlib import Path

import tinygrad_cnn as tg
from tests.draw.test_size import chain, dense, fan, far, stack
from tinygrad_cnn import draw
from tinygrad_cnn.draw.picture import find_engine

CASES = {
    "a chain of 10,000 ops": (lambda: chain(10_000), 1000),
    "5,000 branches of 2 ops": (lambda: fan(5_000), 1000),
    "100 branches that join one after the other": (lambda: stack(100), 1000),
    "200 of them": (lambda: stack(200), 1000),
    "40 layers, each of all before it": (lambda: dense(40), 1000),
    "140 of them": (lambda: dense(140), 1000),
    "1,000 ops, each of one far back": (lambda: far(990), 1000),
    "a chain of 10,000 ops, all drawn": (lambda: chain(10_000), 10**6),
    "5,000 branches of 2 ops, all drawn": (lambda: fan(5_000), 10**6),
    "10,000 ops, each of one far back": (lambda: far(10_000), 10**6),
    "10,000 ops with a leaf each": (lambda: leaves(10_000), 10**6),
    "9,900 ops, 5.4 million arrows": (lambda: dense(3_300), 10**6),
}


def leaves(count):
    y = tg.ones(2, 2)
    for _ in range(count):
        y = y * tg.ones(2, 2, requires_grad=True)
    return y


def main():
    warnings.simplefilter("ignore")
    print(f"{Path(find_engine()[0]).name}\n\n| what | nodes drawn | SVG, s | PNG, s |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, max_nodes) in CASES.items():
            output, seconds = make(), []
            for suffix in ("svg", "png"):
                start = time.perf_counter()
                drawing = draw.graph(output, max_nodes=max_nodes)
                draw.save(drawing, f"{folder}/drawing.{suffix}")
                seconds.append(f"{time.perf_counter() - start:.1f}")
            nodes = drawing.source.count('label=<<TABLE BORDER="1"')
            print(f"| {name} | {nodes:,} | {' | '.join(seconds)} |", flush=True)


if __name__ == "__main__":
    main()
