"""Explicit SIMD for kernels: a vector of lanes with operators, and a register tile of rows x vectors.

LLVM keeps both in registers from first use to store, so a near-peak matrix product reads like its formula:

    acc = tile_splat(ROWS, VECS, bias, k)
    for c in range(C):
        acc = tile_fma(acc, x, xo + c, x_step, w, wo + c * VECS * lanes(w))    # rank-1 update
    tile_store(acc, y, yo, y_step, valid)

A local numba array lives on the heap and cannot be promoted to registers; the intrinsics here unroll while the IR is
built, so functions that use them stay ordinary and cacheable. Arrays are one-dimensional, offsets count elements.

The width follows the host. TINYGRAD_CNN_SIMD (avx512, avx2, sse, neon, generic) asks for a lower level.
"""

import operator
import os
import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, models, overload, register_model

# Bytes of one vector register, number of such registers.
LEVELS = {"avx512": (64, 32), "avx2": (32, 16), "sse": (16, 16), "neon": (16, 32), "generic": (16, 16)}
_FASTER_TO_SLOWER = ("avx512", "avx2", "sse")

_config: Any = config  # its names come from the environment: NUMBA_CPU_NAME and NUMBA_CPU_FEATURES
HOST_NAME: str = _config.CPU_NAME or llvm.get_host_cpu_name()
HOST_FEATURES: str = _config.CPU_FEATURES or ("" if _config.CPU_NAME else llvm.get_host_cpu_features().flatten())


def _host_level() -> str:
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return "neon"
    if machine not in ("x86_64", "amd64"):
        return "generic"
    features = HOST_FEATURES.split(",")
    if "+avx512f" in features:
        return "avx512"
    return "avx2" if "+avx2" in features and "+fma" in features else "sse"


def _level() -> str:
    """The host's level, or the lower one that TINYGRAD_CNN_SIMD asks for."""
    host, asked = _host_level(), os.environ.get("TINYGRAD_CNN_SIMD", "")
    if not asked:
        return host
    if asked not in LEVELS:
        raise ValueError(f"TINYGRAD_CNN_SIMD={asked!r}: expected one of {', '.join(LEVELS)}")
    if asked in _FASTER_TO_SLOWER and host in _FASTER_TO_SLOWER:
        return max(asked, host, key=_FASTER_TO_SLOWER.index)
    return "generic" if asked == "generic" else host


LEVEL = _level()
VECTOR_BYTES, VECTOR_REGISTERS = LEVELS[LEVEL]

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_FLAGS = ("contract", "reassoc", "nsz", "arcp")


def lane_count(dtype: types.Float) -> int:
    """Elements of one vector register."""
    return VECTOR_BYTES * 8 // dtype.bitwidth


class Vector(types.Type):
    """Numba type of `lanes` floats in one register."""

    def __init__(self, dtype: types.Float, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype} x {lanes})")


class Tile(types.Type):
    """Numba type of `rows` x `vecs` vector registers."""

    def __init__(self, dtype: types.Float, rows: int, vecs: int) -> None:
        self.dtype, self.rows, self.vecs, self.lanes = dtype, rows, vecs, lane_count(dtype)
        super().__init__(name=f"Tile({dtype}, {rows} x {vecs} x {self.lanes})")


def _vector_ir(kind: Any) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if kind.dtype.bitwidth == 32 else ir.DoubleType(), kind.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, _vector_ir(kind))


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Tile) -> None:
        super().__init__(manager, kind, ir.ArrayType(_vector_ir(kind), kind.rows * kind.vecs))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _vector_ir(kind).as_pointer())


def _load(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    value = builder.load(_pointer(context, builder, array_type, array, index, kind))
    value.align = kind.dtype.bitwidth // 8  # arrays are aligned to their elements only
    return value


def _store(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any, value: Any) -> None:
    builder.store(value, _pointer(context, builder, array_type, array, index, kind)).align = kind.dtype.bitwidth // 8


def _splat(builder: Any, kind: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_vector_ir(kind), ir.Undefined)
    first = builder.insert_element(undefined, scalar, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, kind.lanes), [0] * kind.lanes))


