"""The process of one engine: `python -m tests.bench.child ENGINE THREADS measure|memory NAME...`, or `... first`.

Prints a line of JSON as soon as a workload is measured, one number for each of its parts.
"""

import gc
import json
import re
import resource
import statistics
import sys
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from .workloads import WORKLOADS, Calls, Engine, Workload, first_gradient

SECONDS, FEWEST, WARM = 0.1, 3, 2  # of one round: least time, least repetitions, and those before them that do not count
MEMORY_STEPS = 2


def medians(calls: Calls) -> list[float]:
    """Milliseconds of each call, the median of repetitions after warm ones, all called in turn."""
    samples: list[list[float]] = []
    start = perf_counter()
    while len(samples) < WARM + FEWEST or perf_counter() < start + SECONDS:
        times = [perf_counter()]
        for call in calls:
            call()
            times.append(perf_counter())
        samples.append([after - before for before, after in pairwise(times)])
        if len(samples) == WARM:
            start = perf_counter()
    return [statistics.median(part) * 1e3 for part in zip(*samples[WARM:], strict=True)]


def peak() -> float:
    """Megabytes resident at most since the last `forget_peak`; since the start where the system cannot forget."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    kibibytes = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024 / 1e6


def forget_peak() -> None:
    """From here the peak is of what is resident now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("the peak of memory cannot be reset here: growth is of the process's peak", file=sys.stderr)


def memory(engine: Engine, workload: Workload) -> list[float]:
    """Megabytes by which a step's peak exceeds what the engine and the built workload take, and the peak of the whole process."""
    first_gradient(engine)  # loads what the import left for the first use
    (step,) = workload.prepare(engine)
    gc.collect()
    forget_peak()
    before = peak()
    step()  # may compile: what stays of that counts, its peak does not
    forget_peak()
    for _ in range(MEMORY_STEPS):
        step()
    return [peak() - before, peak()]


def main(engine_name: str, threads: str, task: str, *names: str) -> None:
    """Measures in this process, which has loaded no other engine."""
    engine = Engine(engine_name, int(threads))
    if task == "first":
        first_gradient(engine)
        print(json.dumps("done"), flush=True)
    for workload in (WORKLOADS[name] for name in names):
        print(json.dumps(memory(engine, workload) if task == "memory" else medians(workload.prepare(engine))), flush=True)
        gc.collect()


if __name__ == "__main__":
    main(*sys.argv[1:])
