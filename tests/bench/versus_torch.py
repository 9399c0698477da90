"""This engine against PyTorch on the CPU: `python -m tests.bench.versus_torch [--write]`, from the root of the repository.

Every engine runs in a process of its own, in turn, several rounds; of each workload the median call of a round counts, and of the
rounds the median. PyTorch runs with contiguous (NCHW) and with channels_last images and weights; the faster of both counts.
Memory, import and the first gradient take a new process each. For Linux.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from tqdm import tqdm

from .tables import cell, digits, geometric_mean, replace_section, table
from .workloads import COLD, ENGINES, GRADIENTS, GROWTH, IMPORT, MEMORY, NCHW, OURS, START, TARGETS, TOTAL, WARM, WORKLOADS

ROOT = Path(__file__).parents[2]
DOCUMENT, SECTION = ROOT / "docs" / "benchmarks.md", "versus_torch"
BUSY = 0.3  # a load average above it at the start makes the timings doubtful
TABLES = {"Convolutions, ms": GRADIENTS, "Whole networks, ms": ("time",), "Peak memory of a training step, MB": (GROWTH, TOTAL),
          "New process, s": (IMPORT, COLD, WARM)}
INSTALL = ("PyTorch is not installed, and this comparison needs it (nothing else does). Its CPU build:\n"
           "    python -m pip install torch --index-url https://download.pytorch.org/whl/cpu\n"
           "Or measure this engine alone with --ours.")

Key = tuple[str, str, str]  # kind, name of the workload, part
Results = dict[Key, tuple[float, list[float]]]  # ours, and PyTorch's by layout


class Measurements:
    """Runs the processes; `values[key][engine]` has one value for each round."""

    def __init__(self, engines: Sequence[str], threads: int, progress: tqdm) -> None:
        self.engines, self.threads, self.progress = engines, str(threads), progress
        self.environment = {**os.environ, **{f"{library}_NUM_THREADS": str(threads) for library in ("NUMBA", "OMP", "MKL", "OPENBLAS")}}
        self.values: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, kind: str, name: str, engine: str, parts: dict[str, float]) -> None:
        """One more round's value of each part."""
        for part, value in parts.items():
            self.values[kind, name, part][engine].append(value)
        self.progress.update()

    def lines(self, *arguments: str, **environment: str) -> Iterator[str]:
        """What a new interpreter prints, line by line.

        Raises:
            subprocess.CalledProcessError: It failed; its message is on stderr.
        """
        command = [sys.executable, *arguments]
        with subprocess.Popen(command, cwd=ROOT, env={**self.environment, **environment}, stdout=subprocess.PIPE, text=True) as process:
            yield from process.stdout or ()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)

    def child(self, engine: str, *task: str) -> Iterator[list[float]]:
        """The measurements of one engine's process."""
        return map(json.loads, self.lines("-m", "tests.bench.child", engine, self.threads, *task))

    def seconds(self, *arguments: str, **environment: str) -> float:
        """From the start of a new interpreter to its first line, which must be its only one."""
        start = perf_counter()
        lines = self.lines(*arguments, **environment)
        next(lines)
        stop = perf_counter()
        assert list(lines) == []
        return stop - start

    def rounds(self, names: Sequence[str], count: int) -> None:
        """Times the workloads; the engine that starts changes from round to round."""
        for i in range(count if names else 0):
            for j in range(len(self.engines)):
                engine = self.engines[(i + j) % len(self.engines)]
                self.progress.set_description(f"round {i + 1}, {engine}")
                for name, values in zip(names, self.child(engine, "measure", *names), strict=True):
                    self.add(WORKLOADS[name].kind, name, engine, dict(zip(WORKLOADS[name].parts, values, strict=True)))

    def memory(self, names: Sequence[str]) -> None:
        """The peak of each training step, in a process of its own."""
        self.progress.set_description("memory")
        for name in names:
            for engine in self.engines:
                ((growth, total),) = self.child(engine, "memory", name)
                self.add(MEMORY, name, engine, {GROWTH: growth, TOTAL: total})

    def start(self, count: int) -> None:
        """Import (without the interpreter's own start), and from the start of the process to a first gradient."""
        self.progress.set_description("new processes")
        engines = {OURS: "tinygrad_cnn", NCHW: "torch"} if NCHW in self.engines else {OURS: "tinygrad_cnn"}
        first = {engine: ("-m", "tests.bench.child", engine, self.threads, "first") for engine in engines}
        with tempfile.TemporaryDirectory() as cache:
            cold = {engine: self.seconds(*first[engine], TINYGRAD_CNN_CACHE_DIR=cache) for engine in engines}
            for _ in range(count):
                bare = self.seconds("-c", "print()")
                for engine, module in engines.items():
                    imported = self.seconds("-c", f"import {module}; print()")
                    warm = self.seconds(*first[engine], TINYGRAD_CNN_CACHE_DIR=cache)
                    self.add(START, START, engine, {IMPORT: imported - bare, COLD: cold[engine], WARM: warm})

    def results(self) -> Results:
        """The median over the rounds."""
        medians = {key: {e: statistics.median(v) for e, v in by_engine.items()} for key, by_engine in self.values.items()}
        return {key: (m[OURS], [v for engine, v in m.items() if engine != OURS]) for key, m in medians.items()}


