"""A log file: one line a change, appended whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant.alerts.alert import described, one_line
from quant.errors import DeliveryError, expected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quant.alerts.alert import Notice


@dataclass(frozen=True, slots=True)
class LogNotifier:
    """Appends to ``path``, whose folder is made."""

    path: Path

    def notify(self, notice: Notice, ui: str) -> Sequence[str]:
        at = f"{notice.at:%Y-%m-%dT%H:%M:%SZ}"
        lines = [f"{at} {notice.id} {one_line('; '.join(described(change, ui)), 2_000)}\n" for change in notice.changes]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as log:
                log.write("".join(lines).encode())  # one write: processes that append at once do not mix their lines
                os.fsync(log.fileno())
        except OSError as error:
            message = expected("a log file that can be appended to", found=error.strerror, where=str(self.path), do="look at its disk")
            raise DeliveryError(message) from error
        return ()
