"""Splits in exact arithmetic: how many whole shares a holding becomes, and the fraction of a share that is paid in cash."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from math import prod

from quant.trading.market import CorporateAction

_LARGEST_DENOMINATOR = 10_000
_SAME_RATIO = Fraction(1, 10**9)  # relative; between what a float loses of a third (1e-16) and what a vendor's rounding adds


def exact_split_ratio(actions: Sequence[CorporateAction], symbol: str) -> Fraction:
    """New shares per old of ``symbol`` over all its splits among ``actions``; 1 without any."""
    return prod((exact_ratio(a.value) for a in actions if a.symbol == symbol and a.kind == "split"), start=Fraction(1))


def exact_ratio(ratio: float) -> Fraction:
    """The ratio of whole numbers that a float above zero stands for; else the decimal that names the float.

    Feeds publish 1:3 as 0.3333333333333333, by which 300 shares become 99 and a fraction that is all of a share but for its last digit.
    """
    named = Fraction(repr(float(ratio)))
    simple = named.limit_denominator(_LARGEST_DENOMINATOR)
    return simple if abs(simple - named) <= named * _SAME_RATIO else named


def after_split(quantity: Decimal, ratio: Fraction) -> tuple[Decimal, Decimal]:
    """Signed whole shares, truncated towards zero, and the rest: a fraction of a share of the same sign (to 28 digits)."""
    exact = Fraction(quantity) * ratio
    whole = int(exact)
    rest = exact - whole
    return Decimal(whole), Decimal(rest.numerator) / rest.denominator
