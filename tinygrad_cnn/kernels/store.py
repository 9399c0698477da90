"""Compiled kernels on disk.

numba's own disk cache runs stale code after an edit in another module, fails for ever on a damaged file, and refuses to
import in a read-only install. This one names its folder by a hash of every kernel source and of the machine, checks a
digest of the file and of what it should hold before it trusts it, recompiles what it cannot read, and gives up with one
warning where it cannot write.
"""

import contextlib
import hashlib
import itertools
import os
import pickle
import platform
import secrets
import stat
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy
from numba.core import config
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from . import simd


def name_symbols_apart() -> None:
    """Start this process's numbering of compiled functions at a number of its own.

    numba tells functions of one qualified name (closures, overloads) apart by a count that starts at 1 in every process.
    Two cached kernels from two processes may so bring different functions under one symbol, of which the linker keeps
    the first: wrong results, or memory overwritten.
    """
    FunctionIdentity._unique_ids = itertools.count(secrets.randbits(60))


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()                   # another thread may have held it
    name_symbols_apart()


name_symbols_apart()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

_DIGEST_SIZE = hashlib.sha256().digest_size
_lock = threading.Lock()


def _base_folder() -> Path:
    """The folder the user asked for, or the platform's place for caches."""
    if chosen := os.environ.get("TINYGRAD_CNN_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "tinygrad_cnn" / "kernels"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tinygrad_cnn" / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "tinygrad_cnn" / "kernels"


def _sources() -> list[tuple[str, int, int]]:
    """The kernels' sources by name, time and size: what shows quickly that one was edited or replaced. None if they are gone."""
    try:
        with os.scandir(Path(__file__).parent) as files:
            return sorted((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.name.endswith(".py"))
    except OSError:
        return []


_imported = _sources()


def _fingerprint() -> str:
    """Hash of whatever compiled code depends on: sources, versions, processor, and options that change the code."""
    digest, options = hashlib.sha256(), vars(config)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    facts = (sys.version, platform.machine(), numba.__version__, llvmlite.__version__, numpy.__version__, simd.LEVEL,
             simd.HOST_NAME, simd.HOST_FEATURES, options["BOUNDSCHECK"], options["OPT"])
    digest.update(repr(facts).encode())
    return digest.hexdigest()[:24]


def _open_folder() -> Path | None:
    """The folder for this machine and these sources; None, with one warning, where none can be trusted or written."""
    try:
        if not _imported:
            raise FileNotFoundError("without the kernels' sources nobody knows which are out of date")
        base = _base_folder()
        folder = base / _fingerprint()
        base.parent.mkdir(parents=True, exist_ok=True)
        for each in (base, folder):
            each.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid"):
            for each in (base, folder):
                status = each.stat()
                # Cached kernels are code: whoever may write here may run code as this user.
                if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    raise PermissionError(f"{each} belongs to, or can be written by, another user")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        _warn(error)
        return None
    return folder


def _warn(error: Exception) -> None:
    warnings.warn(f"tinygrad_cnn: kernels are compiled anew in every process, for want of a cache folder ({error}); "
                  "TINYGRAD_CNN_CACHE_DIR may name one", RuntimeWarning, stacklevel=2)


class _Shelf:
    """The opened folder and what has been said about it, once per process."""

    folder: Path | None = None
    opened = False
    announced = False


def _folder() -> Path | None:
    with _lock:
        if not _Shelf.opened:
            _Shelf.opened = True
            _Shelf.folder = _open_folder()
        if _Shelf.folder is not None and _sources() != _imported:
            _Shelf.folder = None               # what this process imports from now on does not fit what it has
        return _Shelf.folder


def _give_up(error: Exception) -> None:
    with _lock:
        if _Shelf.folder is not None:
            _Shelf.folder = None
            _warn(error)


def _announce() -> None:
    """Says once why the user waits."""
    with _lock:
        if not _Shelf.announced:
            _Shelf.announced = True
            often = "once per machine" if _Shelf.folder is not None else "in every process"
            print(f"tinygrad_cnn: compiling kernels, {often} ...", file=sys.stderr, flush=True)


class KernelCache(_Cache):
    """The cache of one variant ("serial" or "parallel") of one kernel, in the form numba's dispatcher asks for."""

    def __init__(self, function: Callable[..., None], variant: str) -> None:
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}.{variant}"

    @property
    def cache_path(self) -> str:
        """The folder, or nothing."""
        return str(_folder() or "")

    def _path(self, sig: Any, folder: Path) -> Path:
        return folder / f"{self._name}.{hashlib.sha256(str(sig).encode()).hexdigest()[:16]}.kernel"

    def _digest(self, sig: Any, folder: Path, payload: bytes) -> bytes:
        """Of the compiled kernel and of which it is: a file under another's name, or in another folder, does not pass."""
        return hashlib.sha256(f"{folder.name}/{self._name}/{sig}\n".encode() + payload).digest()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel for a signature, or None if it must be compiled."""
        target_context.refresh()
        folder = _folder()
        if folder is not None:
            with contextlib.suppress(Exception):           # whatever a missing, damaged or foreign file raises: compiling mends it
                content = self._path(sig, folder).read_bytes()
                digest, payload = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
                if self._digest(sig, folder, payload) == digest:
                    return CompileResult._rebuild(target_context, *pickle.loads(payload))
        _announce()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Writes a compiled kernel beside its final name and renames it, so that readers see all of it or nothing."""
        folder = _folder()
        if folder is None or data.library.has_dynamic_globals:
            return
        payload = dumps(data._reduce())
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as file:
                temporary = file.name
                file.write(self._digest(sig, folder, payload) + payload)
            os.replace(temporary, self._path(sig, folder))
        except OSError as error:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            _give_up(error)

    def enable(self) -> None:
        """Part of numba's interface; this cache is always on."""

    def disable(self) -> None:
        """Part of numba's interface; this cache is always on."""

    def flush(self) -> None:
        """Part of numba's interface; a new source or machine has a folder of its own."""
