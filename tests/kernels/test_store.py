"""The cache on disk, in this process: which file is taken for which kernel, and what happens to one that is not whole.

`test_jit.py` has what takes a process of its own.
"""

import os
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from tinygrad_cnn.kernels import store
from tinygrad_cnn.kernels.jit import Kernel


def twice(x, out):
    for i in range(x.size):
        out[i] = 2 * x[i]


def thrice(x, out):
    for i in range(x.size):
        out[i] = 3 * x[i]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache that this process has just found."""
    monkeypatch.setenv("TINYGRAD_CNN_CACHE_DIR", str(tmp_path))
    _reopen(monkeypatch)
    return tmp_path / store._fingerprint()


def _reopen(monkeypatch):
    for name, value in (("folder", None), ("opened", False), ("announced", True)):
        monkeypatch.setattr(store._Shelf, name, value)


def results(function, dtype=np.float64):
    """What a new kernel of the function computes, and whether it was compiled for it."""
    kernel, x, out = Kernel(function), np.arange(5, dtype=dtype), np.empty(5, dtype)
    kernel(x, out, work=0)
    return out.tolist(), not kernel.serial._cache_hits


def only(folder):
    (file,) = folder.glob("*.kernel")
    return file


DOUBLE, TRIPLE = [0, 2, 4, 6, 8], [0, 3, 6, 9, 12]


def test_a_kernel_is_found_again(folder):
    assert results(twice) == (DOUBLE, True)
    assert results(twice) == (DOUBLE, False)
    assert results(twice, np.float32) == (DOUBLE, True)            # another signature
    assert len(list(folder.iterdir())) == 2


def test_a_file_under_another_name_is_not_taken(folder):
    """Of another kernel, another signature, another variant, and of other sources."""
    assert results(twice) == (DOUBLE, True)
    doubles = only(folder).read_bytes()
    assert results(thrice) == (TRIPLE, True)
    (triples,) = set(folder.glob("*.kernel")) - {next(folder.glob("*.twice.*"))}
    assert triples.name.replace("thrice", "twice") == next(folder.glob("*.twice.*")).name
    triples.write_bytes(doubles)
    assert results(thrice) == (TRIPLE, True)                       # compiled again, and mended
    assert results(thrice) == (TRIPLE, False)
    assert results(twice, np.float32) == (DOUBLE, True)
    for file in folder.glob("*.twice.*"):
        file.write_bytes(doubles)
    assert results(twice, np.float32) == (DOUBLE, True) and results(twice) == (DOUBLE, False)
    serial, parallel = store.KernelCache(twice, "serial"), store.KernelCache(twice, "parallel")
    for digest in (serial._digest("sig", folder, b""), serial._digest("gis", folder, b""), serial._digest("sig", folder.parent, b"")):
        assert digest != parallel._digest("sig", folder, b"")


def test_a_file_from_another_folder_is_not_taken(folder, monkeypatch):
    assert results(twice) == (DOUBLE, True)
    other = folder.with_name("other")
    folder.rename(other)
    monkeypatch.setattr(store, "_fingerprint", lambda: "other")
    _reopen(monkeypatch)
    assert results(twice) == (DOUBLE, True)


def test_any_damage_is_noticed_and_mended(folder):
    results(twice)
    file = only(folder)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in (0, 1, 31, 32, 33, len(whole) - 1, *rng.integers(len(whole), size=3))]
    for place in (0, 31, 32, len(whole) - 1, *rng.integers(len(whole), size=4)):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))]) + whole[place + 1:])
    damaged += [whole + b"x", b"x" * 99, whole[1:]]
    for content in damaged:
        file.write_bytes(content)
        assert results(twice) == (DOUBLE, True)
        assert results(twice) == (DOUBLE, False)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("payload", [b"", b"no pickle", pickle.dumps(("not", "a", "kernel")), pickle.dumps(None)])
def test_a_whole_file_that_is_no_kernel_is_compiled_again(folder, payload):
    results(twice)
    file = only(folder)
    kernel = Kernel(twice)
    kernel(np.ones(2), np.ones(2), work=0)
    (sig,) = kernel.serial._cache_hits
    file.write_bytes(store.KernelCache(twice, "serial")._digest(sig, folder, payload) + payload)
    assert results(twice) == (DOUBLE, True) and results(twice) == (DOUBLE, False)


@pytest.mark.parametrize("variable, where", [("TINYGRAD_CNN_CACHE_DIR", ""), ("XDG_CACHE_HOME", "tinygrad_cnn/kernels")])
def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, variable, where):
    if variable.startswith("XDG") and store.sys.platform in ("win32", "darwin"):
        pytest.skip("another place for caches")
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir(), here.mkdir()
    monkeypatch.delenv("TINYGRAD_CNN_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv(variable, "~/kept")
    monkeypatch.chdir(here)
    _reopen(monkeypatch)
    assert results(twice) == (DOUBLE, True)
    assert only(home / "kept" / where / store._fingerprint()) and not list(here.iterdir())


def test_a_relative_folder_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_CNN_CACHE_DIR", "kept")
    monkeypatch.chdir(tmp_path)
    _reopen(monkeypatch)
    assert results(twice) == (DOUBLE, True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert results(twice) == (DOUBLE, False) and results(thrice) == (TRIPLE, True)
    assert len(list((tmp_path / "kept").rglob("*.kernel"))) == 2 and not list(Path().iterdir())


@pytest.mark.parametrize("link", ["base", "folder"])
def test_a_folder_behind_a_symbolic_link(folder, tmp_path_factory, link):
    target = tmp_path_factory.mktemp("target")
    target.chmod(0o700)
    if link == "base":
        folder.parent.rmdir()
        folder.parent.symlink_to(target)
    else:
        folder.symlink_to(target)
    assert results(twice) == (DOUBLE, True) and results(twice) == (DOUBLE, False)
    assert len(list(target.rglob("*.kernel"))) == 1


def _gone(folder):
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


FAULTS = {
    "the folder vanishes": _gone,
    "the folder becomes a file": lambda folder: (_gone(folder), folder.write_text("")),
    "the file becomes a folder": lambda folder: (lambda file: (file.unlink(), file.mkdir()))(only(folder)),
    "the file becomes a dead link": lambda folder: (lambda file: (file.unlink(), file.symlink_to(folder / "nowhere")))(only(folder)),
}


@pytest.mark.parametrize("spoil", FAULTS.values(), ids=FAULTS)
def test_what_happens_to_the_folder_costs_a_warning_at_most(folder, spoil):
    results(twice)
    spoil(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert results(twice) == (DOUBLE, True)
        assert results(thrice) == (TRIPLE, True)
        assert results(twice)[0] == DOUBLE
    assert len(caught) <= 1 and all("TINYGRAD_CNN_CACHE_DIR may name one" in str(w.message) for w in caught)


def test_a_full_disk_costs_one_warning_and_leaves_nothing_behind(folder, monkeypatch):
    resource = pytest.importorskip("resource")
    results(twice)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            assert results(thrice) == (TRIPLE, True) and results(twice, np.float32) == (DOUBLE, True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(caught) == 1 and "File too large" in str(caught[0].message)
    assert len(list(folder.iterdir())) == 1
    _reopen(monkeypatch)
    assert results(twice) == (DOUBLE, False) and results(thrice) == (TRIPLE, True) and results(thrice) == (TRIPLE, False)


@pytest.mark.parametrize("edit", ["edited", "removed"])
def test_sources_that_change_under_a_running_process_are_not_mixed_with_it(folder, monkeypatch, tmp_path_factory, edit):
    """It goes on without the cache: neither what it imports from now on nor what it imported before fits a folder."""
    assert results(twice) == (DOUBLE, True)
    elsewhere = tmp_path_factory.mktemp("sources") / "kernels"
    if edit == "edited":
        shutil.copytree(Path(store.__file__).parent, elsewhere, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(store, "__file__", str(elsewhere / "store.py"))
        assert results(twice) == (DOUBLE, False)                   # only copied
        with (elsewhere / "taps.py").open("a") as source:
            source.write("# edited")
    monkeypatch.setattr(store, "__file__", str(elsewhere / "store.py"))
    assert results(twice) == (DOUBLE, True) and results(thrice) == (TRIPLE, True)
    assert len(list(folder.iterdir())) == 1


def test_without_sources_nothing_is_kept(folder, monkeypatch):
    monkeypatch.setattr(store, "_imported", [])
    with pytest.warns(RuntimeWarning, match="without the kernels' sources nobody knows which are out of date"):
        assert results(twice) == (DOUBLE, True)
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("which", ["base", "folder"])
def test_another_users_folder_is_refused(folder, which):
    folder.mkdir()
    os.chown(folder if which == "folder" else folder.parent, 12345, -1)
    with pytest.warns(RuntimeWarning, match="belongs to, or can be written by, another user"):
        assert results(twice) == (DOUBLE, True)
    assert not list(folder.iterdir())
