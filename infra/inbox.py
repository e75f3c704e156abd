"""Where answers to our own requests arrive: one subscription, and one future per answer awaited."""

import asyncio
import secrets

from nats.aio.msg import Msg


class Inbox:
    """Reply subjects of one process, and who waits for an answer on each. It outlives any one connection."""

    def __init__(self) -> None:
        self._prefix = f"_INBOX.{secrets.token_hex(11)}"
        self._count = 0
        self._waiting: dict[str, asyncio.Future[Msg]] = {}

    @property
    def filter(self) -> str:
        """What to subscribe to."""
        return f"{self._prefix}.*"

    def own(self) -> str:
        """A fresh subject below our prefix that `filter` does not cover: for a subscription of its own."""
        self._count += 1
        return f"{self._prefix}.{self._count}.own"

    def expect(self) -> "tuple[str, asyncio.Future[Msg]]":
        """A fresh reply subject and the future its answer resolves. Whoever asked calls `forget` in the end."""
        self._count += 1
        subject = f"{self._prefix}.{self._count}"
        answer = asyncio.get_running_loop().create_future()
        self._waiting[subject] = answer
        return subject, answer

    def forget(self, subject: str) -> None:
        self._waiting.pop(subject, None)

    def deliver(self, message: Msg) -> None:
        answer = self._waiting.get(message.subject)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def lose(self, error: Exception) -> None:
        """Tell everybody who waits that no answer will come."""
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(error)
                # Not everybody still listens; an unread exception must not be reported as a forgotten one.
                answer.exception()
