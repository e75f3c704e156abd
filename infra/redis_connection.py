"""The way to Redis: a client that answers soon or not at all, and a circuit that leaves a silent server alone.

    closed ──a failure──▶ resting: every call fails at once ──`rest_s` later──▶ one call tries ──answer──▶ closed
                            ▲                                                       └──failure──▶ resting

What fails becomes `Unavailable` with code `store_unavailable`. Commands keep to Redis 7.0. The scripts build their key
names from the prefix, so a Redis Cluster needs a prefix with a hash tag, such as `{postroom}:`.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, TypeVar

import anyio
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from contracts.errors import Unavailable

T = TypeVar("T")
Argument = str | bytes | int

DEFAULT_PREFIX: Final = "postroom:"
LIMIT_S: Final = 0.5
"""How long a request waits for Redis: a local round trip takes 0.1 ms, so this is a server that does not answer."""
REST_S: Final = 1.0
SOCKET_PATIENCE: Final = 2
"""A second bound behind ours, in multiples of it, for whoever uses the client without the circuit."""
REFUSALS: Final = (OutOfMemoryError, ReadOnlyError, MasterDownError)
REFUSAL_WORDS: Final = ("OOM", "MISCONF", "BUSY", "NOREPLICAS", "READONLY")
"""Answers of a server that is there and cannot do it now, where the client has no class for them."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the SHA-1 the server keeps it under."""

    text: str
    sha: str


def load_script(*names: str) -> Script:
    """Join the files `infra/lua/<name>.lua` in the order given: libraries first, the script itself last."""
    folder = files("infra") / "lua"
    text = "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def redis_client(url: str, *, max_connections: int = 32, limit_s: float = LIMIT_S) -> Redis:
    """A client whose pool waits instead of raising, whose calls are not retried, and whose answers are bytes."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=limit_s,
        socket_timeout=SOCKET_PATIENCE * limit_s,
        socket_connect_timeout=limit_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
        protocol=2,
        # Names the library to the server with two more round trips per connection otherwise.
        driver_info=None,
    )
    return Redis.from_pool(pool)


class RedisConnection:
    """Redis as our stores ask it: bounded, behind one circuit, under one key prefix. `close` it at the end."""

    def __init__(
        self, client: Redis, *, prefix: str = DEFAULT_PREFIX, limit_s: float = LIMIT_S, rest_s: float = REST_S
    ) -> None:
        self.prefix = prefix
        self.failures = 0
        self._client = client
        self._limit_s = limit_s
        self._rest_s = rest_s
        self._resting_until: float | None = None

    def key(self, name: str) -> str:
        return f"{self.prefix}{name}"

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, question: Callable[[Redis], Awaitable[T]], *, limit_s: float | None = None) -> T:
        """Put one question to Redis and return its answer within `limit_s` seconds.

        Raises `Unavailable` when there is none, or when the server cannot do it now (out of memory, read-only). After
        a timeout the command may yet have been carried out.
        """
        self._admit()
        limit_s = limit_s or self._limit_s
        asked_at = anyio.current_time()
        try:
            with anyio.fail_after(limit_s):
                answer = await question(self._client)
        except TimeoutError as error:
            self._note_timeout(anyio.current_time() - asked_at, limit_s)
            raise self._away("no answer in time") from error
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            self._rest()
            raise self._away(str(error)) from error
        except ResponseError as error:
            self._resting_until = None
            if not _is_refusal(error):
                raise
            raise self._away(str(error)) from error
        self._resting_until = None
        return answer

    async def command(self, *args: Argument, limit_s: float | None = None) -> Any:
        """Send one command as it would be typed."""
        return await self.ask(lambda client: _execute(client, args), limit_s=limit_s)

    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument], *, limit_s: float | None = None
    ) -> Any:
        """Run a script by its SHA-1, sending its text only to a server that does not know it."""
        return await self.ask(lambda client: _evaluate(client, script, keys, args), limit_s=limit_s)

    def _admit(self) -> None:
        if self._resting_until is None:
            return
        now = anyio.current_time()
        if now < self._resting_until:
            raise self._away("resting after a failure")
        # This caller tries; the others go on failing at once until it has its answer.
        self._resting_until = now + self._rest_s

    def _note_timeout(self, waited_s: float, limit_s: float) -> None:
        # A timeout that is itself noticed late says that our own loop stood still: no reason to leave Redis alone.
        if waited_s < 2 * limit_s:
            self._rest()

    def _rest(self) -> None:
        self.failures += 1
        self._resting_until = anyio.current_time() + self._rest_s

    def _away(self, why: str) -> Unavailable:
        return Unavailable("store_unavailable", f"Redis cannot be asked: {why}", retry_after_s=self._rest_s)


async def _execute(client: Redis, args: Sequence[Argument]) -> Any:
    return await client.execute_command(*args)  # type: ignore[no-untyped-call]


async def _evaluate(client: Redis, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
    try:
        return await _execute(client, ["EVALSHA", script.sha, len(keys), *keys, *args])
    except NoScriptError:
        return await _execute(client, ["EVAL", script.text, len(keys), *keys, *args])


def _is_refusal(error: ResponseError) -> bool:
    return isinstance(error, REFUSALS) or str(error).startswith(REFUSAL_WORDS)
