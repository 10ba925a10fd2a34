"""The one tree of errors, with the response beside each branch.

Every message says what was expected, what was found, where, and what to do.
"""

from __future__ import annotations


class AftercloseError(Exception):
    """Root of all errors this product raises on purpose. The command line prints it and exits 1."""


class InputError(AftercloseError):
    """Fix: somebody gave wrong input (a file, a setting, a date). The command line exits 2; nothing was written."""


class ContractError(InputError):
    """Fix: a frame does not have the columns, types or keys that its table declares."""


class SourceUnavailableError(AftercloseError):
    """Run again later: a source did not answer, or not completely, however often it was asked. Nothing of it was stored."""


class FeedFaultError(AftercloseError):
    """Halt the session: too much of the feed is faulty to trust the rest."""


class FactorError(InputError):
    """Fix: a factor expression that cannot be parsed, compiled or allowed; ``position`` of the fault in it, from 1, if there is one."""

    def __init__(self, message: str, *, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class LookaheadError(FactorError):
    """Fix: a feature reaches into the future."""


class LedgerError(AftercloseError):
    """Halt: the ledger would become wrong; nothing was posted."""


class LedgerConflictError(LedgerError):
    """Halt: a key that is already in the ledger came back with other content."""


class CorruptFileError(AftercloseError):
    """Restore: a stored file is not what was written. Not a row of it was read."""


class BrokerError(AftercloseError):
    """Run again later: a broker did not answer, or not completely. What it holds is unknown, never assumed; nothing was guessed from it."""


class DeliveryError(AftercloseError):
    """Try again later, and tell elsewhere meanwhile: a channel did not take a notice. ``refused``: it never will take this one."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class SequenceError(InputError):
    """Fix: a session was asked for before the one it builds on was done."""


def expected(what: str, *, found: object, where: str, do: str) -> str:
    """The house's message form: ``expected <what> in <where>, found <found>; <do>``."""
    return f"expected {what} in {where}, found {found}; {do}"
