"""The address wall: which resolved addresses and which URLs are refused, and by which name."""

import pytest

from contracts.errors import Invalid
from infra.address_wall import check_url, judge

PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"]

REFUSED = {
    "0.0.0.0": "unspecified",  # noqa: S104 - judged, not bound
    "0.1.2.3": "unspecified",
    "10.0.0.1": "private",
    "100.64.0.1": "shared",
    "100.127.255.255": "shared",
    "100.100.100.200": "metadata",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "metadata",
    "169.254.1.1": "link_local",
    "169.254.169.254": "metadata",
    "169.254.170.2": "metadata",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.8": "special_purpose",
    "192.0.0.192": "metadata",
    "192.0.2.1": "documentation",
    "192.31.196.1": "special_purpose",
    "192.52.193.1": "special_purpose",
    "192.88.99.1": "tunnel",
    "192.168.1.1": "private",
    "192.175.48.1": "special_purpose",
    "198.18.0.1": "benchmarking",
    "198.19.255.255": "benchmarking",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "100::1": "special_purpose",
    "100:0:0:1::1": "special_purpose",
    "2001:2::1": "special_purpose",
    "2001:20::1": "special_purpose",
    "2001:db8::1": "documentation",
    "2620:4f:8000::1": "special_purpose",
    "3fff::1": "documentation",
    "5f00::1": "special_purpose",
    "4000::1": "not_global_unicast",
    "fc00::1": "private",
    "fd12:3456::1": "private",
    "fd00:ec2::254": "metadata",
    "fd20:ce::254": "metadata",
    "fe80::1": "link_local",
    "fe80::1%eth0": "link_local",
    "febf::1": "link_local",
    "fec0::1": "private",
    "ff02::1": "multicast",
    "2606:4700:4700::1111%eth0": "zone_id",
}

WRAPPED = {
    "mapped": "::ffff:{}",
    "compatible": "::{}",
    "translated": "::ffff:0:{}",
    "nat64": "64:ff9b::{}",
    "six_to_four": "2002:{hex}::1",
    "teredo_client": "2001:0:101:101:0:0:{inverted}",
    "teredo_server": "2001:0:{hex}::f7f7:f7f7",
}


def wrap(form: str, v4: str) -> str:
    number = int.from_bytes(bytes(map(int, v4.split("."))), "big")
    inverted = number ^ 0xFFFF_FFFF
    return WRAPPED[form].format(
        v4, hex=f"{number >> 16:x}:{number & 0xFFFF:x}", inverted=f"{inverted >> 16:x}:{inverted & 0xFFFF:x}"
    )


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert judge(address, allow_loopback=False) is None


@pytest.mark.parametrize(("address", "reason"), REFUSED.items())
def test_special_addresses_are_refused_by_name(address: str, reason: str) -> None:
    assert judge(address, allow_loopback=False) == reason


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("v4", ["127.0.0.1", "169.254.169.254", "10.1.2.3", "192.168.0.1", "100.64.0.1", "0.1.2.3"])
def test_an_address_wrapped_in_another_is_judged_as_what_it_carries(form: str, v4: str) -> None:
    assert judge(wrap(form, v4), allow_loopback=False) == judge(v4, allow_loopback=False)


@pytest.mark.parametrize("form", ["mapped", "nat64"])
def test_forms_that_reach_a_public_address_pass(form: str) -> None:
    assert judge(wrap(form, "8.8.8.8"), allow_loopback=False) is None


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("compatible", "not_global_unicast"),
        ("translated", "not_global_unicast"),
        ("six_to_four", "tunnel"),
        ("teredo_client", "tunnel"),
        ("teredo_server", "tunnel"),
    ],
)
def test_abandoned_forms_are_refused_even_around_a_public_address(form: str, reason: str) -> None:
    assert judge(wrap(form, "8.8.8.8"), allow_loopback=False) == reason


def test_nat64_of_local_use_is_refused() -> None:
    assert judge("64:ff9b:1::808:808", allow_loopback=False) == "tunnel"


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.4 ", "::g"]
)
def test_what_is_no_canonical_address_is_refused(text: str) -> None:
    assert judge(text, allow_loopback=True) == "not_an_address"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_passes_in_development(address: str) -> None:
    assert judge(address, allow_loopback=True) is None


@pytest.mark.parametrize(
    "address",
    [
        *(address for address, reason in REFUSED.items() if reason != "loopback"),
        *(wrap(form, "127.0.0.1") for form in WRAPPED if form != "mapped"),
    ],
)
def test_development_opens_nothing_but_loopback(address: str) -> None:
    assert judge(address, allow_loopback=True) is not None


# --- URLs ------------------------------------------------------------------------------------------------------------


