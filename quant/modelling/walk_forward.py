"""Yearly walk-forward folds, purged: nothing that was not known before a segment begins is in the segments before it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quant.errors import InputError, expected

if TYPE_CHECKING:
    from quant.calendar import ExchangeCalendar


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One retraining. Training rows have train_first <= session and a label known before valid_first; validation rows have valid_first <=
    session and a label known before test_first; the model scores the sessions of the year from test_first on.
    """

    year: int
    train_first: date
    valid_first: date
    test_first: date
    test_last: date


def yearly_folds(calendar: ExchangeCalendar, *, first: date, last: date, train_years: int, max_train_years: int | None) -> list[Fold]:
    """One fold for every calendar year that can be scored with data from ``first`` on, up to the year of ``last``.

    The first fold has ``train_years`` (partial years count) of training and one of validation before it; ``max_train_years`` makes the
    training window roll instead of growing. Folds depend on the calendar alone, never on the paper start.
    """
    folds: list[Fold] = []
    for year in range(first.year + train_years + 1, last.year + 1):
        begin = first.year if max_train_years is None else max(first.year, year - 1 - max_train_years)
        folds.append(
            Fold(
                year=year,
                train_first=calendar.on_or_after(max(first, date(begin, 1, 1))),
                valid_first=calendar.on_or_after(date(year - 1, 1, 1)),
                test_first=calendar.on_or_after(date(year, 1, 1)),
                test_last=calendar.on_or_before(date(year, 12, 31)),
            )
        )
    if not folds:
        need = f"a paper start in {first.year + train_years + 1} or later ({train_years} years to train on and one to validate on first)"
        do = "move [calendar] start or paper_start, or lower train_years in [model]"
        raise InputError(expected(need, found=f"start {first}, paper start {last}", where="[calendar] of the profile", do=do))
    return folds


def training_rows(labelled: pl.DataFrame, fold: Fold) -> pl.DataFrame:
    """Rows of ``labelled`` (session, known_session, ...) to train on."""
    return labelled.filter(pl.col("session") >= fold.train_first, pl.col("known_session") < fold.valid_first)


def validation_rows(labelled: pl.DataFrame, fold: Fold) -> pl.DataFrame:
    """Rows of ``labelled`` (session, known_session, ...) to stop the training by."""
    return labelled.filter(pl.col("session") >= fold.valid_first, pl.col("known_session") < fold.test_first)