def _fma(builder: Any, kind: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, fused where the machine can."""
    vector = _vector_ir(kind)
    name = f"llvm.fmuladd.v{kind.lanes}f{kind.dtype.bitwidth}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    return builder.call(function, [a, b, c])


def _index(builder: Any, offset: Any, step: int) -> Any:
    return builder.add(offset, _I64(step))


@intrinsic
def lanes(typing_context, array):
    """Lanes of a vector of the array's dtype, a constant in compiled code."""

    def codegen(context, builder, signature, args):
        return _I64(lane_count(array.dtype))

    return types.intp(array), codegen


# -- vectors -----------------------------------------------------------------------------------------------------------


def _width(array: Any, wide: Any) -> Vector:
    return Vector(array.dtype, lane_count(array.dtype) if wide.literal_value else 1)


@intrinsic(prefer_literal=True)
def load(typing_context, array, index, wide):
    """array[index : index + lanes] as a vector; of one lane if `wide` (a literal) is False, for ragged edges."""
    kind = _width(array, wide)

    def codegen(context, builder, signature, args):
        return _load(context, builder, array, args[0], args[1], kind)

    return kind(array, types.intp, wide), codegen


@intrinsic(prefer_literal=True)
def zeros(typing_context, array, wide):
    """A vector of zeros that fits the array's dtype."""
    kind = _width(array, wide)

    def codegen(context, builder, signature, args):
        return ir.Constant(_vector_ir(kind), None)

    return kind(array, wide), codegen


@intrinsic
def store(typing_context, array, index, vector):
    """array[index : index + lanes] = vector."""

    def codegen(context, builder, signature, args):
        _store(context, builder, array, args[0], args[1], vector, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def fma(typing_context, a, b, c):
    """a * b + c, lane by lane."""

    def codegen(context, builder, signature, args):
        return _fma(builder, a, *args)

    return a(a, a, a), codegen


@intrinsic
def splat(typing_context, scalar, like):
    """A vector of the same kind as `like` with the scalar in every lane."""

    def codegen(context, builder, signature, args):
        return _splat(builder, like, context.cast(builder, args[0], scalar, like.dtype))

    return like(scalar, like), codegen


@intrinsic
def store_first(typing_context, array, index, vector, count):
    """array[index : index + count] = the first `count` lanes of the vector; no other element is touched."""

    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, array, args[0], args[1], vector)
        _masked_store(builder, vector, args[2], pointer, _lanes_below(builder, vector, args[3], 0))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector, types.intp), codegen


@intrinsic
def load_between(typing_context, array, index, first, end):
    """Lanes [first, end) of array[index : index + lanes], zeros elsewhere; no other element is read."""
    kind = Vector(array.dtype, lane_count(array.dtype))

    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, array, args[0], args[1], kind)
        below, start = (_lanes_below(builder, kind, limit, 0) for limit in (args[3], args[2]))
        return _masked_load(builder, kind, pointer, builder.and_(below, builder.not_(start)))

    return kind(array, types.intp, types.intp, types.intp), codegen


@intrinsic
def transpose(typing_context, x, xo, x_step, y, yo, y_step):
    """y[yo + j * y_step + i] = x[xo + i * x_step + j] for as many i and j as a vector has lanes.

    Each round swaps the off-diagonal halves of blocks half as wide as those of the round before.
    """
    n = lane_count(x.dtype)
    kind = Vector(x.dtype, n)

    def codegen(context, builder, signature, args):
        x_array, offset, step, y_array, to, y_step = args
        rows = []
        for _ in range(n):
            rows.append(_load(context, builder, x, x_array, offset, kind))
            offset = builder.add(offset, step)
        half = n // 2
        while half:
            upper = [lane if lane & half == 0 else n + lane - half for lane in range(n)]
            lower = [lane + half if lane & half == 0 else n + lane for lane in range(n)]
            for i in range(n):
                if i & half == 0:
                    rows[i], rows[i + half] = (
                        builder.shuffle_vector(rows[i], rows[i + half], ir.Constant(ir.VectorType(_I32, n), order))
                        for order in (upper, lower))
            half //= 2
        for row in rows:
            _store(context, builder, y, y_array, to, kind, row)
            to = builder.add(to, y_step)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, y, types.intp, types.intp), codegen


