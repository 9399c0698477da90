"""Compiling ahead of time."""

import tinygrad_cnn.warmup
from tinygrad_cnn.__main__ import main

from .kernels.test_jit import succeeds

# One network of those that `warmup` runs: all would compile for a minute.
FIRST = "from tinygrad_cnn import warmup; warmup.NETWORKS = warmup.NETWORKS[:1]; assert warmup.warmup() == 2"
STEP = """
import tinygrad_cnn as tg
model = tg.nn.Sequential(tg.nn.Conv2d(3, 32, 3), tg.nn.BatchNorm2d(32), tg.nn.ReLU(), tg.nn.MaxPool2d(2), tg.nn.Flatten(), tg.nn.Linear(1568, 10))
optimizer = tg.optim.Adam(model.parameters())
tg.nn.CrossEntropyLoss()(model(tg.randn(64, 3, 16, 16)), tg.zeros(64, dtype=tg.int64)).backward()
optimizer.step()
"""


def test_after_warmup_a_training_step_compiles_nothing(tmp_path):
    assert "compiling" in succeeds(FIRST, TINYGRAD_CNN_CACHE_DIR=str(tmp_path)).stderr
    assert "compiling" not in succeeds(STEP, TINYGRAD_CNN_CACHE_DIR=str(tmp_path)).stderr


def test_the_command_says_what_it_did(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(tinygrad_cnn.warmup, "warmup", lambda double: asked.append(double) or 7)
    assert main(["warmup"]) == 0 and main(["warmup", "--double"]) == 0
    assert asked == [False, True] and "what 7 networks use" in capsys.readouterr().out
