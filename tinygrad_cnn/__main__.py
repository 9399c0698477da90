"""The `tinygrad-cnn` command; also `python -m tinygrad_cnn`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tinygrad-cnn", description="An autodiff engine from scratch with a CNN layer set.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    tour = commands.add_parser("tour", help="train a CNN on real digits, check it, draw it, see what it sees; write an HTML report",
                               formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    tour.add_argument("--out", default="tour", metavar="DIR", help="folder for the report and its pictures")
    tour.add_argument("--epochs", default=20, type=_positive, metavar="N", help="passes over the 4,000 training digits")
    tour.add_argument("--seed", default=0, type=int, metavar="N", help="for initial weights, shuffles and shifts")
    warmup = commands.add_parser("warmup", help="compile the common kernels now, into the cache on disk")
    warmup.add_argument("--double", action="store_true", help="for float64 too, as gradient checks use it")
    options = parser.parse_args(argv)
    if options.command == "warmup":
        from .warmup import warmup as compile_all  # numba comes with it

        print(f"compiled what {compile_all(double=options.double)} networks use")
        return 0
    from .tour import tour as run  # everything heavy comes with it, and --help should not wait
    try:
        report = run(options.out, epochs=options.epochs, seed=options.seed)
    except (OSError, ValueError) as error:
        print(f"tinygrad-cnn: {error}", file=sys.stderr)
        return 1
    print(f"report: {report}")
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
