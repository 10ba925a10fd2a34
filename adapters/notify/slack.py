"""Slack, through an incoming webhook."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adapters.notify.http import post
from quant.alerts.alert import subject, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quant.alerts.alert import Notice

_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})  # all that Slack asks for, and what keeps <!channel> a text
MOST_CHARACTERS = 38_000  # Slack cuts at 40,000


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackNotifier:
    """One message a notice. ``url`` is a secret: whoever has it can post."""

    url: str = field(repr=False)
    timeout_seconds: float

    def notify(self, notice: Notice, ui: str) -> Sequence[str]:
        said = text(notice, ui).translate(_ESCAPED)[:MOST_CHARACTERS]
        body = json.dumps({"text": f"*{subject(notice).translate(_ESCAPED)}*\n{said}"}).encode()
        post(self.url, body, {}, timeout_seconds=self.timeout_seconds, setting="AFTERCLOSE__ALERTS__SLACK__URL")
        return ()
