"""Canonical JSON (RFC 8785): one text for one document, whoever writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import cast

import rfc8785

_Json = bool | int | float | str | None | list["_Json"] | dict[str, "_Json"]


def canonical_json(document: object) -> bytes:
    """UTF-8 of ``document``: keys by UTF-16 code units, numbers as ECMAScript writes them, no blanks. Dates and instants become ISO text,
    Decimals their digits. ValueError or TypeError for what JSON cannot hold exactly: NaN, an integer beyond 2**53, an object of our own.
    """
    return rfc8785.dumps(plain(document))


def digest(document: object) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def plain(value: object) -> _Json:
    """``value`` in the types of JSON."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return str(value)
        case date():  # datetime too
            return value.isoformat()
        case Decimal():
            return f"{value:f}"
        case Mapping():
            return {str(key): plain(item) for key, item in cast("Mapping[object, object]", value).items()}
        case Sequence():
            return [plain(item) for item in cast("Sequence[object]", value)]
        case _:
            raise TypeError(f"{type(value).__name__} {value!r}")
