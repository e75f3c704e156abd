"""The webhook sender against receivers on loopback: honest ones, broken ones and hostile ones."""

import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream, Listener, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook

from infra.signing import mint_webhook_secret
from infra.webhook_client import AiohttpSender, Lookup, escape, parse_retry_after
from router.ports import PostResult, WebhookSender

SECRET = mint_webhook_secret(bytes(range(32)))
BODY = '{"text":"grüße"}'.encode()
DEADLINE_S = 10.0


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


# --- receivers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[ByteStream], Awaitable[None]]


@dataclass(slots=True)
class Receiver:
    """A server that answers every request with the same script."""

    port: int
    answer: Answer
    requests: list[Request] = field(default_factory=list)
    n_connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in?key=a%2Fb"

    async def serve(self, stream: ByteStream) -> None:
        self.n_connections += 1
        buffered = BufferedByteReceiveStream(stream)
        async with stream:
            try:
                while True:
                    self.requests.append(await read_request(buffered))
                    await self.answer(stream)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError, anyio.BrokenResourceError):
                return


async def read_request(stream: BufferedByteReceiveStream) -> Request:
    head = (await stream.receive_until(b"\r\n\r\n", 65536)).decode()
    line, *fields = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
    return Request(line, headers, await stream.receive_exactly(int(headers["content-length"])))


