"""Where webhooks may not go: judgement of a resolved address, and of a URL when it is registered. Pure.

`judge` decides about the address a connection is about to be made to; a name says nothing about where it leads, so
that is the judgement that counts. `check_url` refuses at registration what could never pass, without asking DNS.

The networks are those of the IANA special-purpose registries, and the addresses at which clouds serve credentials to
their own machines. `ipaddress.is_global` is asked last and never alone: it calls NAT64 of a link-local address global.
"""

import re
from enum import StrEnum
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from contracts.errors import Invalid

MAX_URL_CHARACTERS: Final = 2048


class Blocked(StrEnum):
    """Why an address, or a host that stands for one, is out of bounds. Stable."""

    NOT_AN_ADDRESS = "not_an_address"
    NONCANONICAL_ADDRESS = "noncanonical_address"
    ZONE_ID = "zone_id"
    LOCAL_NAME = "local_name"
    UNSPECIFIED = "unspecified"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    SHARED = "shared"
    LINK_LOCAL = "link_local"
    METADATA = "metadata"
    DOCUMENTATION = "documentation"
    BENCHMARKING = "benchmarking"
    SPECIAL_PURPOSE = "special_purpose"
    TUNNEL = "tunnel"
    MULTICAST = "multicast"
    RESERVED = "reserved"
    NOT_GLOBAL_UNICAST = "not_global_unicast"


class Unusable(StrEnum):
    """Why a URL cannot be a webhook whatever its address. Stable."""

    TOO_LONG = "too_long"
    CHARACTER = "character"
    SYNTAX = "syntax"
    SCHEME = "scheme"
    USERINFO = "userinfo"
    FRAGMENT = "fragment"
    EMPTY_HOST = "empty_host"
    HOST = "host"
    PORT = "port"


# Single addresses stand before the networks that contain them, so that the reason is the telling one.
_DENIED_V4: Final = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("169.254.169.254/32", Blocked.METADATA),  # most clouds
        ("169.254.170.0/24", Blocked.METADATA),  # AWS: container and pod credentials
        ("100.100.100.200/32", Blocked.METADATA),  # Alibaba
        ("168.63.129.16/32", Blocked.METADATA),  # Azure's host agent, inside public space
        ("192.0.0.192/32", Blocked.METADATA),  # Oracle
        ("0.0.0.0/8", Blocked.UNSPECIFIED),
        ("10.0.0.0/8", Blocked.PRIVATE),
        ("100.64.0.0/10", Blocked.SHARED),
        ("127.0.0.0/8", Blocked.LOOPBACK),
        ("169.254.0.0/16", Blocked.LINK_LOCAL),
        ("172.16.0.0/12", Blocked.PRIVATE),
        ("192.0.0.0/24", Blocked.SPECIAL_PURPOSE),
        ("192.0.2.0/24", Blocked.DOCUMENTATION),
        ("192.31.196.0/24", Blocked.SPECIAL_PURPOSE),  # AS112
        ("192.52.193.0/24", Blocked.SPECIAL_PURPOSE),  # AMT
        ("192.88.99.0/24", Blocked.TUNNEL),  # 6to4 relays
        ("192.168.0.0/16", Blocked.PRIVATE),
        ("192.175.48.0/24", Blocked.SPECIAL_PURPOSE),  # AS112
        ("198.18.0.0/15", Blocked.BENCHMARKING),
        ("198.51.100.0/24", Blocked.DOCUMENTATION),
        ("203.0.113.0/24", Blocked.DOCUMENTATION),
        ("224.0.0.0/4", Blocked.MULTICAST),
        ("240.0.0.0/4", Blocked.RESERVED),
    )
)
_DENIED_V6: Final = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("fd00:ec2::254/128", Blocked.METADATA),  # AWS
        ("fd20:ce::254/128", Blocked.METADATA),  # Google
        ("::/128", Blocked.UNSPECIFIED),
        ("::1/128", Blocked.LOOPBACK),
        ("64:ff9b:1::/48", Blocked.TUNNEL),  # NAT64 of local use
        ("100::/64", Blocked.SPECIAL_PURPOSE),  # discarded
        ("100:0:0:1::/64", Blocked.SPECIAL_PURPOSE),  # dummy prefix
        ("2001::/32", Blocked.TUNNEL),  # Teredo
        ("2001::/23", Blocked.SPECIAL_PURPOSE),
        ("2001:db8::/32", Blocked.DOCUMENTATION),
        ("2002::/16", Blocked.TUNNEL),  # 6to4
        ("2620:4f:8000::/48", Blocked.SPECIAL_PURPOSE),  # AS112
        ("3fff::/20", Blocked.DOCUMENTATION),
        ("5f00::/16", Blocked.SPECIAL_PURPOSE),  # segment routing
        ("fc00::/7", Blocked.PRIVATE),
        ("fe80::/10", Blocked.LINK_LOCAL),
        ("fec0::/10", Blocked.PRIVATE),  # site-local, deprecated and still routed by some
        ("ff00::/8", Blocked.MULTICAST),
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")
_COMPATIBLE: Final = IPv6Network("::/96")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")