@intrinsic
def at_least(typing_context, values, floor):
    """The larger of each element of a vector or tile and the number `floor`; NaN stays NaN."""

    def codegen(context, builder, signature, args):
        lowest = _splat(builder, values, context.cast(builder, args[1], floor, values.dtype))
        if isinstance(values, Vector):
            return _at_least(builder, args[0], lowest)
        result = args[0]
        for i in range(values.rows * values.vecs):
            result = builder.insert_value(result, _at_least(builder, builder.extract_value(result, i), lowest), i)
        return result

    return values(values, floor), codegen


def _at_least(builder: Any, value: Any, lowest: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", value, lowest), lowest, value)


def _operator(function: Callable[[Any, Any], Any], instruction: str) -> None:
    @intrinsic
    def lanewise(typing_context, a, b):
        def codegen(context, builder, signature, args):
            return getattr(builder, instruction)(*args, flags=_FLAGS)

        return a(a, b), codegen

    @overload(function)
    def overloaded(a, b):
        if isinstance(a, Vector) and a == b:
            return lambda a, b: lanewise(a, b)
        if isinstance(a, Vector) and isinstance(b, types.Number):
            return lambda a, b: lanewise(a, splat(b, a))
        return None


for _function, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _operator(_function, _instruction)


def _prefetch(builder: Any, pointer: Any, write: int, locality: int) -> None:
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [builder.bitcast(pointer, byte), _I32(write), _I32(locality), _I32(1)])


@intrinsic
def prefetch(typing_context, array, index):
    """Asks for array[index] in the second-level cache; any index will do."""

    def codegen(context, builder, signature, args):
        _prefetch(builder, builder.gep(context.make_array(array)(context, builder, args[0]).data, [args[1]]), 0, 2)
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


# -- tiles -------------------------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def tile_splat(typing_context, rows, vecs, array, index):
    """A tile each of whose rows is array[index : index + vecs * lanes]."""
    tile = Tile(array.dtype, rows.literal_value, vecs.literal_value)

    def codegen(context, builder, signature, args):
        row = [_load(context, builder, array, args[2], _index(builder, args[3], v * tile.lanes), tile)
               for v in range(tile.vecs)]
        acc = ir.Constant(ir.ArrayType(_vector_ir(tile), tile.rows * tile.vecs), ir.Undefined)
        for i in range(tile.rows * tile.vecs):
            acc = builder.insert_value(acc, row[i % tile.vecs], i)
        return acc

    return tile(rows, vecs, array, types.intp), codegen


@intrinsic(prefer_literal=True)
def tile_zeros(typing_context, rows, vecs, array):
    """A tile of zeros that fits the array's dtype."""
    tile = Tile(array.dtype, rows.literal_value, vecs.literal_value)

    def codegen(context, builder, signature, args):
        return ir.Constant(ir.ArrayType(_vector_ir(tile), tile.rows * tile.vecs), None)

    return tile(rows, vecs, array), codegen


@intrinsic
def store_steps(typing_context, table, index, start, step):
    """table[index + i] = start + i * step for i in [0, 8); at no negative index."""

    def codegen(context, builder, signature, args):
        array, index, start, step = args
        value = start
        for i in range(8):
            builder.store(value, builder.gep(context.make_array(table)(context, builder, array).data, [_index(builder, index, i)]))
            value = builder.add(value, step)
        return context.get_dummy_value()

    return types.void(table, types.intp, types.intp, types.intp), codegen


