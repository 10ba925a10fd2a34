"""Where floating point (research) crosses into Decimal (cash, fills, ledger), and the quanta of the latter."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from math import isfinite

from quant.errors import LedgerError, expected

CASH_QUANTUM = Decimal("0.000001")
PRICE_QUANTUM = Decimal("0.000000001")
CENT = Decimal("0.01")
ZERO = Decimal(0)


def to_decimal(value: float, *, quantum: Decimal, where: str) -> Decimal:
    """The one crossing from float64 to Decimal: shortest decimal that names the float, rounded half-even to ``quantum``.

    Raises LedgerError for NaN and infinities.
    """
    if not isfinite(value):
        raise LedgerError(expected("a finite number", found=value, where=where, do="fix the row it comes from"))
    return Decimal(repr(float(value))).quantize(quantum, rounding=ROUND_HALF_EVEN)


def price(value: float, where: str = "a price") -> Decimal:
    """USD per share, quantum 1e-9."""
    return to_decimal(value, quantum=PRICE_QUANTUM, where=where)


def cents(value: Decimal) -> Decimal:
    """Rounded half-even to whole cents: how fees and cash in lieu are paid."""
    return value.quantize(CENT, rounding=ROUND_HALF_EVEN)


def cents_up(value: Decimal) -> Decimal:
    """Rounded up to whole cents: how brokers pass fees of the regulators on."""
    return value.quantize(CENT, rounding=ROUND_CEILING)
