"""A webhook of your own: JSON, signed with HMAC-SHA256 over the instant and the body, so that neither can be forged or replayed later."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from adapters.notify.http import post
from quant.alerts.alert import AlertState, subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quant.alerts.alert import AlertChange, Notice
    from quant.ports import Clock

SIGNATURE = "Afterclose-Signature"


def signature(secret: str, at: int, body: bytes) -> str:
    """Value of the header: ``t=<Unix seconds>,v1=<hex of HMAC-SHA256 over "t.body">``."""
    return f"t={at},v1={hmac.new(secret.encode(), f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookNotifier:
    """One POST a notice; its ``id`` tells a second delivery."""

    url: str = field(repr=False)
    secret: str = field(repr=False)
    timeout_seconds: float
    clock: Clock

    def notify(self, notice: Notice, ui: str) -> Sequence[str]:
        document = {
            "id": notice.id,
            "at": notice.at.isoformat(),
            "subject": subject(notice),
            "alerts": [_alert(change, ui) for change in notice.changes],
        }
        body = json.dumps(document, sort_keys=True, default=_iso).encode()
        headers = {SIGNATURE: signature(self.secret, int(self.clock.now().timestamp()), body), "Afterclose-Notice": notice.id}
        post(self.url, body, headers, timeout_seconds=self.timeout_seconds, setting="[alerts.webhook]")
        return ()


def _alert(change: AlertChange, ui: str) -> dict[str, object]:
    alert = asdict(change.alert)
    path = str(alert.pop("path"))
    return {
        **alert,
        "state": AlertState(change.state).value,
        "link": f"{ui.rstrip('/')}{path}" if path else None,
    }


def _iso(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(type(value).__name__)
