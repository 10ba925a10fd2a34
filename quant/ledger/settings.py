"""What a book does with dividends, fractions of shares, interest and holdings that nobody quotes any more."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field


class LedgerSettings(BaseModel, frozen=True, extra="forbid"):
    """Rules of the bookings that are no costs of trading."""

    dividends_paid: Literal["pay_date", "ex_date"] = "pay_date"
    dividend_pay_delay_days: int = Field(default=21, ge=0, le=365)  # calendar days after the ex-date, where a source has no pay date
    interest_credit_rate_annual: float = Field(default=0.0, ge=0, le=1)
    interest_debit_rate_annual: float = Field(default=0.07, ge=0, le=1)
    interest_year_days: Literal[360, 365] = 360
    stale_limit_sessions: int = Field(default=20, ge=1, le=10_000)

    fractional_shares: ClassVar[bool] = False


class FractionalLedgerSettings(LedgerSettings, frozen=True, extra="forbid"):
    """Of a book that holds fractions of shares: a split leaves them, none are paid in cash. Orders of the product are for whole shares, so
    this is for measuring, not a setting.
    """

    fractional_shares: ClassVar[bool] = True
