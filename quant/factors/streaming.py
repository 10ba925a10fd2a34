# pyright: basic
"""Results on their way out, for numba: cache line by cache line, with a bit a value for whether it is known.

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


def _stream(context: Any, out: Any, at: Any, known: Any, values: Any, first: Any, count: Any) -> Any:
    """So many float64 ``values`` from ``first`` on into ``out`` (float32 or float64, from a line's beginning on) from place ``at`` on, and
    into the bits from ``at`` on of ``known`` (uint8) a 0 for NaN and a 1 for the rest. As many places before and behind them as a line
    holds are read, whatever they hold.
    """
    return types.void(out, at, known, values, first, count), _streaming(lambda _, values: values)


def _stream_quotient(context: Any, out: Any, at: Any, known: Any, values: Any, first: Any, count: Any, divisor: Any) -> Any:
    """``stream`` of ``values`` from ``first`` on over those from ``divisor`` on."""
    return types.void(out, at, known, values, first, count, divisor), _streaming(lambda builder, values, by: builder.fdiv(values, by))


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
        _, at, _, _, first, count, *divisor = arguments
        kind = context.get_value_type(signature.args[0].dtype)
        lanes = LINE_BYTES // context.get_abi_sizeof(kind)
        narrow, wide, mask = ir.VectorType(kind, lanes), ir.VectorType(ir.DoubleType(), lanes), ir.IntType(lanes)
        step, whole = ir.Constant(at.type, lanes), ir.Constant(at.type, -lanes)
        places = ir.Constant(ir.VectorType(at.type, lanes), list(range(lanes)))
        past_the_cache = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])

        def line_of(array: Any, place: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(array, [place]), kind.as_pointer())

        def computed(line: Any) -> tuple[Any, Any]:
            """Values and bits of the line that begins at a place."""
            begins = [builder.add(begin, builder.sub(line, at)) for begin in (first, *divisor)]
            value = combined(builder, *(builder.load(line_of(source, begin, wide), align=8) for begin in begins))
            bits = builder.bitcast(builder.fcmp_ordered("ord", value, value), mask)
            return value if narrow == wide else builder.fptrunc(value, narrow), bits

        def bits_of(line: Any) -> Any:
            return line_of(bits, builder.lshr(line, ir.Constant(line.type, 3)), mask)

        def spread(place: Any) -> Any:
            one = builder.insert_element(ir.Constant(places.type, ir.Undefined), place, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))

        def part(line: Any) -> None:
            """The places of a line from ``at`` to ``end``; the others keep what they have."""
            value, known = computed(line)
            there = builder.add(spread(line), places)
            inside = builder.and_(builder.icmp_signed(">=", there, spread(at)), builder.icmp_signed("<", there, spread(end)))
            into, marks = line_of(target, line, narrow), builder.bitcast(inside, mask)
            builder.store(builder.select(inside, value, builder.load(into, align=LINE_BYTES)), into, align=LINE_BYTES)
            kept = builder.and_(builder.load(bits_of(line), align=1), builder.not_(marks))
            builder.store(builder.or_(kept, builder.and_(known, marks)), bits_of(line), align=1)

        end = builder.add(at, count)
        begin, stop = builder.and_(builder.add(at, ir.Constant(at.type, lanes - 1)), whole), builder.and_(end, whole)
        with builder.if_then(builder.icmp_signed("<", at, begin)):
            part(builder.sub(begin, step))
        with cgutils.for_range_slice(builder, begin, stop, step, inc=True) as (line, _):
            value, known = computed(line)
            builder.store(known, bits_of(line), align=1)
            builder.store(value, line_of(target, line, narrow), align=LINE_BYTES).set_metadata("nontemporal", past_the_cache)
        with builder.if_then(builder.and_(builder.icmp_signed("<", stop, end), builder.icmp_signed(">=", stop, begin))):
            part(stop)
        return context.get_dummy_value()

    return build


stream: Callable[..., None] = intrinsic(_stream)
stream_quotient: Callable[..., None] = intrinsic(_stream_quotient)
prefetch: Callable[..., None] = intrinsic(_prefetch)
drain: Callable[..., None] = intrinsic(_drain)
