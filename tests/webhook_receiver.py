"""A webhook receiver on loopback that takes everything and remembers what it was sent."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(kw_only=True)
class Receiver:
    """Where it listens, how it answers, and what it was sent: headers, lower-cased, and bodies."""

    url: str = ""
    delay_s: float = 0.0
    """How long each request waits for its answer."""
    status: int = 204
    heard: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@contextmanager
def running_receiver(*, delay_s: float = 0.0) -> Iterator[Receiver]:
    receiver = Receiver(delay_s=delay_s)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            # Decided before the test can see the request, and change its mind.
            status = receiver.status
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.heard.append({name.lower(): value for name, value in self.headers.items()})
            receiver.bodies.append(body)
            time.sleep(receiver.delay_s)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
