"""Why an embedded server does not start, in words for the person who started it."""

from pathlib import Path


class EmbeddedError(Exception):
    """An embedded server cannot do what was asked."""


class BinaryMissing(EmbeddedError):
    """The program of a server is not installed here."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not installed; install it, or point the settings at a server of your own")
        self.name = name


class PortTaken(EmbeddedError):
    """Another program listens on the port."""

    def __init__(self, port: int, setting: str) -> None:
        super().__init__(f"port {port} is taken by another program; stop it, or set {setting} to another port")
        self.port = port
        self.setting = setting


class DataInUse(EmbeddedError):
    """Another server runs on the data directory."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(f"{data_dir} is in use by a server that runs already; stop it, or choose another directory")
        self.data_dir = data_dir


class StartFailed(EmbeddedError):
    """The server ended, or did not answer in time, while it was started."""

    def __init__(self, name: str, reason: str, log_tail: str) -> None:
        super().__init__(f"{name} {reason}; its last words:\n{log_tail or '(none)'}")
        self.name = name
        self.reason = reason
        self.log_tail = log_tail
