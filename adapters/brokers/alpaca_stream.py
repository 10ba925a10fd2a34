"""Alpaca's trade_updates stream into the inbox. The stream cannot be asked for what was missed: polling tells it, to the same inbox.

Whatever the client's handler raises loses an event while the connection stays up, so the handler writes one row and raises nothing.
Importing the client takes seconds: it is imported when listening begins.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from adapters.brokers.alpaca import execution_event, state_event
from quant.errors import AftercloseError, BrokerError, expected
from quant.trading.inbox import BrokerEvent, Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from adapters.brokers.alpaca import AlpacaAccess
    from adapters.sources.alpaca import AlpacaKeys
    from quant.ports import Inbox

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.2
_PINGS = {"ping_interval": 10, "ping_timeout": 30, "max_queue": 1024, "open_timeout": 10, "close_timeout": 1}
_EXECUTIONS = frozenset({"fill", "partial_fill"})


class AlpacaStream:
    """Listens for one account."""

    def __init__(self, access: AlpacaAccess, keys: AlpacaKeys, inbox: Inbox, account: str) -> None:
        self._access, self._keys, self._inbox, self._account = access, keys, inbox, account
        self.received = 0
        self.lost = 0

    def listen(self, until: Callable[[], bool], *, give_up_seconds: float = 300.0) -> None:
        """Write what arrives until ``until`` says so. A connection that ends is made again, with growing pauses; BrokerError once there was
        none for ``give_up_seconds``.
        """
        asyncio.run(self._listen(until, give_up_seconds))

    async def _listen(self, until: Callable[[], bool], give_up_seconds: float) -> None:
        from alpaca.trading.stream import TradingStream

        parts = urlsplit(self._access.url)
        url = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}/stream"
        stream: Any = TradingStream(
            self._keys.key_id, self._keys.secret, paper=self._access.paper, raw_data=True, url_override=url, websocket_params=_PINGS
        )
        stream.subscribe_trade_updates(self._take)
        loop = asyncio.get_running_loop()
        listening = asyncio.create_task(stream._run_forever())  # noqa: SLF001 (run() has a loop of its own that nobody can watch)
        last_seen = loop.time()
        try:
            while not until():
                await asyncio.sleep(_LOOK_SECONDS)
                last_seen = loop.time() if stream._running else last_seen  # noqa: SLF001
                if listening.done() or loop.time() - last_seen > give_up_seconds:
                    do = "check the keys and [broker] url; polling goes on without the stream"
                    found = f"none for {give_up_seconds:g} s"
                    raise BrokerError(expected("a connection", found=found, where=url, do=do))
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await stream.close()

    async def _take(self, message: Mapping[str, Any]) -> None:
        try:
            events = update_events(self._account, message["data"])
            await asyncio.to_thread(self._inbox.receive, events)
            self.received += 1
        except (AftercloseError, KeyError, TypeError, ValueError) as error:  # raising would lose it without a word
            self.lost += 1
            _LOG.error("a trade update was not stored, polling has to tell it: %s: %s", type(error).__name__, error)


def update_events(account: str, data: Mapping[str, Any]) -> list[BrokerEvent]:
    """What one update says: the state of its order, and an execution if it is one. BrokerError if it cannot be read."""
    order = cast("Mapping[str, Any]", data["order"])
    events = [state_event(account, order, Channel.STREAM)]
    if data["event"] in _EXECUTIONS:
        raw = {
            "order_id": order["id"],
            "symbol": order["symbol"],
            "cum_qty": order["filled_qty"],
            "qty": data["qty"],
            "price": data["price"],
            "transaction_time": data["timestamp"],
        }
        events.append(execution_event(account, raw, str(order["client_order_id"]), Channel.STREAM))
    elif data["event"] in {"trade_bust", "trade_correct"}:
        _LOG.warning("%s of order %s: a trade was taken back or changed; reconcile before trading", data["event"], order["client_order_id"])
    return events