def detailed(results: Results) -> str:
    """A table of every workload, ours / PyTorch's best (ratio)."""
    blocks = []
    for title, parts in TABLES.items():
        cells: dict[str, list[str]] = defaultdict(list)
        for (_, name, part), (ours, others) in results.items():
            if part in parts:
                cells[name].append(cell(ours, others))
        if cells:
            blocks += [f"### {title}", table([title.split(",")[0].lower(), *parts], [[name, *row] for name, row in cells.items()])]
    return "\n\n".join(blocks)


def summary(results: Results) -> str:
    """A table of the classes with their targets; empty where there is nothing to compare."""
    rows = []
    for t in TARGETS:
        found = [r for (kind, _, part), r in results.items() if (kind, part) == (t.kind, t.part)]
        if t.seconds is not None and found:
            ours = found[0][0]
            rows.append([t.kind, t.part, "", "", f"{digits(ours)} s", f"at most {t.seconds} s", "yes" if ours <= t.seconds else "**no**"])
        elif found and found[0][1]:
            ratios = [min(others) / ours for ours, others in found]
            mean, lowest = geometric_mean(ratios), min(ratios)
            wanted = [f"{t.mean} by mean"] * (t.mean is not None) + [f"{t.lowest} each"] * (t.lowest is not None)
            reached = mean >= (t.mean or 0) and lowest >= (t.lowest or 0)
            rows.append([t.kind, t.part, f"{mean:.2f}", f"{lowest:.2f}", "", ", ".join(wanted), "yes" if reached else "**no**"])
    return table(["class", "part", "geometric mean", "lowest", "ours", "target", "reached"], rows) if rows else ""


def machine() -> str:
    """Processor, cores, instruction set, versions."""
    from tinygrad_cnn.kernels.simd import LEVEL  # loads numba, which parsing arguments should not wait for

    try:
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "torch") if importlib.util.find_spec(name))
    return (f"{model[1] if model else platform.processor() or platform.machine()}, {os.cpu_count()} cores, kernels for {LEVEL}; "
            f"Python {platform.python_version()}, {packages}")


def main() -> None:
    """Measures, prints the report, and writes it to the document if asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.versus_torch", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", default="", help="workloads whose name matches (names: --list)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours", action="store_true", help="this engine alone, to compare changes of it")
    parser.add_argument("--write", action="store_true", help=f"replace the section {SECTION} of {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--list", action="store_true", help="print the names of the workloads and stop")
    options = parser.parse_args()
    if options.write and (options.only or options.ours):
        parser.error("--write needs all workloads on both engines: leave out --only and --ours")
    if not options.ours and importlib.util.find_spec("torch") is None:
        sys.exit(INSTALL)

    timed = [name for name in WORKLOADS if re.search(options.only, name)]
    memory = {f"memory, {name}": name for name in WORKLOADS if name.startswith("training step")}
    memory = {label: name for label, name in memory.items() if re.search(options.only, label)}
    start = bool(re.search(options.only, START))
    if options.list:
        print(*timed, *memory, *[START] * start, sep="\n")
        return

    engines = ENGINES[:1] if options.ours else ENGINES
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"warning: the load average is {load:.2f}: other work makes these timings doubtful", file=sys.stderr)
    steps = len(engines) * (len(timed) * options.rounds + len(memory)) + min(2, len(engines)) * options.rounds * start
    with tqdm(total=steps, file=sys.stderr, leave=False) as progress:
        measurements = Measurements(engines, options.threads, progress)
        measurements.rounds(timed, options.rounds)
        measurements.memory(list(memory.values()))
        if start:
            measurements.start(options.rounds)
    results = measurements.results()
    intro = (f"{machine()}. {options.threads} threads, {options.rounds} rounds, float32; load average {load:.2f} before, {os.getloadavg()[0]:.2f} after. "
             "Cells: ours / PyTorch's better layout (PyTorch / ours: above 1, ours needs less). Backward: input and weight gradient together. "
             "Memory grows from the built model, each engine having computed a small gradient before.")
    report = "\n\n".join(filter(None, (intro, summary(results), detailed(results))))
    print(report)
    if options.write:
        DOCUMENT.write_text(replace_section(DOCUMENT.read_text(encoding="utf-8"), SECTION, report), encoding="utf-8")


if __name__ == "__main__":
    main()