@asynccontextmanager
async def receiver(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    at = Receiver(local_port(tcp), answer)
    async with tcp, anyio.create_task_group() as tasks:
        if tls is None:
            tasks.start_soon(tcp.serve, at.serve)
        else:
            tasks.start_soon(TLSListener(tcp, tls, standard_compatible=False).serve, at.serve)
        yield at
        tasks.cancel_scope.cancel()


def local_port(listener: Listener[SocketStream]) -> int:
    port: int = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no database here
    return port


def say(raw: bytes | str, *, then_close: bool = False) -> Answer:
    async def answer(stream: ByteStream) -> None:
        await stream.send(raw.encode() if isinstance(raw, str) else raw)
        if then_close:
            await stream.aclose()

    return answer


def status(line: str, *headers: str, body: str = "") -> Answer:
    fields = "".join(f"{header}\r\n" for header in headers)
    return say(f"HTTP/1.1 {line}\r\ncontent-length: {len(body)}\r\n{fields}\r\n{body}")


def forever(first: bytes, again: bytes) -> Answer:
    async def answer(stream: ByteStream) -> None:
        await stream.send(first)
        while True:
            await stream.send(again)

    return answer


async def hang(_: ByteStream) -> None:
    await anyio.sleep_forever()


async def reset(stream: ByteStream) -> None:
    raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - no database here
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


OK = status("200 OK", body="thanks")


# --- senders ---------------------------------------------------------------------------------------------------------


def development(lookup: Lookup | None = None, *, per_host: int = 8) -> AiohttpSender:
    return AiohttpSender(SystemClock(), allow_http=True, allow_loopback=True, lookup=lookup, per_host=per_host)


def production(lookup: Lookup | None = None) -> AiohttpSender:
    return AiohttpSender(SystemClock(), lookup=lookup)


async def post(sender: WebhookSender, url: str, *, timeout_s: float = DEADLINE_S, body: bytes = BODY) -> PostResult:
    return await sender.post(url=url, secret=SECRET, message_id="msg_1", body=body, timeout_s=timeout_s)


async def post_to(answer: Answer, *, timeout_s: float = DEADLINE_S) -> PostResult:
    async with receiver(answer) as at, development() as sender:
        return await post(sender, at.url, timeout_s=timeout_s)


async def eventually(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not condition():
            await anyio.sleep(0.005)


class Names:
    """A resolver whose answers are given, one list per question; the last is repeated."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


# --- what goes out ---------------------------------------------------------------------------------------------------


async def test_a_post_is_signed_and_the_reference_library_verifies_its_raw_bytes() -> None:
    async with receiver(OK) as at, development() as sender:
        result = await post(sender, at.url)
    assert (result.status, result.error, result.excerpt) == (200, None, "thanks")
    [request] = at.requests
    assert request.body == BODY
    assert Webhook(SECRET).verify(request.body, request.headers) == {"text": "grüße"}


async def test_a_post_carries_these_headers_and_no_others() -> None:
    async with receiver(OK) as at, development() as sender:
        await post(sender, at.url)
    [request] = at.requests
    assert request.line == "POST /in?key=a%2Fb HTTP/1.1"
    fixed = {name: value for name, value in request.headers.items() if name and not name.startswith("webhook-")}
    assert fixed == {
        "host": f"127.0.0.1:{at.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "postroom-webhook/1",
        "content-length": str(len(BODY)),
    }
    assert request.headers["webhook-id"] == "msg_1"


async def test_two_secrets_sign_side_by_side() -> None:
    other = mint_webhook_secret(bytes(range(1, 33)))
    async with receiver(OK) as at, development() as sender:
        await sender.post(url=at.url, secret=f"{SECRET} {other}", message_id="msg_1", body=BODY)
    for secret in (SECRET, other):
        Webhook(secret).verify(at.requests[0].body, at.requests[0].headers)


async def test_connections_are_used_again_and_cookies_are_not_kept() -> None:
    async with receiver(status("200 OK", "set-cookie: a=b", body="x" * 30_000)) as at, development() as sender:
        results = [await post(sender, at.url) for _ in range(3)]
    assert [result.status for result in results] == [200, 200, 200]
    assert at.n_connections == 1
    assert not any("cookie" in request.headers for request in at.requests)


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver(OK) as proxy, receiver(OK) as at, development() as sender:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{proxy.port}")
        assert (await post(sender, at.url)).status == 200
    assert proxy.requests == []


# --- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [200, 201, 202, 206, 299, 400, 401, 404, 410, 429, 500, 503, 599, 999])
async def test_an_answer_is_told_by_its_status(code: int) -> None:
    result = await post_to(status(f"{code} Whatever", body="so"))
    assert (result.status, result.error, result.excerpt) == (code, None, "so")


async def test_no_content_is_an_answer() -> None:
    result = await post_to(say("HTTP/1.1 204 No Content\r\n\r\n"))
    assert (result.status, result.error, result.excerpt) == (204, None, "")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(code: int) -> None:
    async with receiver(OK) as inside:
        result = await post_to(status(f"{code} Moved", f"location: {inside.url}"))
    assert (result.status, result.error) == (code, "redirect_not_followed")
    assert inside.n_connections == 0


@pytest.mark.parametrize("code", [410, 429, 503])
async def test_retry_after_is_handed_on_within_one_day(code: int) -> None:
    assert (await post_to(status(f"{code} No", "retry-after: 120"))).retry_after_s == 120
    assert (await post_to(status(f"{code} No", "retry-after: 1000000000"))).retry_after_s == 86_400
    assert (await post_to(status(f"{code} No"))).retry_after_s is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("17", 17),
        (" 17 ", 17),
        ("86401", 86_400),
        ("1000000000", 86_400),
        ("999999999999999", 86_400),
        ("-5", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 02 Jan 2026 00:01:00 GMT", 60),
        ("Fri, 02 Jan 2026 00:01:00 -0000", 60),
        ("Fri, 02 Jan 2026 01:01:00 +0100", 60),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Fri, 02 Jan 2026 00:01:00 +9999", None),
        ("soon", None),
        ("", None),
        ("1" * 5000, None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date_and_clamped(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, datetime(2026, 1, 2, tzinfo=UTC)) == seconds


async def test_an_excerpt_is_capped_and_cannot_speak_to_a_terminal() -> None:
    result = await post_to(status("500 No", body="\x1b[2J\r\nevent=accepted " + "x" * 9000))
    assert result.excerpt.startswith("\\x1b[2J\\r\\nevent=accepted xxx")
    assert len(result.excerpt.encode()) == 4096


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain text", "plain text"),
        ("grüße €".encode(), "grüße €"),
        (b"\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("a\u202eb\u2028c\u200bd".encode(), "a\\u202eb\\u2028c\\u200bd"),
        (b"\xff" * 4096, "\\xff" * 1024),
        (("é" * 2048).encode()[:-1], "é" * 2047 + "\\x"),
    ],
)
def test_what_is_not_printable_is_escaped(raw: bytes, shown: str) -> None:
    assert escape(raw) == shown


# --- receivers that misbehave ----------------------------------------------------------------------------------------


async def test_a_receiver_that_hangs_is_a_timeout() -> None:
    result = await post_to(hang, timeout_s=0.2)
    assert (result.status, result.error) == (None, "timeout")
    assert result.latency_ms >= 150


async def test_a_receiver_that_resets_is_a_bad_response() -> None:
    result = await post_to(reset)
    assert (result.status, result.error) == (None, "bad_response")


async def test_a_port_nobody_listens_on_is_a_failed_connect() -> None:
    async with receiver(OK) as gone:
        pass
    async with development() as sender:
        result = await post(sender, gone.url)
    assert (result.status, result.error) == (None, "connect_failed")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>it works</html>",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 -20 OK\r\n\r\n",
        b"HTTP/9.9\r\n\r\n",
        b"220 smtp.example ESMTP\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
        b"HTTP/1.1 200 " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=lambda raw: raw[:24].decode(errors="backslashreplace"),
)
async def test_what_is_not_http_or_overflows_is_a_bad_response(raw: bytes) -> None:
    result = await post_to(say(raw, then_close=True))
    assert (result.status, result.error) == (None, "bad_response")


async def test_a_body_shorter_than_announced_does_not_take_back_the_status() -> None:
    result = await post_to(say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort", then_close=True))
    assert (result.status, result.error, result.excerpt) == (200, None, "short")


async def test_a_body_longer_than_announced_is_not_read_as_the_next_answer() -> None:
    smuggled = "HTTP/1.1 418 Smuggled\r\ncontent-length: 0\r\n\r\n"
    async with receiver(status("200 OK", body="fine")) as at, development() as sender:
        at.answer = say(f"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{smuggled}")
        first = await post(sender, at.url)
        at.answer = OK
        second = await post(sender, at.url)
    assert (first.status, first.excerpt) == (200, "ok")
    assert (second.status, second.excerpt) == (200, "thanks")


@pytest.mark.parametrize(
    "answer",
    [
        forever(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        forever(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", b"x" * 65536),
        forever(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"2000\r\n" + b"x" * 8192 + b"\r\n"),
    ],
    ids=["until close", "content-length", "chunked"],
)
async def test_an_endless_body_is_cut_and_judged_by_its_status(answer: Answer) -> None:
    result = await post_to(answer)
    assert (result.status, result.error, result.excerpt) == (200, None, "x" * 4096)


async def test_a_body_that_never_ends_and_never_comes_is_judged_by_its_status_within_the_timeout() -> None:
    async def trickle(stream: ByteStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx")
        await anyio.sleep_forever()

    result = await post_to(trickle, timeout_s=0.2)
    assert (result.status, result.error, result.excerpt) == (200, None, "x")


async def test_a_gzip_bomb_stays_packed() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n"
    result = await post_to(say(head.encode() + bomb))
    assert result.status == 200
    assert result.excerpt.startswith("\\x1f\\x8b")


async def test_interim_answers_are_passed_over() -> None:
    interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    result = await post_to(say(f"{interim}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"))
    assert (result.status, result.excerpt) == (200, "ok")


async def test_a_flood_of_interim_answers_ends_with_the_timeout() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    result = await post_to(forever(interim, interim), timeout_s=0.2)
    assert (result.status, result.error) == (None, "timeout")


async def test_a_change_of_protocols_is_no_success() -> None:
    result = await post_to(
        say("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"), timeout_s=0.5
    )
    assert result.status == 101


async def test_a_hung_receiver_does_not_delay_posts_to_another() -> None:
    answered: list[int] = []

    async def post_into_the_void(sender: WebhookSender, url: str) -> None:
        await post(sender, url)
        answered.append(1)

    async with receiver(hang) as hung, receiver(OK) as at, development(per_host=2) as sender:
        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(post_into_the_void, sender, hung.url)
            await eventually(lambda: len(hung.requests) == 2)
            results = [await post(sender, at.url) for _ in range(10)]
            assert answered == []
            tasks.cancel_scope.cancel()
    assert [result.status for result in results] == [200] * 10
    assert hung.n_connections == 2


# --- the wall --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"]
)
async def test_loopback_is_blocked_in_production(host: str) -> None:
    async with receiver(OK) as at, production() as sender:
        result = await post(sender, f"https://{host}:{at.port}/in")
    assert (result.status, result.error) == (None, "blocked_address")
    assert at.n_connections == 0


async def test_a_literal_no_parser_recognised_is_blocked_at_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.webhook_client.check_url", lambda *_, **__: None)
    async with receiver(OK) as at, production() as sender:
        result = await post(sender, at.url)
    assert (result.status, result.error) == (None, "blocked_address")
    assert at.n_connections == 0


@pytest.mark.parametrize(
    "url", ["http://hooks.example.com/", "https://u@hooks.example.com/", "https://", "file:///x", ""]
)
async def test_a_url_that_is_no_webhook_is_told_apart_from_a_blocked_one(url: str) -> None:
    async with production() as sender:
        result = await post(sender, url)
    assert (result.status, result.error) == (None, "invalid_url")


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.7"],
        ["169.254.169.254"],
        ["64:ff9b::a9fe:a9fe"],
        ["127.0.0.1"],
        ["8.8.8.8", "10.0.0.7"],
        ["10.0.0.7", "8.8.8.8"],
        ["2606:4700:4700::1111", "fe80::1%lo"],
    ],
)
async def test_a_name_is_blocked_when_any_of_its_addresses_is(addresses: list[str]) -> None:
    names = Names(addresses)
    async with production(names) as sender:
        result = await post(sender, "https://hooks.example.com/in")
    assert (result.status, result.error) == (None, "blocked_address")
    assert names.asked == ["hooks.example.com"]


async def test_one_bad_address_beside_a_good_one_makes_no_connection() -> None:
    async with receiver(OK) as at, development(Names(["127.0.0.1", "10.0.0.7"])) as sender:
        result = await post(sender, f"http://hooks.example.com:{at.port}/in")
    assert result.error == "blocked_address"
    assert at.n_connections == 0


async def test_an_attempt_resolves_once_and_connects_to_the_address_it_judged() -> None:
    names = Names(["127.0.0.1"], ["10.0.0.7"])
    async with receiver(OK) as at, development(names) as sender:
        result = await post(sender, f"http://hooks.example.com:{at.port}/in")
    assert result.status == 200
    assert names.asked == ["hooks.example.com"]
    assert at.requests[0].headers["host"] == f"hooks.example.com:{at.port}"


async def test_a_name_that_turns_private_is_blocked_at_the_next_connect() -> None:
    names = Names(["127.0.0.1"], ["10.0.0.7"])
    closing = say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    async with receiver(closing) as at, development(names) as sender:
        url = f"http://hooks.example.com:{at.port}/in"
        assert (await post(sender, url)).status == 200
        assert (await post(sender, url)).error == "blocked_address"


async def test_a_name_nobody_knows_is_a_failed_lookup() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for lookup in (unknown, Names([])):
        async with production(lookup) as sender:
            assert (await post(sender, "https://hooks.example.com/in")).error == "dns_failed"


async def test_a_lookup_that_hangs_is_a_timeout() -> None:
    async def hanging(host: str, port: int) -> Sequence[str]:
        await anyio.sleep_forever()
        return []

    async with production(hanging) as sender:
        assert (await post(sender, "https://hooks.example.com/in", timeout_s=0.1)).error == "timeout"


async def test_the_system_s_resolver_finds_localhost_in_development() -> None:
    async with receiver(OK) as at, development() as sender:
        assert (await post(sender, f"http://localhost:{at.port}/in")).status == 200


# --- TLS -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificates:
    """A certificate for `name`, signed by itself, on both sides of the connection."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def certificates(folder: Path, *, name: str = "hooks.example.com", age_days: int = 0) -> Certificates:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.now(UTC) - timedelta(days=age_days + 1)
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address("127.9.9.9"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "receiver.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    return Certificates(server, ssl.create_default_context(cafile=str(pem)))


async def post_over_tls(sides: Certificates, trust: ssl.SSLContext | None) -> PostResult:
    sender = AiohttpSender(SystemClock(), allow_loopback=True, lookup=Names(["127.0.0.1"]), ssl_context=trust)
    async with receiver(OK, sides.server) as at, sender:
        return await post(sender, f"https://hooks.example.com:{at.port}/in")


async def test_tls_keeps_the_name_while_the_connection_goes_to_the_judged_address(tmp_path: Path) -> None:
    asked: list[str | None] = []
    sides = certificates(tmp_path)
    sides.server.sni_callback = lambda _socket, name, _context: asked.append(name)
    result = await post_over_tls(sides, sides.client)
    assert (result.status, result.error) == (200, None)
    assert asked == ["hooks.example.com"]


async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    assert (await post_over_tls(certificates(tmp_path), trust=None)).error == "tls_failed"


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    sides = certificates(tmp_path, age_days=30)
    assert (await post_over_tls(sides, sides.client)).error == "tls_failed"


async def test_a_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    sides = certificates(tmp_path, name="other.example.com")
    assert (await post_over_tls(sides, sides.client)).error == "tls_failed"


async def test_a_server_that_does_not_speak_tls_is_a_tls_failure() -> None:
    async def greet(stream: ByteStream) -> None:
        async with stream:
            await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")

    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    sender = AiohttpSender(SystemClock(), allow_loopback=True)
    async with tcp, anyio.create_task_group() as tasks, sender:
        tasks.start_soon(tcp.serve, greet)
        port = local_port(tcp)
        assert (await post(sender, f"https://127.0.0.1:{port}/in")).error == "tls_failed"
        tasks.cancel_scope.cancel()
