"""nats-py's client as we use it: who we are is proven by a key, TLS is insisted on, and headers are read late."""

import base64
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final

import nats.errors
from nats.aio.client import Client

from infra.nats_jwt import Creds

WITHOUT_STATUS: Final = b"NATS/1.0\r\n"


class NoTls(nats.errors.Error):
    """We were told to speak TLS, and the server, or whoever sits before it, does not."""

    def __str__(self) -> str:
        return "the server does not speak TLS"


class NatsClient(Client):
    """A client that sends nothing to a server without TLS when it has a TLS context.

    `straight` maps a subscription's number to who takes its messages as they are, past nats-py's queue and task.
    """

    def __init__(self) -> None:
        super().__init__()
        self.straight: dict[int, Callable[[str, bytes], None]] = {}

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        take = self.straight.get(sid)
        if take is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            take(subject.decode(), data)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # nats-py encrypts when the server asks for it, whatever the URL says; our credentials would go in the clear.
        if initial_connection and "tls" in self.options and not info.get("tls_required"):
            raise NoTls
        await super()._process_info(info, initial_connection)

    async def _process_headers(self, headers: bytes | None) -> Any:
        """Read headers at once only where the broker's own status stands among them."""
        if headers is not None and headers.startswith(WITHOUT_STATUS):
            return _Headers(headers)
        return await super()._process_headers(headers)


def login(creds: Creds | None, tls: ssl.SSLContext | None) -> dict[str, Any]:
    """The arguments of `connect` that say who we are and how to encrypt."""
    arguments: dict[str, Any] = {}
    if creds is not None:
        arguments["user_jwt_cb"] = creds.jwt.encode
        arguments["signature_cb"] = lambda nonce: base64.b64encode(creds.key.sign(nonce.encode()))
    if tls is not None:
        arguments["tls"] = tls
    return arguments


class _Headers(Mapping[str, str]):
    """The headers of a message, read when somebody looks at them.

    Every record of a stream brings the headers of its append along, and reading those takes longer than all the rest.
    """

    def __init__(self, block: bytes) -> None:
        self._block = block

    @cached_property
    def _read(self) -> dict[str, str]:
        lines = (line.partition(":") for line in self._block.decode("utf-8", "replace").split("\r\n")[1:])
        return {name: value.strip() for name, colon, value in lines if colon}

    def __getitem__(self, name: str) -> str:
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)
