"""Every Python block of the README and docs runs, and every example; a document's blocks share their variables."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = document.read_text(encoding="utf-8")
    script = tmp_path / "blocks.py"
    # blank lines keep the document's line numbers in tracebacks
    lines = [""] * text.count("\n")
    for match in BLOCK.finditer(text):
        first = text.count("\n", 0, match.start(1))
        for i, line in enumerate(match[1].splitlines()):
            lines[first + i] = line
    script.write_text("\n".join(lines), encoding="utf-8")
    runpy.run_path(str(script))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example, tmp_path):
    done = subprocess.run([sys.executable, "-W", "error", str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_examples_are_short():
    long = {path.name: n for path in EXAMPLES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 100}
    assert not long and len(EXAMPLES) >= 5


def test_readme_starts_with_two_commands():
    first = re.search(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    commands = first[1].splitlines()
    assert commands == ["python -m pip install -e '.[dot]' && tinygrad-cnn tour", "python -m pip install -e '.[dot,test]' && python -m pytest"]
