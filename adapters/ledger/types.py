"""How exact numbers, instants and JSON documents are stored."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, DateTime, Text, TypeDecorator
from sqlalchemy.exc import DontWrapMixin

from quant.audit.canonical import canonical_json
from quant.errors import LedgerError, expected

if TYPE_CHECKING:
    from sqlalchemy import Dialect

# Own context: 64-bit integers have 19 digits, whatever precision the caller's context has.
_CONTEXT = Context(prec=40)


class UnstorableError(LedgerError, DontWrapMixin):
    """Halt: a value the database cannot hold exactly. The mixin keeps SQLAlchemy from hiding it in a StatementError."""


class ScaledDecimal(TypeDecorator[Decimal]):
    """Decimal as a 64-bit integer of 10**-places. SQLite's NUMERIC rounds silently; this refuses (UnstorableError) instead."""

    impl = BigInteger
    cache_ok = True

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places
        self.limit = Decimal(2**63).scaleb(-places, _CONTEXT)

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        if not value.is_finite() or not self.limit.copy_negate() <= value < self.limit:
            raise UnstorableError(self._refusal(f"a number in +-{self.limit}", value))
        scaled = int(value.scaleb(self.places, _CONTEXT))
        if Decimal(scaled).scaleb(-self.places, _CONTEXT) != value:
            raise UnstorableError(self._refusal(f"at most {self.places} decimal places", value))
        return scaled

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else self.exact(value)

    def exact(self, stored: int) -> Decimal:
        """The number that is stored as so many steps."""
        return Decimal(stored).scaleb(-self.places, _CONTEXT)

    @staticmethod
    def _refusal(what: str, value: Decimal) -> str:
        return expected(what, found=value, where="the ledger", do="round before booking")


class UtcInstant(TypeDecorator[datetime]):
    """An aware instant, stored in UTC, read back in UTC. Naive ones are refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise UnstorableError(expected("an instant with a time zone", found=value, where="the ledger", do="pass an aware datetime"))
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        # SQLite gives it back without its zone, Postgres in the connection's.
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class CanonicalDocument(TypeDecorator[object]):
    """A JSON document as the text of its canonical form (RFC 8785). What that cannot hold is an UnstorableError."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> str:
        try:
            return canonical_json(value).decode()
        except (TypeError, ValueError) as error:
            raise UnstorableError(
                expected("a JSON document", found=error, where="the audit log", do="record plain values, finite and below 2**53")
            ) from error

    def process_result_value(self, value: str | None, dialect: Dialect) -> object:
        return None if value is None else json.loads(value)


def encode_json(document: object) -> str:
    """Strict JSON with sorted keys; dates and instants in ISO form, Decimals as text. Anything else is an UnstorableError."""
    try:
        return json.dumps(document, sort_keys=True, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise UnstorableError(expected("a JSON document", found=error, where="the ledger", do="record plain values")) from error


def _plain(value: object) -> str:
    match value:
        case date():  # datetime too
            return value.isoformat()
        case Decimal():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} {value!r}")
