"""E-mail over SMTP (smtplib: a library for mail alone has nothing to add to it)."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from quant.alerts.alert import one_line, subject, text
from quant.errors import DeliveryError, expected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quant.alerts.alert import Notice

_TOO_LARGE = {552, 554}


class MailSecurity(StrEnum):
    """How the connection is encrypted; certificates are checked."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailNotifier:
    """One mail a notice, its Message-ID the notice's id: a mailbox that knows it shows a second delivery once."""

    host: str
    port: int
    security: MailSecurity
    username: str | None
    password: str | None = field(repr=False)
    sender: str
    recipients: tuple[str, ...]
    timeout_seconds: float

    def notify(self, notice: Notice, ui: str) -> Sequence[str]:
        try:
            with self._connected() as server:
                if self.security is MailSecurity.STARTTLS:
                    server.starttls(context=ssl.create_default_context())
                if self.username is not None:
                    server.login(self.username, self.password or "")
                refused = server.send_message(self._message(notice, ui))
        except smtplib.SMTPDataError as error:
            raise DeliveryError(self._failed(_answer(error)), refused=error.smtp_code in _TOO_LARGE) from None
        except smtplib.SMTPRecipientsRefused as error:
            raise DeliveryError(self._failed(f"refused recipients {', '.join(sorted(error.recipients))}")) from None
        except smtplib.SMTPResponseException as error:
            raise DeliveryError(self._failed(_answer(error))) from None
        except (OSError, smtplib.SMTPException) as error:  # the class alone may be all that a time-out says
            raise DeliveryError(self._failed(one_line(f"{type(error).__name__} {error}", 200))) from None
        return sorted(refused)

    def _connected(self) -> smtplib.SMTP:
        if self.security is MailSecurity.TLS:
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout_seconds, context=ssl.create_default_context())
        return smtplib.SMTP(self.host, self.port, timeout=self.timeout_seconds)

    def _message(self, notice: Notice, ui: str) -> EmailMessage:
        message = EmailMessage(policy=SMTP.clone(max_line_length=200))  # a subject in one piece
        message["Subject"] = f"[afterclose] {subject(notice)}"
        message["From"] = self.sender
        message["To"] = ", ".join(self.recipients)
        message["Date"] = format_datetime(notice.at)
        message["Message-ID"] = f"<{notice.id}@afterclose>"
        message["Auto-Submitted"] = "auto-generated"  # no out-of-office answers
        message.set_content(text(notice, ui))
        return message

    def _failed(self, found: str) -> str:
        where = f"the mail server {self.host}:{self.port}"
        return expected("a mail server that takes the notice", found=found, where=where, do="look at [alerts.email] and the server")


def _answer(error: smtplib.SMTPResponseException) -> str:
    said = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
    return one_line(f"{error.smtp_code} {said}", 200)
