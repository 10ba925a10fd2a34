# pyright: basic
"""Results on their way out, for numba: whole cache lines that go past the cache, with a bit a value for whether it is known.

Results are many times larger than any cache and are not read again while computing. An ordinary write first reads the line that it is
going to replace, and puts another one, which is needed, out of the cache: a streaming write does neither. numba has none, but its
compiler does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

LINE_BYTES = 64


def _stream(context: Any, out: Any, at: Any, known: Any, values: Any, first: Any, lines: Any) -> Any:
    """Fill so many cache lines of ``out`` (float32 or float64) from place ``at`` on, where one begins, with float64 ``values`` from
    ``first`` on, and the bits from ``at`` on of ``known`` (uint8) with 0 for NaN and 1 for the rest.
    """
    return types.void(out, at, known, values, first, lines), _streaming(lambda _, values: values)


def _stream_quotient(context: Any, out: Any, at: Any, known: Any, values: Any, first: Any, lines: Any, divisor: Any) -> Any:
    """``stream`` of ``values`` from ``first`` on over those from ``divisor`` on."""
    return types.void(out, at, known, values, first, lines, divisor), _streaming(lambda builder, values, by: builder.fdiv(values, by))


def _prefetch(context: Any, out: Any, at: Any) -> Any:
    """Have the cache line of place ``at`` of ``out`` fetched, to be written to soon; a place beyond the end does no harm."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(8).as_pointer())
        to_write, to_keep, data = (ir.Constant(ir.IntType(32), value) for value in (1, 3, 1))
        kind = ir.FunctionType(ir.VoidType(), [place.type, to_write.type, to_keep.type, data.type])
        builder.call(builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind), [place, to_write, to_keep, data])
        return context.get_dummy_value()

    return types.void(out, at), build


def _drain(context: Any) -> Any:
    """Nobody reads what was streamed before this sees less than all of it: to be called before other threads may."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), build


def _streaming(combined: Callable[..., Any]) -> Callable[[Any, Any, Any, Any], Any]:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, bits, source = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 2, 3))
        _, at, _, _, first, lines, *divisor = arguments
        kind = context.get_value_type(signature.args[0].dtype)
        lanes = LINE_BYTES // context.get_abi_sizeof(kind)
        narrow, wide, mask = ir.VectorType(kind, lanes), ir.VectorType(ir.DoubleType(), lanes), ir.IntType(lanes)
        past_the_cache = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        zero, step = ir.Constant(lines.type, 0), ir.Constant(lines.type, lanes)
        with cgutils.for_range_slice(builder, zero, builder.mul(lines, step), step, inc=True) as (place, _):
            places = [builder.add(begin, place) for begin in (first, *divisor)]
            loaded = [builder.load(builder.bitcast(builder.gep(source, [begin]), wide.as_pointer()), align=8) for begin in places]
            value = combined(builder, *loaded)
            line = builder.add(at, place)
            ordered = builder.bitcast(builder.fcmp_ordered("ord", value, value), mask)
            eighth = builder.lshr(line, ir.Constant(line.type, 3))
            builder.store(ordered, builder.bitcast(builder.gep(bits, [eighth]), mask.as_pointer()), align=1)
            value = value if narrow == wide else builder.fptrunc(value, narrow)
            written = builder.store(value, builder.bitcast(builder.gep(target, [line]), narrow.as_pointer()), align=LINE_BYTES)
            written.set_metadata("nontemporal", past_the_cache)
        return context.get_dummy_value()

    return build


stream: Callable[..., None] = intrinsic(_stream)
stream_quotient: Callable[..., None] = intrinsic(_stream_quotient)
prefetch: Callable[..., None] = intrinsic(_prefetch)
drain: Callable[..., None] = intrinsic(_drain)
