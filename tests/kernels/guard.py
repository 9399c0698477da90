"""An allocator that puts every array directly before, or directly behind, memory that nobody may touch.

A load or store past that end kills the process, also in lanes that a mask throws away later. `install` brings in all arrays
that NumPy makes from then on and all that compiled kernels make inside; memory comes filled with NaN (integers: -1), so
that no result can depend on what scratch held before. Arrays end exactly at the unreadable page (`BEFORE`) or begin right
after one (`BEHIND`), so they are aligned to their elements only.

NumPy's allocators are set by its C interface (NEP 49). numba's kernels call `NRT_MemInfo_alloc_aligned`, a symbol that is
looked up as they are loaded: it is replaced before.
"""

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

import llvmlite.binding
import numpy as np
from numba import cfunc, types
from numba.core import cgutils
from numba.core.runtime import _nrt_python, rtsys
from numba.extending import intrinsic

BEFORE, BEHIND = 0, 1
PAGE, GUARD = mmap.PAGESIZE, 1 << 22  # a page for the length, and unreadable memory on both sides of an array

_side = ctypes.c_int64(BEFORE)
_SIDE = ctypes.addressof(_side)

_libc = ctypes.CDLL(None)


def _external(function, *arguments):
    """A function of the C library on integers, which compiled code may call without Python's lock."""
    function.argtypes, function.restype = arguments, ctypes.c_int64
    return function


_mmap = _external(_libc.mmap, ctypes.c_int64, ctypes.c_int64, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_munmap = _external(_libc.munmap, ctypes.c_int64, ctypes.c_int64)
_mprotect = _external(_libc.mprotect, ctypes.c_int64, ctypes.c_int64, ctypes.c_int)
_memset = _external(_libc.memset, ctypes.c_int64, ctypes.c_int, ctypes.c_int64)
_memcpy = _external(_libc.memcpy, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)

_NONE, _BOTH, _FLAGS = 0, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


@intrinsic
def _read(typing_context, address):
    def codegen(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], cgutils.intp_t.as_pointer()))

    return types.int64(types.int64), codegen


@intrinsic
def _write(typing_context, address, value):
    def codegen(context, builder, signature, args):
        builder.store(args[1], builder.inttoptr(args[0], cgutils.intp_t.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@cfunc("int64(int64, int64)")
def _malloc(_, size):
    size = max(size, 1)
    length = (size + PAGE - 1) // PAGE * PAGE
    header = _mmap(0, PAGE + GUARD + length + GUARD, _NONE, _FLAGS, -1, 0)
    if header == -1:
        return 0
    begin = header + PAGE + GUARD
    _mprotect(header, PAGE, _BOTH)
    _write(header, size)
    _mprotect(begin, length, _BOTH)
    _memset(begin, 0xFF, length)
    return begin if _read(_SIDE) == BEHIND else begin + length - size


malloc = _malloc.ctypes


@cfunc("int64(int64, int64, int64)")
def _calloc(_, count, size):
    address = malloc(0, count * size)
    if address != 0:
        _memset(address, 0, count * size)
    return address


@cfunc("void(int64, int64, int64)")
def _free(_, address, size):
    if address != 0:
        header = address // PAGE * PAGE - GUARD - PAGE
        _munmap(header, PAGE + GUARD + (_read(header) + PAGE - 1) // PAGE * PAGE + GUARD)


free = _free.ctypes


@cfunc("int64(int64, int64, int64)")
def _realloc(_, address, size):
    new = malloc(0, size)
    if address != 0 and new != 0:
        _memcpy(new, address, min(size, _read(address // PAGE * PAGE - GUARD - PAGE)))
        free(0, address, 0)
    return new


# -- numba's kernels -----------------------------------------------------------------------------------------------------


@cfunc("void(int64)")
def _drop(address):
    free(0, address, 0)


class _Runtime(ctypes.Structure):
    """The first fields of `NRT_api_functions`."""

    _fields_ = (("allocate", ctypes.c_void_p), ("allocate_external", ctypes.c_void_p), ("manage_memory", ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)))


_get_api = ctypes.CFUNCTYPE(ctypes.POINTER(_Runtime))(_nrt_python.c_helpers["get_api"])
_manage = _get_api().contents.manage_memory
_DROP = _drop.address


@cfunc("int64(int64, uint32)")
def _alloc_aligned(size, alignment):
    address = malloc(0, size)
    return 0 if address == 0 else _manage(address, _DROP)


# -- NumPy ---------------------------------------------------------------------------------------------------------------


class _Handler(ctypes.Structure):
    """NumPy's `PyDataMem_Handler`, version 1."""

    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("context", ctypes.c_void_p), ("malloc", ctypes.c_void_p),
                ("calloc", ctypes.c_void_p), ("realloc", ctypes.c_void_p), ("free", ctypes.c_void_p))


_handler = _Handler(b"guard", 1, None, _malloc.address, _calloc.address, _realloc.address, _free.address)

_python = ctypes.pythonapi
_python.PyCapsule_New.restype, _python.PyCapsule_New.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_python.PyCapsule_GetPointer.restype, _python.PyCapsule_GetPointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)

_SET_HANDLER = 304  # its number in NumPy's C interface
_table = ctypes.cast(_python.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
_set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(_table[_SET_HANDLER])
_NAME = b"mem_handler"
_capsule = _python.PyCapsule_New(ctypes.addressof(_handler), _NAME, None)


def install() -> None:
    """Replace numba's allocator, before any kernel is loaded."""
    from numba.core.registry import cpu_target

    rtsys.initialize(cpu_target.target_context)
    llvmlite.binding.add_symbol("NRT_MemInfo_alloc_aligned", _alloc_aligned.address)


@contextmanager
def guarded(side: int) -> Iterator[None]:
    """Inside, every new array lies against unreadable memory on that side."""
    _side.value = side
    before = _set_handler(_capsule)
    try:
        yield
    finally:
        _set_handler(before)
