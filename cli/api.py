"""The gateway's HTTP interface as the commands use it: JSON in, JSON out, and every refusal as a `Failure`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import quote

import typer

from cli.failures import Failure, Refused, Unreachable
from cli.places import read_run

JsonObject: TypeAlias = dict[str, Any]

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="POSTROOM_URL",
        help="The gateway's base URL. Default: the running `postroom up`.",
        rich_help_panel="Server",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="POSTROOM_API_KEY",
        help="The key to call with; better set by POSTROOM_API_KEY than typed. Default: the running `postroom up`.",
        rich_help_panel="Server",
        show_default=False,
    ),
]

CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 15.0
"""On top of what the gateway was asked to wait."""
SILENCE_S: Final = 40.0
"""A stream says something every 15 s, if only that it lives: twice unheard, and it does not."""


class Api:
    """One connection to a gateway. `Refused` and `Unreachable` are raised by every call."""

    def __init__(self, url: str, key: str | None) -> None:
        import httpx

        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self.url = url.rstrip("/")
        self.key = key
        self.has_key = key is not None
        try:
            self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise Unreachable(f"unusable URL or key: {type(error).__name__}") from None

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> JsonObject:
        """GET with a query; `wait_s` in it is also how long the answer may take."""
        return self.call("GET", path, query=query, wait_s=float(query.get("wait_s") or 0))

    def post(self, path: str, body: JsonObject | None = None, *, wait_s: float = 0, **more: Any) -> JsonObject:
        return self.call("POST", path, body=body, wait_s=wait_s, **more)

    @contextmanager
    def stream(self, path: str, *, query: JsonObject, last_event_id: str = "") -> Iterator[Iterator[bytes]]:
        """A stream of server-sent events, as its bytes come. One that is silent for too long is `Unreachable`."""
        import httpx

        present = {name: value for name, value in query.items() if value is not None}
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_TIMEOUT_S)
        with self._failures():
            with self._client.stream("GET", path, params=present, headers=headers, timeout=timeout) as response:
                if response.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
                    read_answer(response.status_code, response.read())
                    raise Failure("the answer is no stream; is this the address of a postroom gateway?")
                yield response.iter_bytes()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: JsonObject | None = None,
        query: JsonObject | None = None,
        headers: dict[str, str] | None = None,
        wait_s: float = 0,
    ) -> JsonObject:
        """Make one call. `wait_s` is how long the answer may be held; `None` values of `query` are left out."""
        import httpx

        present = {name: value for name, value in (query or {}).items() if value is not None}
        timeout = httpx.Timeout(wait_s + ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        with self._failures():
            response = self._client.request(
                method, path, json=body, params=present, headers=headers or {}, timeout=timeout
            )
        return read_answer(response.status_code, response.content)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """The client library's errors as ours."""
        import httpx

        try:
            yield
        except httpx.ConnectError:
            raise Unreachable(f"no server answers at {self.url}; start one with `postroom up`") from None
        except (httpx.TransportError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Unreachable(f"no answer from {self.url}: {type(error).__name__}") from None


@contextmanager
def connect(url: str | None, key: str | None) -> Iterator[Api]:
    """The server that was named, else the running `up`. A URL without a key takes none from another server's note."""
    run = read_run()
    if url is None and run is None:
        raise Unreachable("no server is known; start one with `postroom up`, or set POSTROOM_URL and POSTROOM_API_KEY")
    if run is not None and (url is None or url.rstrip("/") == run.url):
        url, key = run.url, key or run.api_key
    assert url is not None
    api = Api(url, key)
    try:
        yield api
    finally:
        api.close()


def read_answer(status: int, content: bytes) -> JsonObject:
    """The JSON object of an answer; raises `Refused` for an error, `Failure` for something that is no postroom."""
    import json

    if status == 204:
        return {}
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Failure(f"http_{status}: the answer is not JSON; is this the address of a postroom gateway?")
    if status >= 400:
        raise _refusal(status, value)
    return value


def segment(text: str) -> str:
    """One part of a path, whatever was typed."""
    return quote(text, safe="@")


def _refusal(status: int, value: JsonObject) -> Refused:
    error = value.get("error")
    facts = error if isinstance(error, dict) else {}
    message = facts.get("message") or value.get("detail") or value.get("title") or "The gateway did not say why."
    return Refused(status, str(facts.get("code", f"http_{status}")), str(message), facts)
