"""The configuration file: what it takes, and what it says about what it does not take."""

from pathlib import Path

import pytest

from monitor.configuration import ConfigurationError, load, monitor_id_of_host, parse

SECRET = "prk_very_secret"
GOOD = """
gateway_url = "https://post.example/api/"
nats_url = "nats://edge:hush@localhost:4222"
key = "prk_very_secret"
state_dir = "state"

[[agents]]
agent = "cue-mac-app@max"

[[agents]]
agent = "builder"
sessions = false
background = { argv = ["build", "--"], env_allow = ["MODEL"], limits = { cpu_s = 60 } }
"""


def test_a_good_file_is_read_with_its_defaults() -> None:
    configuration = parse(GOOD)
    assert configuration.gateway_url == "https://post.example/api"
    assert (configuration.beat_every_s, configuration.poll_every_s) == (30, 10)
    first, second = configuration.agents
    assert first.sessions
    assert first.background is None
    assert second.background is not None
    assert (second.background.lease_s, second.background.output_cap_bytes) == (60, 1024 * 1024)


def test_the_broker_s_url_may_name_several_servers_and_files_with_any_name() -> None:
    url = "tls://a:4222,tls://b:4222?creds=/etc/a,b.creds&tls_ca=/ca.pem"
    configuration = parse(GOOD.replace("nats://edge:hush@localhost:4222", url))
    assert configuration.broker == url


def test_without_a_broker_s_url_the_gateway_has_to_say_where_it_is() -> None:
    assert parse(GOOD.replace('nats_url = "nats://edge:hush@localhost:4222"', "")).broker is None


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("gateway_url =", "gatewayurl =", "gatewayurl: unknown key"),
        ('"https://post', '"ftp://post', "gateway_url: expected http"),
        ('"https://post', '"https://user:pw@post', "gateway_url: expected http"),
        ('"nats://', '"http://', "nats_url: expected nats://"),
        ('key = "prk_very_secret"', "", "exactly one of key and key_file"),
        ('key = "prk_very_secret"', 'key = "prk_very_secret"\nkey_file = "k"', "exactly one of key and key_file"),
        ('agent = "builder"', 'agent = "Not A Slug"', "agents.1.agent: expected agent_"),
        ('agent = "builder"', 'agent = "cue-mac-app@max"', "agents: an agent is named twice"),
        ('["build", "--"]', "[]", "agents.1.background.argv: "),
        ('["build", "--"]', '["a\\u0000b"]', "agents.1.background.argv: no program takes a NUL"),
        ('["MODEL"]', '["MODEL=small"]', "agents.1.background.env_allow: names of environment variables"),
        ("cpu_s = 60", "cpu = 60", "agents.1.background.limits.cpu"),
        ("cpu_s = 60", "cpu_s = 0", "agents.1.background.limits.cpu_s: "),
        ("sessions = false", "sessions = false\nheartbeat_max_age_s = 5", "agents.1.heartbeat_max_age_s: "),
        ("background = {", "# ", "agents.1: neither sessions nor background"),
        ("sessions = false", "sessions = false\nshell = true", "agents.1.shell: unknown key"),
        ('state_dir = "state"', 'state_dir = "state"\nmonitor_id = "A B"', "monitor_id: expected 1 to 63"),
        ("state_dir =", "state_dir", "not TOML"),
    ],
)
def test_a_bad_file_is_refused_by_the_name_of_its_key_and_never_shown(old: str, new: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(GOOD.replace(old, new))
    assert complaint in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "hush" not in str(refused.value)


def test_secrets_do_not_appear_when_a_configuration_is_shown() -> None:
    assert SECRET not in repr(parse(GOOD))
    assert "hush" not in repr(parse(GOOD))


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    write(tmp_path / "key", f"{SECRET}\n")
    text = GOOD.replace('key = "prk_very_secret"', 'key_file = "key"')
    configuration = load(write(tmp_path / "monitor.toml", text, 0o644))
    assert configuration.state_dir == tmp_path / "state"
    assert configuration.api_key == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "key", SECRET, mode)
    separate = write(tmp_path / "separate.toml", GOOD.replace('key = "prk_very_secret"', 'key_file = "key"'))
    inside = write(tmp_path / "inside.toml", GOOD, mode)
    with pytest.raises(ConfigurationError, match=r"key_file: readable by others"):
        load(separate)
    with pytest.raises(ConfigurationError, match=r"key: .*readable by others"):
        load(inside)


@pytest.mark.parametrize("content", ["", "two words", "caf\u00e9"])
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    write(tmp_path / "key", content)
    path = write(tmp_path / "monitor.toml", GOOD.replace('key = "prk_very_secret"', 'key_file = "key"'))
    with pytest.raises(ConfigurationError, match="key_file: holds no key"):
        load(path)


def test_an_absent_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("hostname", "monitor_id"),
    [("Max's Mac.local", "max-s-mac-local"), ("---", "monitor"), ("x" * 80, "x" * 63), ("\u00fc", "monitor")],
)
def test_a_monitor_is_named_after_its_host(hostname: str, monitor_id: str) -> None:
    assert monitor_id_of_host(hostname) == monitor_id
