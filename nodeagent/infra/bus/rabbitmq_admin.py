"""Questions to the broker, one after the other, from any thread: declare, bind, count."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pika.exceptions import AMQPError, ChannelClosed, ConnectionClosedByBroker

from nodeagent.contract.errors import Unavailable
from nodeagent.infra.bus.rabbitmq_link import Link

#: Seconds that a broker has for an answer.  Declaring a quorum queue on a busy cluster takes seconds.
ANSWER_S = 20.0

#: Sends one AMQP method on a channel and has its answer given to the callback.
Step = Callable[[Any, Callable[[Any], None]], None]


class Rejected(Exception):
    """The broker closed the channel over a question.

    Attributes:
        code: AMQP reply code (404 not found, 406 precondition failed, 403 access refused, ...).
        text: what the broker said.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class Admin:
    """A channel for questions.  Errors close it, so it is separate from those that carry messages."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._turn = threading.Lock()
        self._channel: Any = None
        self._answer: Future[Any] = Future()

    def ask(self, step: Step) -> Any:
        """The broker's answer to one step.

        Raises:
            Rejected: it refuses.
            Unavailable: it is away, or gave no answer in ANSWER_S.
        """
        with self._turn:
            answer: Future[Any] = Future()
            connection = self._link.submit(
                lambda current: self._begin(current, step, answer),
                lambda why: _fail(answer, Unavailable(f"rabbitmq: {why}")),
            )
            try:
                return answer.result(ANSWER_S)
            except TimeoutError:
                self._link.reopen("no answer", connection)
                raise Unavailable(f"rabbitmq: no answer in {ANSWER_S} s") from None

    # --- in the connection's thread

    def lost(self, why: str) -> None:
        """The connection is gone."""
        self._channel = None
        _fail(self._answer, Unavailable(f"rabbitmq: {why}"))

    def _begin(self, connection: Any, step: Step, answer: Future[Any]) -> None:
        self._answer = answer
        if self._channel is not None and self._channel.is_open:
            self._send(self._channel, step, answer)
            return

        def opened(channel: Any) -> None:
            channel.add_on_close_callback(self._closed)
            self._channel = channel
            self._send(channel, step, answer)

        try:
            connection.channel(on_open_callback=opened)
        except AMQPError as exc:
            _fail(answer, Unavailable(f"rabbitmq: {type(exc).__name__}"))

    def _send(self, channel: Any, step: Step, answer: Future[Any]) -> None:
        def answered(frame: Any) -> None:
            if not answer.done():
                answer.set_result(frame.method)

        try:
            step(channel, answered)
        except AMQPError as exc:
            _fail(answer, Unavailable(f"rabbitmq: {type(exc).__name__}"))

    def _closed(self, channel: Any, reason: BaseException) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        # Some refusals (540, not implemented) end the whole connection, but are answers all the same.
        if isinstance(reason, ChannelClosed | ConnectionClosedByBroker):
            _fail(self._answer, Rejected(reason.reply_code, reason.reply_text))
        else:
            _fail(self._answer, Unavailable(f"rabbitmq: {type(reason).__name__}"))


def _fail(answer: Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
