"""GETs from Alpaca through its own client (alpaca-py), made bounded and honest. Importing this takes most of a second: import it lazily.

By itself the client (0.44) repeats requests at a fixed pace whatever the server says of its limits, waits for ever on a server that is
silent, takes proxies from the environment, and returns None for an empty reply or a redirect as if that were an answer.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import stamina
from alpaca.common.exceptions import APIError
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidHeader, RequestException

from quant.errors import FeedFaultError, InputError, SourceUnavailableError, expected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from alpaca.common.rest import RESTClient
    from requests import PreparedRequest, Response
    from stamina.instrumentation import RetryDetails

    from quant.ports import Clock

_LOG = logging.getLogger(__name__)
_ATTEMPTS = 6
_ALL_ATTEMPTS_SECONDS = 300.0
_LONGEST_PAUSE = timedelta(seconds=65)  # the limit is one of a minute
_MOST_PAGES = 50_000
_SHOWN = 200
_KEYS_REMEDY = "check APCA_API_KEY_ID and APCA_API_SECRET_KEY, and whether the account's subscription allows this feed that soon"


def _tell(details: RetryDetails) -> None:
    _LOG.warning("%s: attempt %d in %.1f s", details.caused_by, details.retry_num + 1, details.wait_for)


# By itself stamina tells it to structlog where that is installed (Dagster brings it), which prints to the standard output.
stamina.instrumentation.set_on_retry_hooks([_tell])


class Transport(HTTPAdapter):
    """Sends with time limits and without retries, and remembers the status and the headers of the last reply."""

    def __init__(self, timeout_seconds: tuple[float, float]) -> None:
        super().__init__(max_retries=0)
        self._timeout_seconds = timeout_seconds
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        self.status, self.headers = None, {}
        response = super().send(request, *args, **(options | {"timeout": self._timeout_seconds}))
        self.status, self.headers = response.status_code, response.headers
        return response


def hardened(client: RESTClient, timeout_seconds: tuple[float, float]) -> Transport:
    """Take from a client of alpaca-py its retries, its patience without end and the environment's proxies; returns its new transport."""
    client._retry = 0  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (the client has no argument for it)
    session = client._session  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    session.trust_env = False
    transport = Transport(timeout_seconds)
    session.mount("https://", transport)
    session.mount("http://", transport)
    return transport


class AbsentError(InputError):
    """Alpaca says, in its own words and not a proxy's, that it has no such thing (404)."""


class _NoReplyError(Exception):
    """Nothing, or nothing whole, came back; asking again may help."""


@dataclass(slots=True)
class _Limit:
    """Before ``until`` nothing more may be asked: the server counts the requests of an account, whoever makes them."""

    until: datetime | None = None


_limits: dict[tuple[str, str], _Limit] = {}  # by server and key, of this process


