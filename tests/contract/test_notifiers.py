"""The contract of a channel of alerts. A new channel adds one line to CHANNELS; what only one channel does is tested below."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adapters.clock import FixedClock
from adapters.notify import EmailNotifier, LogNotifier, MailSecurity, SlackNotifier, WebhookNotifier
from adapters.notify.webhook import SIGNATURE
from quant.alerts.alert import LISTED, AlertState, trial
from quant.errors import DeliveryError
from quant.ports import Notifier
from tests.alerts.notices import AT, notice
from tests.alerts.servers import MailServer, WebServer, bare_server, certificate, free_port, mail_server, web_server

UI = "http://127.0.0.1:3000"
SECRETS = ("hunter2-hunter2-hunter2", "s3cret-path")
SAID = (
    "2013-02-07",
    "AAPL",
    "r03_high_is_highest",
    "high 44.1, close 44.86",
    "/assets/accepted_bars?view=checks&checkDetail=feed_is_sound",
)


@dataclass
class Channel:
    """A channel at work: what its people got, and how it looks with nobody, a deaf one and an endless one at the other end."""

    notifier: Notifier
    got: Callable[[], list[str]]
    at_port: Callable[[int], Notifier] | None  # None: no server


def mail_to(port: int, **other: object) -> EmailNotifier:
    return replace(
        EmailNotifier(
            host="127.0.0.1",
            port=port,
            security=MailSecurity.NONE,
            username="desk",
            password=SECRETS[0],
            sender="afterclose@example.com",
            recipients=("desk@example.com", "risk@example.com"),
            timeout_seconds=0.3,
        ),
        **other,
    )


def slack_at(port: int) -> SlackNotifier:
    return SlackNotifier(url=f"http://127.0.0.1:{port}/services/T0/B0/s3cret-path", timeout_seconds=0.3)


def webhook_at(port: int) -> WebhookNotifier:
    return WebhookNotifier(url=f"http://127.0.0.1:{port}/s3cret-path", secret=SECRETS[0], timeout_seconds=0.3, clock=FixedClock(AT))


def log(stack: ExitStack, folder: Path) -> Channel:
    path = folder / "made" / "alerts.log"
    return Channel(notifier=LogNotifier(path), got=lambda: path.read_text().splitlines(), at_port=None)


def email(stack: ExitStack, folder: Path) -> Channel:
    server = stack.enter_context(mail_server(SECRETS[0]))
    got = lambda: [f"{m['Subject']}\n{m.get_content()}" for m in server.mails]  # noqa: E731
    return Channel(notifier=mail_to(server.port, timeout_seconds=5), got=got, at_port=mail_to)


def slack(stack: ExitStack, folder: Path) -> Channel:
    server = stack.enter_context(web_server())
    got = lambda: [json.loads(body)["text"] for _, body in server.posts]  # noqa: E731
    return Channel(notifier=SlackNotifier(url=server.url, timeout_seconds=5), got=got, at_port=slack_at)


def webhook(stack: ExitStack, folder: Path) -> Channel:
    server = stack.enter_context(web_server())
    got = lambda: [json.dumps(json.loads(body), ensure_ascii=False) for _, body in server.posts]  # noqa: E731
    notifier = WebhookNotifier(url=server.url, secret=SECRETS[0], timeout_seconds=5, clock=FixedClock(AT))
    return Channel(notifier=notifier, got=got, at_port=webhook_at)


CHANNELS = [log, email, slack, webhook]


@pytest.fixture(params=CHANNELS, ids=lambda make: make.__name__)
def channel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Channel]:
    with ExitStack() as stack:
        yield request.param(stack, tmp_path)


def test_it_implements_the_port_and_shows_no_secret(channel: Channel):
    assert isinstance(channel.notifier, Notifier)
    assert not [secret for secret in SECRETS if secret in repr(channel.notifier)]


def test_session_symbol_rule_observed_expected_and_link_arrive(channel: Channel):
    assert not channel.notifier.notify(notice(), UI)
    (got,) = channel.got()
    plain = got.replace("&amp;", "&").replace("&gt;", ">").replace("&lt;", "<")
    assert [text for text in (*SAID, "high >= max(open, close, low)", "Größe", UI) if text not in plain] == []
    assert "a1b2c3" in plain


def test_a_cleared_alert_says_so(channel: Channel):
    channel.notifier.notify(notice(state=AlertState.CLEARED), UI)
    assert "cleared" in channel.got()[0].lower()


def test_a_notice_of_many_alerts_arrives_and_so_does_a_trial(channel: Channel):
    channel.notifier.notify(notice(alerts=300), UI)
    channel.notifier.notify(trial(AT, source="sample"), UI)
    assert len(channel.got()) == (301 if isinstance(channel.notifier, LogNotifier) else 2)
    assert "sample" in channel.got()[-1]


def test_a_text_of_line_breaks_stays_in_its_place(channel: Channel):
    change = notice().changes[0]
    forged = replace(change, alert=replace(change.alert, symbol="A\r\nBcc: all@example.com", observed="1\n\n2\r\n.\r\nRSET"))
    channel.notifier.notify(replace(notice(), changes=(forged,)), UI)
    assert len(channel.got()) == 1


def test_nobody_at_the_other_end_is_a_delivery_error_without_a_secret(channel: Channel, tmp_path: Path):
    broken = LogNotifier(tmp_path) if channel.at_port is None else channel.at_port(free_port())
    with pytest.raises(DeliveryError) as failure:
        broken.notify(notice(), UI)
    assert not failure.value.refused
    assert re.match(r"expected .*, found .*; look at ", str(failure.value))
    assert not [secret for secret in SECRETS if secret in str(failure.value)]
    assert failure.value.__cause__ is None or isinstance(broken, LogNotifier)  # a traceback would show the address


def test_a_deaf_server_is_waited_for_no_longer_than_the_time_limit(channel: Channel):
    if channel.at_port is None:
        pytest.skip("a file answers")
    with bare_server() as port:
        begun = time.monotonic()
        with pytest.raises(DeliveryError, match=r"[Tt]imed? ?-?[Oo]ut"):
            channel.at_port(port).notify(notice(), UI)
        assert time.monotonic() - begun < 1.5


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


def anonymous(mail: MailServer, **other: object) -> EmailNotifier:
    return mail_to(mail.port, **{"username": None, "password": None, "timeout_seconds": 5.0, **other})


def test_the_signature_is_what_docs_say_and_covers_instant_and_body(web: WebServer):
    WebhookNotifier(url=web.url, secret=SECRETS[0], timeout_seconds=5, clock=FixedClock(AT)).notify(notice(), UI)
    headers, body = web.posts[0]
    parts = dict(part.split("=") for part in headers[SIGNATURE].split(","))
    assert parts["t"] == str(int(AT.timestamp()))
    whole = f"{parts['t']}.".encode() + body
    assert parts["v1"] == hmac.new(SECRETS[0].encode(), whole, hashlib.sha256).hexdigest()
    assert headers["Afterclose-Notice"] == json.loads(body)["id"] == "a1b2c3"
    (sent,) = json.loads(body)["alerts"]
    assert (sent["session"], sent["symbol"], sent["state"]) == ("2013-02-07", "AAPL", "opened")


@pytest.mark.parametrize(
    ("status", "refused"), [(302, False), (400, True), (403, False), (404, False), (413, True), (429, False), (500, False)]
)
def test_any_answer_but_2xx_is_a_failure_and_only_the_notices_own_fault_is_final(web: WebServer, status: int, refused: bool):
    web.status, web.answer, web.headers = status, b"no_service\n" * 10_000, {"Location": web.url}
    with pytest.raises(DeliveryError, match=rf"found {status} no_service") as failure:
        SlackNotifier(url=web.url, timeout_seconds=5).notify(notice(), UI)
    assert failure.value.refused is refused
    assert len(web.posts) == 1  # a redirect is not followed
    assert len(str(failure.value)) < 400


def test_slack_gets_no_command_and_nothing_too_long(web: WebServer):
    SlackNotifier(url=web.url, timeout_seconds=5).notify(notice(alerts=500), UI)
    said = json.loads(web.posts[0][1])["text"]
    assert "<!channel>" not in said
    assert "&lt;!channel&gt;" in said
    assert f"and {500 - LISTED} more" in said
    assert len(said) < 40_000


def test_an_address_that_is_none_is_a_delivery_error():
    with pytest.raises(DeliveryError, match="no host"):
        SlackNotifier(url="hooks", timeout_seconds=1).notify(notice(), UI)


def test_a_mail_has_one_id_however_often_it_is_sent(mail: MailServer):
    for _ in range(2):
        anonymous(mail).notify(notice(), UI)
    assert {m["Message-ID"] for m in mail.mails} == {"<a1b2c3@afterclose>"}
    assert mail.mails[0]["Subject"] == "[afterclose] ERROR session 2013-02-07, symbol AAPL, rule r03_high_is_highest"
    assert mail.recipients[0] == ["desk@example.com", "risk@example.com"]


def test_a_recipient_that_is_refused_is_told_and_the_others_get_the_mail(mail: MailServer):
    mail.unknown = {"risk@example.com"}
    assert anonymous(mail).notify(notice(), UI) == ["risk@example.com"]
    assert mail.recipients == [["desk@example.com"]]
    mail.unknown.add("desk@example.com")
    with pytest.raises(DeliveryError, match=r"refused recipients desk@example.com, risk@example.com"):
        anonymous(mail).notify(notice(), UI)


@pytest.mark.parametrize(("refusal", "refused"), [("552 too large", True), ("451 come back later", False)])
def test_a_mail_that_the_server_does_not_take_is_a_failure(mail: MailServer, refusal: str, refused: bool):
    mail.refusal = refusal
    with pytest.raises(DeliveryError, match=refusal) as failure:
        anonymous(mail).notify(notice(), UI)
    assert failure.value.refused is refused


def test_a_wrong_password_and_a_server_without_encryption_are_failures_without_the_password():
    with mail_server("another-password") as server:
        with pytest.raises(DeliveryError, match="found 535") as failure:
            mail_to(server.port, timeout_seconds=5).notify(notice(), UI)
        assert SECRETS[0] not in str(failure.value)
        with pytest.raises(DeliveryError, match="STARTTLS"):
            mail_to(server.port, timeout_seconds=5, security=MailSecurity.STARTTLS).notify(notice(), UI)
        assert server.mails == []


@pytest.mark.parametrize("security", [MailSecurity.STARTTLS, MailSecurity.TLS])
def test_mail_is_encrypted_and_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: MailSecurity
):
    made = certificate(tmp_path)
    with mail_server(**{security.value: made}) as server:
        with pytest.raises(DeliveryError, match="CERTIFICATE_VERIFY_FAILED"):
            anonymous(server, security=security).notify(notice(), UI)
        assert server.mails == []
        with pytest.raises(DeliveryError):
            anonymous(server, security=MailSecurity.NONE, timeout_seconds=0.5).notify(notice(), UI)
        assert server.mails == []
        monkeypatch.setenv("SSL_CERT_FILE", str(made))
        anonymous(server, security=security).notify(notice(), UI)
        assert len(server.mails) == 1
