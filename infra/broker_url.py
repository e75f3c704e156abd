"""Where the broker is and who we are there, in one string, as settings and configuration files hold it.

    nats://host:4222,nats://host2:4222?creds=/path/core.creds
    tls://host:4222?creds=/path/core.creds&tls_ca=/path/ca.pem&tls_cert=/path/client.pem&tls_key=/path/client.key

Servers of one cluster are separated by commas, options follow the last one. A broker that is run otherwise may want
`nats://user:password@host:4222`. With `tls://` nothing is sent to a server that does not speak TLS; without `tls_ca`
the system's authorities are believed. Files are read when a connection is made, so they may be renewed meanwhile.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from infra.nats_jwt import BadCredential, Creds, read_creds

SCHEMES: Final = ("nats", "tls")
TLS_OPTIONS: Final = ("tls_ca", "tls_cert", "tls_key")
OPTIONS: Final = ("creds", *TLS_OPTIONS)
SHAPE: Final = "nats://host:port or tls://host:port, several with commas, then ?creds=FILE"


class BadBrokerUrl(ValueError):
    """A broker's URL, or a file it names, is not as it must be. Shows neither passwords nor what files hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: whom we believe, and our own certificate for servers that ask for one (mTLS)."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUrl:
    """A parsed URL. `servers` may hold a password."""

    servers: tuple[str, ...] = field(repr=False)
    creds_file: Path | None = None
    tls_files: TlsFiles | None = None

    @classmethod
    def parse(cls, url: str) -> "BrokerUrl":
        """Raises `BadBrokerUrl`. Files are not looked at."""
        before, _, query = url.strip().partition("?")
        servers = tuple(server.strip() for server in before.split(","))
        schemes = {_scheme(server) for server in servers}
        if len(schemes) != 1:
            raise BadBrokerUrl("a broker's servers are all nats:// or all tls://")
        options = _options(query)
        encrypted = schemes == {"tls"}
        tls = TlsFiles(**{name[len("tls_") :]: path for name, path in options.items() if name in TLS_OPTIONS})
        if not encrypted and tls != TlsFiles():
            raise BadBrokerUrl("tls_ca, tls_cert and tls_key need tls:// in a broker's URL")
        if tls.key is not None and tls.cert is None:
            raise BadBrokerUrl("tls_key without tls_cert in a broker's URL")
        return cls(servers=servers, creds_file=options.get("creds"), tls_files=tls if encrypted else None)

    @property
    def says_who(self) -> bool:
        """Whether the URL itself says who we are."""
        return self.creds_file is not None or any("@" in server for server in self.servers)

    def creds(self) -> Creds | None:
        """Who we are, read from the file now; None without one. Raises `BadBrokerUrl`."""
        if self.creds_file is None:
            return None
        try:
            return read_creds(self.creds_file.read_text())
        except OSError as error:
            raise BadBrokerUrl(f"the creds file {self.creds_file} cannot be read: {error.strerror}") from None
        except (BadCredential, UnicodeDecodeError) as error:
            reason = error if isinstance(error, BadCredential) else "it is no text"
            raise BadBrokerUrl(f"the creds file {self.creds_file} is not one: {reason}") from None

    def tls(self) -> ssl.SSLContext | None:
        """How to speak TLS; None for a plain connection. Raises `BadBrokerUrl`."""
        files = self.tls_files
        if files is None:
            return None
        try:
            context = ssl.create_default_context(cafile=files.ca)
            if files.cert is not None:
                # An empty password, for otherwise OpenSSL asks for one at the terminal.
                context.load_cert_chain(files.cert, files.key, password="")
        except OSError as error:
            named = ", ".join(str(path) for path in (files.ca, files.cert, files.key) if path is not None)
            raise BadBrokerUrl(f"the TLS files {named} cannot be used: {error.strerror or error}") from None
        return context


def broker_url(*servers: str, creds: Path) -> str:
    """The string for these servers (`nats://host:port`) and this creds file."""
    return f"{','.join(servers)}?creds={quote(str(creds))}"


def _scheme(server: str) -> str:
    try:
        parts = urlsplit(server)
        if parts.scheme in SCHEMES and parts.hostname and (parts.port is None or parts.port) and not parts.path:
            return parts.scheme
    except ValueError:
        pass
    raise BadBrokerUrl(f"this is no broker's URL; it is {SHAPE}")


def _options(query: str) -> dict[str, Path]:
    pairs = parse_qsl(query, keep_blank_values=True)
    found = dict(pairs)
    wrong = next((name for name, value in pairs if name not in OPTIONS or not value), None)
    if wrong is not None or len(found) != len(pairs):
        raise BadBrokerUrl(f"the options of a broker's URL are {', '.join(OPTIONS)}, each once and with a path")
    return {name: Path(value) for name, value in found.items()}