class Reader:
    """GETs through one client of alpaca-py. Repeats what may come right (429, 5xx, cut, silent, empty or half replies), a bounded number
    of times with growing pauses; keeps to the rate limit that the server states, before it is hit and after.

    Raises InputError for what the server refuses (400, 401, 403, 404, 422), SourceUnavailableError when the attempts are used up.
    """

    def __init__(
        self,
        client: RESTClient,
        clock: Clock,
        *,
        timeout_seconds: tuple[float, float] = (10.0, 60.0),
        all_attempts_seconds: float = _ALL_ATTEMPTS_SECONDS,
        remedy: str = "correct [source] universe and [source.alpaca] in the profile",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``timeout_seconds``: to connect, and between two pieces of a reply. ``remedy``: what to do if Alpaca refuses what is asked."""
        self._client, self._clock, self._sleep = client, clock, sleep
        self.transport = hardened(client, timeout_seconds)
        self._all_attempts_seconds, self._remedy = all_attempts_seconds, remedy
        account = (urlsplit(str(client._base_url)).netloc, str(client._api_key))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self._limit = _limits.setdefault(account, _Limit())

    def listed(self, path: str, params: Mapping[str, object]) -> list[dict[str, Any]]:
        """The JSON list at a path."""
        return cast("list[dict[str, Any]]", self._get(path, params, lambda body: isinstance(body, list), "a list"))

    def one(self, path: str, params: Mapping[str, object], holds: str) -> dict[str, Any]:
        """The JSON object at a path, with field ``holds``; AbsentError if Alpaca says that there is none."""
        whole = self._get(path, params, lambda body: isinstance(body, dict) and holds in body, f"a field {holds}")
        return cast("dict[str, Any]", whole)

    def pages(self, path: str, params: Mapping[str, object], holds: str) -> Iterator[dict[str, Any]]:
        """Field ``holds`` of every page at a path, up to the last one."""
        token: object = None
        seen: set[object] = set()
        while len(seen) < _MOST_PAGES:
            asked = params if token is None else {**params, "page_token": token}
            page = cast("dict[str, Any]", self._get(path, asked, lambda body: isinstance(body, dict) and holds in body, f"a field {holds}"))
            yield page[holds] or {}
            token = page.get("next_page_token")
            if not token:
                return
            if token in seen:
                break
            seen.add(token)
        do = "report it to Alpaca"
        raise FeedFaultError(expected("pages that come to an end", found=f"{len(seen)} pages and one of them again", where=path, do=do))

    def _get(self, path: str, params: Mapping[str, object], is_whole: Callable[[object], bool], what: str) -> object:
        try:
            for attempt in stamina.retry_context(
                on=_NoReplyError, attempts=_ATTEMPTS, timeout=self._all_attempts_seconds, wait_initial=1.0, wait_max=30.0
            ):
                with attempt:
                    self._pause()
                    return self._once(path, dict(params), is_whole)
        except _NoReplyError as error:
            do = "run this again later; nothing of it was stored"
            raise SourceUnavailableError(expected(f"a reply with {what}", found=str(error), where=self._where(path), do=do)) from None
        raise AssertionError("stamina returns or raises")

    def _once(self, path: str, params: dict[str, object], is_whole: Callable[[object], bool]) -> object:
        client: Any = self._client  # its types are partly unknown
        try:
            body: object = client.get(path, params)
        except APIError as error:
            status, said = self.transport.status, _message(str(error))
            if status in (400, 401, 403, 404, 422):
                do = _KEYS_REMEDY if status in (401, 403) else self._remedy
                refused = expected("a request that Alpaca grants", found=f"{status} {said}", where=self._where(path), do=do)
                raise (AbsentError if status == 404 and reply_field(error, "message") else InputError)(refused) from None
            raise _NoReplyError(f"{status} {said}") from None
        except InvalidHeader:
            raise  # a key that cannot be a header: asking again changes nothing
        except RequestException as error:
            cause = getattr(error.args[0], "reason", error) if error.args else error  # without the address, which is long
            raise _NoReplyError(f"{type(error).__name__}: {str(cause)[:_SHOWN]}") from None
        finally:
            self._heed()
        if self.transport.status != 200 or not is_whole(body):
            found = "nothing" if body is None else json.dumps(body)[:_SHOWN]
            raise _NoReplyError(f"{found} with status {self.transport.status}")
        return body

    def _pause(self) -> None:
        """Wait until the server's limit allows another request."""
        if self._limit.until is not None:
            wait = min(self._limit.until - self._clock.now(), _LONGEST_PAUSE).total_seconds()
            self._limit.until = None
            if wait > 0:
                _LOG.info("waits %.0f s for the rate limit", wait)
                self._sleep(wait)

    def _heed(self) -> None:
        """Note from the last reply's headers when the next request may be sent."""
        headers, limited = self.transport.headers, self.transport.status == 429
        after, reset = headers.get("Retry-After", ""), headers.get("X-RateLimit-Reset", "")
        if limited and after.isdigit():
            self._limit.until = self._clock.now() + min(timedelta(seconds=min(int(after), 3600)), _LONGEST_PAUSE)
        elif reset.isdigit() and len(reset) < 12 and (limited or headers.get("X-RateLimit-Remaining") == "0"):
            self._limit.until = datetime.fromtimestamp(int(reset), UTC)

    def _where(self, path: str) -> str:
        base = str(self._client._base_url)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return f"{urlsplit(base).netloc or base}{path}"


def reply_field(error: APIError, name: str) -> object:
    """A field of the JSON body of an error; None if the body is none or has none (the error's own properties fail on HTML)."""
    try:
        body: object = json.loads(str(error))
    except ValueError:
        return None
    return cast("dict[str, object]", body).get(name) if isinstance(body, dict) else None


def _message(body: str) -> str:
    """What the server says: the message of a JSON body, else its first characters (the error's own ``message`` fails on HTML)."""
    try:
        return str(json.loads(body)["message"])[:_SHOWN]
    except (ValueError, KeyError, TypeError):
        return " ".join(body.split())[:_SHOWN] or "without a word"
