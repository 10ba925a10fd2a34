"""Programs: what quant.factors.kernels runs, assembled from instructions on values that are written once each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from quant.factors.kernels import BAD, BEFORE, EXISTS, FIRST_BEFORE, FIRST_NOW, FIRST_OUT, NOW, OUT, POSITION, WIDTH, Op

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


Value = int  # of an instruction; every value is written once
Values = tuple[Value, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One step: ``out`` from operands at the row (``now``) and ``lag`` rows earlier (``before``)."""

    op: Op
    out: Values
    now: Values = ()
    before: Values = ()
    lag: int = 0
    k: tuple[float, ...] = ()
    span: int = 1  # rows of the first operand that are read, the current one included
    wires: Values = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What quant.factors.kernels runs: see there for the layout of ``code``."""

    code: NDArray[np.int32]
    constants: NDArray[np.float64]
    wires: NDArray[np.int64]
    fields: tuple[str, ...]
    field_registers: NDArray[np.int64]
    registers: int
    presets: Mapping[int, float]
    """Registers that hold a constant."""


def assemble(
    instructions: Sequence[Instruction], fields: tuple[str, ...], inputs: Mapping[str, Value], constants: Mapping[float, Value]
) -> Program:
    """The program of ``instructions``: what nobody needs left out, each given the rows it has to write, values given registers."""
    return _allocate(_with_quotients_stored(instructions), fields, inputs, constants)


def _with_quotients_stored(instructions: Sequence[Instruction]) -> list[Instruction]:
    """A quotient that is a result and nothing else goes there at once: most factors end with a division, and writing costs most."""
    uses = Counter(value for step in instructions for value in (*step.now, *step.before, *step.wires))
    quotients = {step.out[0]: step for step in instructions if step.op is Op.DIV and uses[step.out[0]] == 1}
    stored: list[Instruction] = []
    for step in instructions:
        if step.op is Op.STORE and step.now[0] in quotients:
            quotient = quotients[step.now[0]]
            stored.append(replace(step, op=Op.STORE_QUOTIENT, now=(*quotient.now, *quotient.before)))
        else:
            stored.append(step)  # the quotient's own instruction too: nobody needs it any more, so it is left out later
    return stored


def _allocate(
    instructions: Sequence[Instruction], fields: tuple[str, ...], inputs: Mapping[str, Value], constants: Mapping[float, Value]
) -> Program:
    past: dict[Value, int] = {}
    future: dict[Value, int] = {}
    kept: list[tuple[Instruction, int, int]] = []
    for step in reversed(instructions):
        needed = step.now if step.op is Op.CHECK else tuple(value for value in step.out if value in past)
        if step.op < Op.STORE and not (needed and needed[0] in past):
            continue
        need = max((past[value] for value in needed), default=0)
        ahead = max((future[value] for value in needed), default=0)
        kept.append((step, need, ahead))
        for number, value in enumerate((*step.now, *step.wires)):
            past[value] = max(past.get(value, need), need + (step.span - 1 if number == 0 else 0))
            future[value] = max(future.get(value, ahead), ahead)
        for value in step.before:
            past[value] = max(past.get(value, need + step.lag), need + step.lag)
            future[value] = max(future.get(value, ahead - step.lag), ahead - step.lag)
    return _registers(kept[::-1], fields, inputs, constants)


def _registers(
    steps: Sequence[tuple[Instruction, int, int]], fields: tuple[str, ...], inputs: Mapping[str, Value], constants: Mapping[float, Value]
) -> Program:
    last = {value: at for at, (step, _, _) in enumerate(steps) for value in (*step.now, *step.before, *step.wires)}
    fixed = [BAD, EXISTS, POSITION, *(inputs[name] for name in fields), *(value for value in constants.values() if value in last)]
    register = {value: number for number, value in enumerate(fixed)}
    free: list[int] = []
    used = len(register)
    code = np.zeros((len(steps), WIDTH), np.int32)
    numbers = np.zeros((len(steps), 3))
    wires: list[int] = []
    for at, (step, need, ahead) in enumerate(steps):
        reads = (*step.now, *step.before, *step.wires)
        for value in step.out:
            if value not in register:
                register[value] = free.pop() if free else used
                used = max(used, register[value] + 1)
        code[at, :FIRST_OUT] = step.op, need, ahead, len(wires) if step.wires else step.lag
        for first, size, values in ((FIRST_OUT, OUT, step.out), (FIRST_NOW, NOW, step.now), (FIRST_BEFORE, BEFORE, step.before)):
            if len(values) > size:
                raise AssertionError(f"{step.op.name} has {len(values)} operands in {size} places")
            code[at, first : first + len(values)] = [register[value] for value in values]
        numbers[at, : len(step.k)] = step.k
        wires += [register[value] for value in step.wires]
        done = {value for value in (*reads, *step.out) if last.get(value, at) <= at and value not in fixed}
        free += sorted(register[value] for value in done)
    return Program(
        code=code,
        constants=numbers,
        wires=np.array(wires or [0], np.int64),
        fields=fields,
        field_registers=np.array([register[inputs[name]] for name in fields], np.int64),
        registers=used,
        presets={register[value]: number for number, value in constants.items() if value in register},
    )