@intrinsic
def tile_fma(typing_context, tile, x, xo, x_step, w, wo):
    """tile[r, :] += x[xo + r * x_step] * w[wo : wo + vecs * lanes]: one rank-1 update."""

    def codegen(context, builder, signature, args):
        acc, x_array, offset, step, w_array, w_offset = args
        row = [_load(context, builder, w, w_array, _index(builder, w_offset, v * tile.lanes), tile) for v in range(tile.vecs)]
        data = context.make_array(x)(context, builder, x_array).data
        for r in range(tile.rows):
            value = _splat(builder, tile, builder.load(builder.gep(data, [offset])))
            for v in range(tile.vecs):
                i = r * tile.vecs + v
                acc = builder.insert_value(acc, _fma(builder, tile, value, row[v], builder.extract_value(acc, i)), i)
            offset = builder.add(offset, step)
        return acc

    return tile(tile, x, types.intp, types.intp, w, types.intp), codegen


@intrinsic(prefer_literal=True)
def tile_sum(typing_context, tile, x, xo, rows, first, offsets, w, wo, ahead, soon, step, chain):
    """tile[r, :] += sum over t of x[xo + rows[first + r] + offsets[t]] * w[wo + t * vecs * lanes : ... + vecs * lanes].

    Products are added one after the other in chains of `chain`, a literal, whose sums are then added up: rounding errors grow with
    the length of a chain. Meanwhile ahead[soon + t * step] is fetched into the second-level cache, unless `ahead` is None. That may lie
    outside: a prefetch reads no memory that is not there.
    """

    def codegen(context, builder, signature, args):
        acc, x_array, offset, rows_array, start, offsets_array, w_array, w_offset, ahead_array, soon, step, _ = args
        length, zero = _I64(chain.literal_value), ir.Constant(_vector_ir(tile), None)

        def pointer_to(kind: Any, array: Any, index: Any) -> Any:
            return builder.gep(context.make_array(kind)(context, builder, array).data, [index])

        # Rows' addresses stay in registers: what changes from one element to the next is the same for all.
        origin = pointer_to(x, x_array, offset)
        places = [builder.load(pointer_to(rows, rows_array, _index(builder, start, r))) for r in range(tile.rows)]
        pointers = [builder.gep(origin, [place]) for place in places]
        count = builder.extract_value(context.make_array(offsets)(context, builder, offsets_array).shape, 0)

        def chain_of(sums: list[Any], begin: Any, end: Any, after: Any) -> list[Any]:
            """`sums` and the products of [begin, end), at least one; goes on in block `after`."""
            before, loop = builder.block, builder.append_basic_block("products")
            builder.branch(loop)
            builder.position_at_end(loop)
            t, totals, new = builder.phi(_I64), [builder.phi(_vector_ir(tile)) for _ in sums], []
            weights = builder.add(w_offset, builder.mul(t, _I64(tile.vecs * tile.lanes)))
            row = [_load(context, builder, w, w_array, _index(builder, weights, v * tile.lanes), tile) for v in range(tile.vecs)]
            element = builder.load(pointer_to(offsets, offsets_array, t))
            for r, pointer in enumerate(pointers):
                value = _splat(builder, tile, builder.load(builder.gep(pointer, [element])))
                new += [_fma(builder, tile, value, row[v], totals[r * tile.vecs + v]) for v in range(tile.vecs)]
            if not isinstance(ahead, types.NoneType):
                _prefetch(builder, pointer_to(ahead, ahead_array, builder.add(soon, builder.mul(t, step))), 0, 2)
            following = builder.add(t, _I64(1))
            builder.cbranch(builder.icmp_signed("<", following, end), loop, after)
            for phi, at_first, at_last in ((t, begin, following), *zip(totals, sums, new, strict=True)):
                phi.add_incoming(at_first, before)
                phi.add_incoming(at_last, loop)
            builder.position_at_end(after)
            return new

        def least(a: Any, b: Any) -> Any:
            return builder.select(builder.icmp_signed("<", a, b), a, b)

        none, some, one = builder.block, builder.append_basic_block("some"), builder.append_basic_block("one")
        more, added, done = (builder.append_basic_block(name) for name in ("more", "added", "done"))
        sums = [builder.extract_value(acc, i) for i in range(tile.rows * tile.vecs)]
        builder.cbranch(builder.icmp_signed(">", count, _I64(0)), some, done)
        builder.position_at_end(some)
        first_chain = chain_of(sums, _I64(0), least(count, length), one)
        builder.cbranch(builder.icmp_signed(">", count, length), more, done)

        builder.position_at_end(more)
        begin, totals = builder.phi(_I64), [builder.phi(_vector_ir(tile)) for _ in sums]
        following = builder.add(begin, length)
        chain_sums = chain_of([zero] * len(sums), begin, least(count, following), added)
        new = [builder.fadd(total, value) for total, value in zip(totals, chain_sums, strict=True)]
        builder.cbranch(builder.icmp_signed("<", following, count), more, done)
        for phi, at_first, at_last in ((begin, length, following), *zip(totals, first_chain, new, strict=True)):
            phi.add_incoming(at_first, one)
            phi.add_incoming(at_last, added)

        builder.position_at_end(done)
        for i in range(len(sums)):
            result = builder.phi(_vector_ir(tile))
            result.add_incoming(sums[i], none)
            result.add_incoming(first_chain[i], one)
            result.add_incoming(new[i], added)
            sums[i] = result
        for i, result in enumerate(sums):
            acc = builder.insert_value(acc, result, i)
        return acc

    return tile(tile, x, types.intp, rows, types.intp, offsets, w, types.intp, ahead, types.intp, types.intp, chain), codegen


