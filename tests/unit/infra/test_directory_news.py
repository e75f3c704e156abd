"""The news of the directory's changes: none is missed without saying so."""

from types import SimpleNamespace
from typing import Any

from infra.credential_book import BACKLOG, directory_news


class Broker:
    """Hands its one subscriber what a test publishes."""

    async def subscribe(self, subject: str, on_message: Any, *, on_gap: Any) -> object:
        self.publish, self.break_off = on_message, on_gap
        return object()

    async def unsubscribe(self, subscription: object) -> None:
        return


async def test_more_than_can_be_held_is_told_as_missed() -> None:
    broker: Any = Broker()
    names: Any = SimpleNamespace(directory_changed="changed")
    async with directory_news(broker, names) as news:
        for number in range(BACKLOG + 1):
            broker.publish(SimpleNamespace(data=f"key.{number}".encode()))
        assert [await anext(news), await anext(news)] == ["key.0", ""]
        assert await anext(news) == "key.1"


async def test_a_broken_connection_is_told_as_missed() -> None:
    broker: Any = Broker()
    names: Any = SimpleNamespace(directory_changed="changed")
    async with directory_news(broker, names) as news:
        broker.break_off()
        assert await anext(news) == ""