def judge(address: str, *, allow_loopback: bool) -> str | None:
    """Say why nothing may be sent to a resolved IP address, or None when it is a public one. Never raises.

    With `allow_loopback` (development) 127.0.0.0/8 and ::1 pass as well, and nothing else.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return Blocked.NOT_AN_ADDRESS
    return _judge_v4(ip, allow_loopback) if isinstance(ip, IPv4Address) else _judge_v6(ip, allow_loopback)


def _judge_v4(ip: IPv4Address, allow_loopback: bool) -> Blocked | None:
    reason = next((reason for network, reason in _DENIED_V4 if ip in network), None)
    if reason is Blocked.LOOPBACK and allow_loopback:
        return None
    return reason or (None if ip.is_global else Blocked.NOT_GLOBAL_UNICAST)


def _judge_v6(ip: IPv6Address, allow_loopback: bool) -> Blocked | None:
    if ip.scope_id is not None:
        return Blocked.LINK_LOCAL if ip.is_link_local else Blocked.ZONE_ID
    if ip.ipv4_mapped is not None:
        # The kernel connects to the IPv4 address itself.
        return _judge_v4(ip.ipv4_mapped, allow_loopback)
    if ip in _NAT64:
        return _judge_v4(_low_v4(ip), allow_loopback=False)
    reason = next((reason for network, reason in _DENIED_V6 if ip in network), None)
    if reason is Blocked.LOOPBACK and allow_loopback:
        return None
    if reason in (None, Blocked.TUNNEL):
        # What a tunnel address carries tells more than that it is a tunnel.
        reason = _judge_carried(ip) or reason
    return reason or (None if ip in _GLOBAL_UNICAST and ip.is_global else Blocked.NOT_GLOBAL_UNICAST)


def _judge_carried(ip: IPv6Address) -> Blocked | None:
    return next((found for carried in _carried(ip) if (found := _judge_v4(carried, allow_loopback=False))), None)


def _carried(ip: IPv6Address) -> tuple[IPv4Address, ...]:
    if ip.sixtofour is not None:
        return (ip.sixtofour,)
    if ip.teredo is not None:
        server, client = ip.teredo
        return (client, server)
    return (_low_v4(ip),) if ip in _COMPATIBLE or ip in _TRANSLATED else ()


def _low_v4(ip: IPv6Address) -> IPv4Address:
    return IPv4Address(int(ip) & 0xFFFF_FFFF)


# --- a URL, when it is registered ------------------------------------------------------------------------------------

# Parsers disagree about what spaces, backslashes and characters beyond ASCII do to a host: none is let in.
_CHARACTERS: Final = re.compile(r"[!-\[\]-~]*")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)[^#]*(#.*)?")
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([^:\[\]]*))?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Ports that speak something else: the WHATWG Fetch standard's "bad ports", and the stores commonly found beside us.
_FETCH_BAD_PORTS: Final = frozenset(
    {1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110}
    | {111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531}
    | {532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060}
    | {5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}
)
_STORE_PORTS: Final = frozenset({445, 1433, 1521, 2375, 2376, 2379, 3306, 3389, 4222, 5432, 6379, 11211, 27017})
_DENIED_PORTS: Final = _FETCH_BAD_PORTS | _STORE_PORTS

_METADATA_NAMES: Final = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "metadata.tencentyun.com", "instance-data"}
)
_LOCAL_SUFFIXES: Final = (".localdomain", ".local", ".internal", ".home.arpa", ".lan", ".onion", ".invalid")


def check_url(url: str, *, allow_http: bool, allow_loopback: bool) -> None:
    """Raise `Invalid` (`invalid_webhook_url`, with a `Blocked` or `Unusable` reason) unless `url` may be registered.

    It is absolute, ASCII, https (or http with `allow_http`), without userinfo and fragment, and its host is a public
    DNS name or a canonical public address. With `allow_loopback`, `localhost` and loopback addresses pass as well.
    """
    reason = _fault(url, allow_http, allow_loopback)
    if reason is not None:
        raise Invalid("invalid_webhook_url", f"this URL cannot be a webhook: {reason}", reason=str(reason))


# The same few URLs are asked about at every attempt.
@lru_cache(maxsize=4096)
def _fault(url: str, allow_http: bool, allow_loopback: bool) -> Blocked | Unusable | None:
    if len(url) > MAX_URL_CHARACTERS:
        return Unusable.TOO_LONG
    if not _CHARACTERS.fullmatch(url):
        return Unusable.CHARACTER
    parts = _URL.fullmatch(url)
    if parts is None:
        return Unusable.SYNTAX
    scheme, authority, fragment = parts.groups()
    if scheme.lower() != "https" and not (allow_http and scheme.lower() == "http"):
        return Unusable.SCHEME
    if fragment is not None:
        return Unusable.FRAGMENT
    return _authority_fault(authority, allow_loopback)


def _authority_fault(authority: str, allow_loopback: bool) -> Blocked | Unusable | None:
    if "@" in authority:
        return Unusable.USERINFO
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        return Unusable.HOST
    host, port = parts.groups()
    if host in ("", "."):
        return Unusable.EMPTY_HOST
    if port is not None and not _port_is_usable(port):
        return Unusable.PORT
    return _bracketed_fault(host, allow_loopback) if host.startswith("[") else _host_fault(host.lower(), allow_loopback)


def _port_is_usable(port: str) -> bool:
    return bool(_PORT.fullmatch(port)) and int(port) <= 65535 and int(port) not in _DENIED_PORTS


def _bracketed_fault(host: str, allow_loopback: bool) -> Blocked | Unusable | None:
    address = host[1:-1]
    if "%" in address:
        return Blocked.ZONE_ID
    return Blocked(reason) if (reason := judge(address, allow_loopback=allow_loopback)) else None


def _host_fault(host: str, allow_loopback: bool) -> Blocked | Unusable | None:
    name = host.removesuffix(".")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return _numeric_fault(host, allow_loopback)
    if name in _METADATA_NAMES:
        return Blocked.METADATA
    if name == "localhost" or name.endswith(".localhost"):
        return None if allow_loopback else Blocked.LOOPBACK
    if not _NAME.fullmatch(name):
        return Unusable.HOST
    return Blocked.LOCAL_NAME if "." not in name or name.endswith(_LOCAL_SUFFIXES) else None


def _numeric_fault(host: str, allow_loopback: bool) -> Blocked | None:
    """A host whose last label is a number is an IPv4 address to some resolvers: only the one canonical form is read."""
    try:
        canonical = IPv4Address(host)
    except AddressValueError:
        return Blocked.NONCANONICAL_ADDRESS
    return _judge_v4(canonical, allow_loopback)
