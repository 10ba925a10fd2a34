"""One POST, its wait bounded and its address kept out of what is said: of a webhook the address itself is a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from quant.alerts.alert import one_line
from quant.errors import DeliveryError, expected

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_BYTES = 200
_REFUSED = {400, 413, 422}  # the notice; every other answer may be another one next time


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_seconds: float, setting: str) -> None:
    """POST JSON; DeliveryError for anything but a 2xx answer. Redirects are not followed: they would carry the notice elsewhere."""
    import requests

    host = urlsplit(url).hostname or "no host"
    do = f"look at {setting} and the server"
    try:
        with requests.post(
            url,
            data=body,
            headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "afterclose", **headers},
            timeout=timeout_seconds,
            allow_redirects=False,
            stream=True,
        ) as response:
            status = response.status_code
            said = b"" if 200 <= status < 300 else next(response.iter_content(ANSWER_BYTES), b"")
    except (requests.RequestException, ValueError) as error:  # ValueError: an address that is none
        raise DeliveryError(expected("an answer", found=type(error).__name__, where=f"the webhook at {host}", do=do)) from None
    if not 200 <= status < 300:
        found = one_line(f"{status} {said.decode(errors='replace')}", ANSWER_BYTES)
        raise DeliveryError(expected("2xx", found=found, where=f"the webhook at {host}", do=do), refused=status in _REFUSED)
