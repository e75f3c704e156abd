"""HTTP/1.1 as uvicorn speaks it, with the one bound it does not have: how long a request's head may be."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 32_768
_REFUSAL: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedHttp(HttpToolsProtocol):
    """Ends a connection whose request line and headers go on and on; the parser would keep all of it in memory."""

    _in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        continues_head = self._in_head
        super().data_received(data)
        if not self._in_head:
            return
        # What arrived together with the end of the message before is not counted: it is one read at most.
        self._head_bytes = self._head_bytes + len(data) if continues_head else 0
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_REFUSAL)
            self.transport.close()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