@intrinsic(prefer_literal=True)
def tile_fma_columns(typing_context, tile, x, xo, step, column, apart, width, w, wo, taps, within):
    """tile[r, :] += x[xo + (r + s) * step : ...] * w[wo + (s * G + m) * vecs * lanes : ...] for each tap s < `taps`, a literal, and m.

    These inputs lie in columns column + (r + s) * apart; w begins with the zeros that stand for columns outside [0, width).
    `within`, a tuple, numbers the G lanes of a group: 0 up to a divisor of lanes. Lane m of its group stands for all lanes of it.
    """
    T, G, P, V = taps.literal_value, within.count, tile.rows, tile.vecs
    orders = [ir.Constant(ir.VectorType(_I32, tile.lanes), [lane // G * G + m for lane in range(tile.lanes)]) for m in range(G)]

    def codegen(context, builder, signature, args):
        acc, x_array, offset, step, column, apart, width, w_array, w_offset, _, _ = args
        zeros, pixels = _pointer(context, builder, w, w_array, _I64(0), tile), []
        for _ in range(P + T - 1):
            inside = builder.icmp_unsigned("<", column, width)
            pixels.append(builder.select(inside, _pointer(context, builder, x, x_array, offset, tile), zeros))
            offset, column = builder.add(offset, step), builder.add(column, apart)
        for v in range(V):
            factors = [_load(context, builder, w, w_array, _index(builder, w_offset, (i * V + v) * tile.lanes), tile) for i in range(T * G)]
            for i, pixel in enumerate(pixels):
                value = builder.load(builder.gep(pixel, [_I64(v)]))
                value.align = tile.dtype.bitwidth // 8
                for m, order in enumerate(orders):
                    lane = value if G == 1 else builder.shuffle_vector(value, value, order)
                    for s in range(max(0, i - P + 1), min(T, i + 1)):
                        to = (i - s) * V + v
                        acc = builder.insert_value(acc, _fma(builder, tile, lane, factors[s * G + m], builder.extract_value(acc, to)), to)
        return acc

    return tile(tile, x, *[types.intp] * 5, w, types.intp, taps, within), codegen


@intrinsic(prefer_literal=True)
def tile_fma_taps(typing_context, tile, x, xo, x_line, step, line, below, height, column, apart, width, g, go, size, guarded, zeros):
    """For size x size taps (r, s): tile[r * size + s, :] += x[xo + r * x_line + s * step : ...] * g[go : ...].

    These inputs lie in line + r * below and column + s * apart; if `guarded`, a literal like `size`, those outside
    [0, height) and [0, width) are zeros[0 : ...].
    """

    def codegen(context, builder, signature, args):
        acc, x_array, xo, x_line, step, line, below, height, column, apart, width, g_array, go, _, _, zeros_array = args
        zero = _pointer(context, builder, zeros, zeros_array, _I64(0), tile)
        factors = [_load(context, builder, g, g_array, _index(builder, go, v * tile.lanes), tile) for v in range(tile.vecs)]
        for r in range(size.literal_value):
            here = builder.select(builder.icmp_unsigned("<", line, height), width, _I64(0))
            offset, at = xo, column
            for s in range(size.literal_value):
                pixel = _pointer(context, builder, x, x_array, offset, tile)
                if guarded.literal_value:
                    pixel = builder.select(builder.icmp_unsigned("<", at, here), pixel, zero)
                for v, factor in enumerate(factors):
                    value = builder.load(builder.gep(pixel, [_I64(v)]))
                    value.align = tile.dtype.bitwidth // 8
                    to = (r * size.literal_value + s) * tile.vecs + v
                    acc = builder.insert_value(acc, _fma(builder, tile, value, factor, builder.extract_value(acc, to)), to)
                offset, at = builder.add(offset, step), builder.add(at, apart)
            xo, line = builder.add(xo, x_line), builder.add(line, below)
        return acc

    return tile(tile, x, *[types.intp] * 9, g, types.intp, size, guarded, zeros), codegen


def _exchanged(builder: Any, tile: Tile, row: Any, distance: int) -> Any:
    """Lane l of the result is lane l ^ distance of the vector."""
    order = [(lane ^ distance) % tile.lanes for lane in range(tile.lanes)]
    return builder.shuffle_vector(row, row, ir.Constant(ir.VectorType(_I32, tile.lanes), order)) if distance else row


@intrinsic(prefer_literal=True)
def tile_fma_across(typing_context, tile, x, xo, x_step, w, wo, size):
    """tile[r * size + d, l] += x[xo + r * x_step + (l ^ d)] * w[wo + l] for d in [0, size), size being a literal."""

    def codegen(context, builder, signature, args):
        acc, x_array, offset, step, w_array, w_offset, _ = args
        factor = _load(context, builder, w, w_array, w_offset, tile)
        for r in range(tile.rows // size.literal_value):
            row = _load(context, builder, x, x_array, offset, tile)
            for d in range(size.literal_value):
                i = r * size.literal_value + d
                product = _fma(builder, tile, _exchanged(builder, tile, row, d), factor, builder.extract_value(acc, i))
                acc = builder.insert_value(acc, product, i)
            offset = builder.add(offset, step)
        return acc

    return tile(tile, x, types.intp, types.intp, w, types.intp, size), codegen


@intrinsic
def tile_add(typing_context, tile, other):
    """tile[r, :] + other[r, :]."""

    def codegen(context, builder, signature, args):
        acc, more = args
        for i in range(tile.rows * tile.vecs):
            total = builder.fadd(builder.extract_value(acc, i), builder.extract_value(more, i))
            acc = builder.insert_value(acc, total, i)
        return acc

    return tile(tile, tile), codegen


@intrinsic
def tile_store(typing_context, tile, y, yo, y_step, valid):
    """y[yo + r * y_step : ... + valid] = tile[r, :valid]; no other element is touched."""

    def codegen(context, builder, signature, args):
        acc, y_array, offset, step, count = args
        places = []  # of each vector: its number, its place in the row, its offset
        for r in range(tile.rows):
            places += [(r * tile.vecs + v, v, _index(builder, offset, v * tile.lanes)) for v in range(tile.vecs)]
            offset = builder.add(offset, step)
        with builder.if_else(builder.icmp_signed(">=", count, _I64(tile.vecs * tile.lanes))) as (whole, ragged):
            with whole:
                for i, _, index in places:
                    _store(context, builder, y, y_array, index, tile, builder.extract_value(acc, i))
            with ragged:
                masks = [_lanes_below(builder, tile, count, v * tile.lanes) for v in range(tile.vecs)]
                for i, v, index in places:
                    pointer = _pointer(context, builder, y, y_array, index, tile)
                    _masked_store(builder, tile, builder.extract_value(acc, i), pointer, masks[v])
        return context.get_dummy_value()

    return types.void(tile, y, types.intp, types.intp, types.intp), codegen


@intrinsic
def tile_store_rows(typing_context, tile, y, yo, y_step, valid, count):
    """y[yo + r * y_step : ... + valid] = tile[r, :valid] for each r < count; no other element is touched."""

    def codegen(context, builder, signature, args):
        acc, y_array, offset, step, valid, count = args
        whole = builder.and_(builder.icmp_signed(">=", valid, _I64(tile.vecs * tile.lanes)),
                             builder.icmp_signed(">=", count, _I64(tile.rows)))
        offsets = [offset]
        for _ in range(tile.rows - 1):
            offsets.append(builder.add(offsets[-1], step))
        with builder.if_else(whole) as (all_of_it, part):
            with all_of_it:
                for i in range(tile.rows * tile.vecs):
                    index = _index(builder, offsets[i // tile.vecs], i % tile.vecs * tile.lanes)
                    _store(context, builder, y, y_array, index, tile, builder.extract_value(acc, i))
            with part:
                masks = [_lanes_below(builder, tile, valid, v * tile.lanes) for v in range(tile.vecs)]
                for r in range(tile.rows):
                    with builder.if_then(builder.icmp_signed(">", count, _I64(r))):
                        for v in range(tile.vecs):
                            pointer = _pointer(context, builder, y, y_array, _index(builder, offsets[r], v * tile.lanes), tile)
                            _masked_store(builder, tile, builder.extract_value(acc, r * tile.vecs + v), pointer, masks[v])
        return context.get_dummy_value()

    return types.void(tile, y, *[types.intp] * 4), codegen


def _lanes_below(builder: Any, tile: Tile, count: Any, first: int) -> Any:
    """Mask of the lanes, numbered from `first`, below `count`."""
    kind = ir.VectorType(_I32, tile.lanes)
    for sign, limit in (("<", _I64(first + tile.lanes)), (">", _I64(0))):     # 32 bits are enough afterwards, not before
        count = builder.select(builder.icmp_signed(sign, count, limit), count, limit)
    undefined = ir.Constant(kind, ir.Undefined)
    below = builder.insert_element(undefined, builder.trunc(count, _I32), _I32(0))
    below = builder.shuffle_vector(below, undefined, ir.Constant(kind, [0] * tile.lanes))
    return builder.icmp_signed(">", below, ir.Constant(kind, list(range(first, first + tile.lanes))))


def _masked_store(builder: Any, tile: Tile, value: Any, pointer: Any, mask: Any) -> None:
    """llvm.masked.store with the alignment as its third argument, a form that newer LLVM upgrades by itself."""
    vector = _vector_ir(tile)
    kind = ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), _I32, mask.type])
    name = f"llvm.masked.store.v{tile.lanes}f{tile.dtype.bitwidth}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.call(function, [value, pointer, _I32(tile.dtype.bitwidth // 8), mask])


@intrinsic
def tile_put(typing_context, tile, y, places, first, shift, valid, add, floor):
    """y[places[first + r] + shift : ... + valid] = max(tile[r, :valid], floor); rows whose place is negative, the last ones, are dropped.

    If `add`, what is there is added first. NaN stays NaN. No other element is touched.
    """

    def codegen(context, builder, signature, args):
        acc, y_array, places_array, start, shift, valid, add, floor = args
        table = context.make_array(places)(context, builder, places_array).data
        lowest = _splat(builder, tile, floor)

        places_of = [builder.load(builder.gep(table, [_index(builder, start, r)])) for r in range(tile.rows)]
        whole_rows = builder.icmp_signed(">=", places_of[-1], _I64(0))
        whole_vectors = builder.and_(whole_rows, builder.icmp_signed(">=", valid, _I64(tile.vecs * tile.lanes)))

        def write_row(r: int, write: Callable[[int, Any, Any], None]) -> None:
            row = builder.add(places_of[r], shift)
            for v in range(tile.vecs):
                pointer = _pointer(context, builder, y, y_array, _index(builder, row, v * tile.lanes), tile)
                write(v, pointer, builder.extract_value(acc, r * tile.vecs + v))

        def put(r: int, write: Callable[[int, Any, Any], None]) -> None:
            with builder.if_then(builder.icmp_signed(">=", places_of[r], _I64(0))):
                write_row(r, write)

        def write_whole(v: int, pointer: Any, value: Any) -> None:
            builder.store(_at_least(builder, value, lowest), pointer).align = tile.dtype.bitwidth // 8

        def write_part(v: int, pointer: Any, value: Any) -> None:
            _masked_store(builder, tile, _at_least(builder, value, lowest), pointer, masks[v])

        def add_part(v: int, pointer: Any, value: Any) -> None:
            write_part(v, pointer, builder.fadd(value, _masked_load(builder, tile, pointer, masks[v])))

        masks = [_lanes_below(builder, tile, valid, v * tile.lanes) for v in range(tile.vecs)]
        with builder.if_else(builder.icmp_unsigned("!=", add, add.type(0))) as (adding, overwriting):
            with adding:
                for r in range(tile.rows):
                    put(r, add_part)
            with overwriting, builder.if_else(whole_vectors) as (whole, ragged):
                with whole:
                    for r in range(tile.rows):
                        write_row(r, write_whole)
                with ragged:
                    for r in range(tile.rows):
                        put(r, write_part)
        return context.get_dummy_value()

    return types.void(tile, y, places, types.intp, types.intp, types.intp, types.boolean, y.dtype), codegen


def _masked_load(builder: Any, tile: Tile, pointer: Any, mask: Any) -> Any:
    """llvm.masked.load; zeros where the mask is off."""
    vector = _vector_ir(tile)
    kind = ir.FunctionType(vector, [vector.as_pointer(), _I32, mask.type, vector])
    name = f"llvm.masked.load.v{tile.lanes}f{tile.dtype.bitwidth}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [pointer, _I32(tile.dtype.bitwidth // 8), mask, ir.Constant(vector, None)])


@intrinsic
def tile_add_to(typing_context, tile, y, yo, y_step):
    """y[yo + r * y_step : ... + vecs * lanes] += tile[r, :]."""

    def codegen(context, builder, signature, args):
        acc, y_array, offset, step = args
        for i in range(tile.rows * tile.vecs):
            index = _index(builder, offset, i % tile.vecs * tile.lanes)
            before = _load(context, builder, y, y_array, index, tile)
            total = builder.fadd(before, builder.extract_value(acc, i))
            _store(context, builder, y, y_array, index, tile, total)
            offset = builder.add(offset, step) if (i + 1) % tile.vecs == 0 else offset
        return context.get_dummy_value()

    return types.void(tile, y, types.intp, types.intp), codegen
