"""Runs a module in a process of its own, so that a crash or a hang is a failing test."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str, seconds: float, cwd: Path = ROOT, **environment: str) -> str:
    """What `python -m *command` prints. The test fails with the last line of that if the process crashes, fails, or takes too long."""
    with tempfile.TemporaryFile("w+") as out:
        try:
            code = subprocess.run([sys.executable, "-X", "faulthandler", "-m", *command], stdout=out, stderr=subprocess.PIPE, text=True,
                                  cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, timeout=seconds, check=False)
            ended = f"exit status {code.returncode}" if code.returncode >= 0 else signal.Signals(-code.returncode).name
            said = code.stderr
        except subprocess.TimeoutExpired as expired:
            code, ended, said = None, f"more than {seconds} s", str(expired.stderr or "")
        out.seek(0)
        printed = out.read()
    if code is None or code.returncode:
        pytest.fail(f"{' '.join(command)} {environment}: {ended} in\n{printed.strip().rpartition(chr(10))[2]}\n{said[-3000:]}", pytrace=False)
    return printed
