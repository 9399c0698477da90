"""Small wrong changes to a source file, each of which some test must notice: `python -m tests.mutants FILE [FIRST [EVERY]]`.

Each change is made in a copy of the package; the tests of TESTS run on it until one fails. Prints those that none notices: their number,
the line, what was changed. Other files of the package stay as they are.
"""

from __future__ import annotations

import ast
import copy
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
TESTS = tuple(f"tests/{name}.py" for name in (              # those that take longest last
    "autograd/test_primitive", "autograd/test_in_place", "ops/test_numpy_mixing", "ops/test_bad_input", "autograd/test_overwriting",
    "test_borrowed_memory", "test_tensor", "ops/test_indexing", "test_views", "nn/test_steady_weights", "nn/test_hooks", "test_memory",
    "autograd/test_gradcheck", "nn/test_functional", "autograd/test_backward", "autograd/test_random_programs", "test_threads",
    "autograd/test_memory"))
SECONDS = 240
OPPOSITE = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn,
            ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult}


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the node's place."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
        changed = copy.deepcopy(node)
        changed.ops[0] = OPPOSITE[type(node.ops[0])]()
        yield changed
    elif isinstance(node, ast.BoolOp):
        changed = copy.deepcopy(node)
        changed.op = OPPOSITE[type(node.op)]()
        yield changed
        for i in range(len(node.values)):
            changed = copy.deepcopy(node)
            del changed.values[i]
            yield changed if len(changed.values) > 1 else changed.values[0]
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPPOSITE:
        changed = copy.deepcopy(node)
        changed.op = OPPOSITE[type(node.op)]()
        yield changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, (ast.If, ast.IfExp)):
        for value in (True, False):
            changed = copy.deepcopy(node)
            changed.test = ast.Constant(value)
            yield changed
    elif isinstance(node, (ast.Assign, ast.AugAssign, ast.Raise, ast.Delete)) or isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
        yield ast.Pass()


def mutants(source: str) -> list[tuple[int, str, str]]:
    """(line, what was changed, the changed source), outside docstrings, annotations and messages."""
    tree, found = ast.parse(source), []
    skipped = {id(n) for node in ast.walk(tree) for part in ("annotation", "returns", "decorator_list") for held in [getattr(node, part, None)] if held
               for each in (held if isinstance(held, list) else [held]) for n in ast.walk(each)}
    skipped |= {id(n) for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)) for n in ast.walk(node)}
    for node in list(ast.walk(tree)):
        for field, value in ast.iter_fields(node):
            for i, child in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(child, ast.AST) or id(child) in skipped:
                    continue
                for new in variants(child):
                    if isinstance(value, list):
                        value[i] = ast.copy_location(new, child)
                    else:
                        setattr(node, field, ast.copy_location(new, child))
                    try:
                        text = ast.unparse(ast.fix_missing_locations(tree))
                        compile(text, "mutant", "exec")
                        found.append((getattr(child, "lineno", 0), f"{ast.unparse(child)[:70]!r} -> {ast.unparse(new)[:70]!r}", text))
                    except (SyntaxError, ValueError):
                        pass
                    if isinstance(value, list):
                        value[i] = child
                    else:
                        setattr(node, field, child)
    return found


def failing(package: Path, first: tuple[str, ...] = ()) -> str | None:
    """The test that fails on a copy of the package, or else why it does not run. Some tests go first; then all."""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", "no:doctest", "-o", "addopts=", "-W", "error", *first, *TESTS]
    try:
        done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "takes too long"
    failed = re.search(r"^FAILED (.*?)( - |$)", done.stdout, re.MULTILINE)
    return failed[1] if failed else f"exit status {done.returncode}" if done.returncode else None


def main(name: str, first: str = "0", every: str = "1") -> None:
    """See the module."""
    source = (ROOT / name).read_text()
    chosen = list(enumerate(mutants(source)))[int(first) :: int(every)]
    survived, failed = 0, ()                   # tests that failed lately go first: what is changed next is often near
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder)
        for part in ("tinygrad_cnn", "tests"):
            shutil.copytree(ROOT / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", package)
        assert failing(package) is None, "the tests fail without a change"
        for number, (line, what, text) in tqdm(chosen, smoothing=0.05):
            (package / name).write_text(text)
            test = failing(package, failed)
            if test is None:
                survived += 1
                tqdm.write(f"{number}\t{name}:{line}\t{what}", file=sys.stdout)
                sys.stdout.flush()
            elif "::" in test:
                failed = (test, *(t for t in failed if t != test))[:20]
    print(f"{len(chosen)} mutants, {survived} survived")


if __name__ == "__main__":
    main(*sys.argv[1:])
