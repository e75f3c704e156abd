"""`python -m cli.benchmark.bare_server`: uvicorn with nothing behind it, the floor of every HTTP figure.

Reads the body and answers JSON as long as a message view. The first line it prints is its base URL.
"""

import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn

from cli.benchmark.message import VIEW

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

START: Final = {
    "type": "http.response.start",
    "status": 201,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(VIEW)).encode())],
}
BODY: Final = {"type": "http.response.body", "body": VIEW}


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send(BODY)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(
            application, http="httptools", loop="uvloop", lifespan="off", log_level="warning", access_log=False
        )
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