def fault(url: str, *, development: bool = False) -> str | None:
    try:
        check_url(url, allow_http=development, allow_loopback=development)
    except Invalid as refused:
        return str(refused.facts["reason"])
    return None


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/in?key=a%2Fb&x=1",
        "https://hooks.example.com:8443/in",
        "https://hooks.example.com:443",
        "HTTPS://Hooks.Example.COM./in",
        "https://xn--bcher-kva.example/",
        "https://my_app.example.com/",
        "https://8.8.8.8/in",
        "https://[2606:4700:4700::1111]:8443/in",
    ],
)
def test_public_https_urls_may_be_registered(url: str) -> None:
    assert fault(url) is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://hooks.example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://hooks.example.com/", "scheme"),
        ("ws://hooks.example.com/", "scheme"),
        ("", "syntax"),
        ("hooks.example.com", "syntax"),
        ("//hooks.example.com/", "syntax"),
        ("https:/hooks.example.com/", "syntax"),
        ("https:hooks.example.com", "syntax"),
        ("javascript:alert(1)", "syntax"),
        ("https://user@hooks.example.com/", "userinfo"),
        ("https://user:pass@hooks.example.com/", "userinfo"),
        ("https://@hooks.example.com/", "userinfo"),
        ("https://8.8.8.8@127.0.0.1/", "userinfo"),
        ("https://", "empty_host"),
        ("https:///in", "empty_host"),
        ("https://:443/", "empty_host"),
        ("https://./", "empty_host"),
        ("https://hooks.example.com/#part", "fragment"),
        ("https://hooks.example.com/#", "fragment"),
        ("https://hooks.example.com\\@127.0.0.1/", "character"),
        ("https://hooks.example.com/\r\nx: y", "character"),
        ("https://hooks.example.com/\n", "character"),
        ("https://hooks.example.com/\t", "character"),
        ("https://hooks.example.com/\x00", "character"),
        (" https://hooks.example.com/", "character"),
        ("https://hooks.example.com/a b", "character"),
        ("https://bücher.example/", "character"),
        ("https://１２７.0.0.1/", "character"),
        ("https://hooks。example.com/", "character"),
        ("https://" + "a" * 2048, "too_long"),
        ("https://%31%32%37.example.com/", "host"),
        ("https://hooks..example.com/", "host"),
        ("https://-hooks.example.com/", "host"),
        ("https://hooks.example.com../", "host"),
        ("https://" + "a" * 64 + ".example.com/", "host"),
        ("https://" + "a." * 130 + "com/", "host"),
        ("https://[::1/", "host"),
        ("https://[::1]x/", "host"),
        ("https://::1/", "host"),
        ("https://hooks.example.com,evil.example/", "host"),
        ("https://[]/", "not_an_address"),
        ("https://[127.0.0.1]x/", "host"),
        ("https://[v1.x]/", "not_an_address"),
    ],
)
def test_malformed_urls_are_refused_by_name(url: str, reason: str) -> None:
    assert fault(url) == reason


@pytest.mark.parametrize("port", ["0", "22", "99999", "65536", "", "-1", "0443", "+443", "4_43", "25", "6379"])
def test_ports_that_are_none_or_speak_something_else_are_refused(port: str) -> None:
    assert fault(f"https://hooks.example.com:{port}/") == "port"


def test_a_refused_url_is_the_registrant_s_to_fix() -> None:
    with pytest.raises(Invalid) as refused:
        check_url("https://localhost/", allow_http=False, allow_loopback=False)
    assert (refused.value.code, refused.value.http_status) == ("invalid_webhook_url", 422)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("localhost", "loopback"),
        ("LOCALHOST", "loopback"),
        ("localhost.", "loopback"),
        ("api.localhost", "loopback"),
        ("127.0.0.1", "loopback"),
        ("127.0.0.1.", "noncanonical_address"),
        ("127.1", "noncanonical_address"),
        ("127.0.1", "noncanonical_address"),
        ("2130706433", "noncanonical_address"),
        ("0x7f000001", "noncanonical_address"),
        ("0X7F.0.0.1", "noncanonical_address"),
        ("0177.0.0.1", "noncanonical_address"),
        ("017700000001", "noncanonical_address"),
        ("0", "noncanonical_address"),
        ("134744072", "noncanonical_address"),
        ("1.2.3.4.5", "noncanonical_address"),
        ("256.256.256.256", "noncanonical_address"),
        ("evil.example.0x1", "noncanonical_address"),
        ("0.0.0.0", "unspecified"),  # noqa: S104 - judged, not bound
        ("10.0.0.1", "private"),
        ("100.64.0.1", "shared"),
        ("169.254.169.254", "metadata"),
        ("224.0.0.1", "multicast"),
        ("[::1]", "loopback"),
        ("[::]", "unspecified"),
        ("[0:0:0:0:0:0:0:1]", "loopback"),
        ("[::ffff:127.0.0.1]", "loopback"),
        ("[::ffff:7f00:1]", "loopback"),
        ("[::127.0.0.1]", "loopback"),
        ("[64:ff9b::a9fe:a9fe]", "metadata"),
        ("[2002:a9fe:a9fe::1]", "metadata"),
        ("[2001:0:101:101::8000:fffe]", "loopback"),
        ("[fe80::1]", "link_local"),
        ("[fe80::1%25eth0]", "zone_id"),
        ("[fe80::1%eth0]", "zone_id"),
        ("[fd00:ec2::254]", "metadata"),
        ("[ff02::1]", "multicast"),
        ("metadata", "metadata"),
        ("metadata.google.internal", "metadata"),
        ("METADATA.google.internal.", "metadata"),
        ("metadata.goog", "metadata"),
        ("instance-data", "metadata"),
        ("redis", "local_name"),
        ("printer.local", "local_name"),
        ("vault.corp.internal", "local_name"),
        ("nas.home.arpa", "local_name"),
    ],
)
def test_hosts_that_stay_inside_are_refused_at_registration(host: str, reason: str) -> None:
    assert fault(f"https://{host}/in") == reason
    assert fault(f"https://{host}:8443") == reason


@pytest.mark.parametrize("host", ["localhost", "localhost.", "api.localhost", "127.0.0.1", "[::1]"])
def test_development_may_register_plain_loopback(host: str) -> None:
    assert fault(f"http://{host}:8080/in", development=True) is None


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "10.0.0.1", "169.254.169.254", "[fe80::1]", "redis", "metadata"]
)
def test_development_may_register_nothing_else_inside(host: str) -> None:
    assert fault(f"http://{host}:8080/in", development=True) is not None
