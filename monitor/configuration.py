"""The monitor's one configuration file: which gateway, which broker, which agents, and how their work is run."""

import re
import socket
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from contracts.ids import AGENT_ID, MONITOR_ID, SLUG

ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")

Limit = Literal["cpu_s", "memory_bytes", "open_files", "processes", "file_size_bytes"]


class ConfigurationError(Exception):
    """The configuration cannot be used; the text names the keys and never shows their values."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class BackgroundSettings(_Table):
    """How one agent's background work is run: a fixed program, never a shell, the message on its standard input."""

    argv: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    cwd: Path | None = None
    wall_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    output_cap_bytes: Annotated[int, Field(ge=1_024, le=64 * 1024 * 1024)] = 1024 * 1024
    concurrency: Annotated[int, Field(ge=1, le=256)] = 2
    env_allow: tuple[str, ...] = ()
    limits: dict[Limit, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    lease_s: Annotated[int, Field(ge=10, le=900)] = 60

    @field_validator("argv")
    @classmethod
    def _no_nul(cls, argv: tuple[str, ...]) -> tuple[str, ...]:
        if any("\0" in word for word in argv):
            raise ValueError("no program takes a NUL in its arguments")
        return argv

    @field_validator("env_allow")
    @classmethod
    def _names_only(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(ENV_NAME.match(name) for name in names):
            raise ValueError("names of environment variables, without values")
        return names


class AgentSettings(_Table):
    """One agent of this host: live sessions, background work, or both."""

    agent: str
    sessions: bool = True
    background: BackgroundSettings | None = None
    heartbeat_max_age_s: Annotated[int, Field(ge=10, le=3600)] | None = None
    """After how long without a touch a session counts as gone; the agent's own `heartbeat_age_sec` when absent."""

    @field_validator("agent")
    @classmethod
    def _is_a_ref(cls, ref: str) -> str:
        slug, at, owner = ref.partition("@")
        if AGENT_ID.match(ref) or (SLUG.match(slug) and (not at or SLUG.match(owner))):
            return ref
        raise ValueError("expected agent_…, slug@owner or slug")

    @model_validator(mode="after")
    def _serves_something(self) -> "AgentSettings":
        if not self.sessions and self.background is None:
            raise ValueError("neither sessions nor background: there is nothing to do for this agent")
        return self


class Configuration(_Table):
    """The whole file. `key` is filled in from `key_file` when that is what the file names."""

    gateway_url: str
    nats_url: SecretStr | None = None
    key: SecretStr | None = None
    key_file: Path | None = None
    monitor_id: str = Field(default_factory=lambda: monitor_id_of_host(socket.gethostname()))
    state_dir: Path
    beat_every_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    poll_every_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    agents: Annotated[tuple[AgentSettings, ...], Field(min_length=1)]

    @field_validator("gateway_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not re.match(r"https?://[^/\s@]+(/\S*)?\Z", url):
            raise ValueError("expected http(s)://host[:port][/path], without a user")
        return url.rstrip("/")

    @field_validator("nats_url")
    @classmethod
    def _is_nats(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        servers, _, _ = url.get_secret_value().partition("?")
        if not all(re.match(r"(nats|tls)://\S+\Z", part) for part in servers.split(",")):
            raise ValueError("expected nats://… or tls://…, several with commas between them")
        return url

    @field_validator("monitor_id")
    @classmethod
    def _is_an_id(cls, monitor_id: str) -> str:
        if not MONITOR_ID.match(monitor_id):
            raise ValueError("expected 1 to 63 of a-z, 0-9 and -")
        return monitor_id

    @field_validator("agents")
    @classmethod
    def _once_each(cls, agents: tuple[AgentSettings, ...]) -> tuple[AgentSettings, ...]:
        if len({agent.agent for agent in agents}) != len(agents):
            raise ValueError("an agent is named twice")
        return agents

    @model_validator(mode="after")
    def _one_key(self) -> "Configuration":
        if (self.key is None) == (self.key_file is None):
            raise ValueError("exactly one of key and key_file is needed")
        return self

    @property
    def broker(self) -> str | None:
        """Where the broker is, and perhaps who we are there; None: the gateway says."""
        return None if self.nats_url is None else self.nats_url.get_secret_value()

    @property
    def api_key(self) -> str:
        if self.key is None:
            raise ConfigurationError("key_file: has not been read")
        return self.key.get_secret_value()


def load(path: Path) -> Configuration:
    """Read the file; relative paths in it start where it lies. Raises `ConfigurationError`."""
    configuration = parse(_text(path, "the configuration file"))
    if configuration.key is not None:
        _must_be_private(path, "key: the file that holds it")
    return _with_key(_anchored(configuration, path.absolute().parent))


def parse(text: str) -> Configuration:
    """The same from text, key file unread. Raises `ConfigurationError`."""
    try:
        return Configuration.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        # Its message quotes the text, and the text may hold the key.
        raise ConfigurationError("the configuration file is not TOML") from None
    except ValidationError as error:
        raise ConfigurationError("; ".join(_complaint(dict(item)) for item in error.errors())) from None


def monitor_id_of_host(hostname: str) -> str:
    """A host's name in the alphabet of monitor ids: `Max's Mac.local` becomes `max-s-mac-local`."""
    return re.sub(r"[^a-z0-9]+", "-", hostname.lower()).strip("-")[:63].rstrip("-") or "monitor"


def _complaint(item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "the configuration"
    return f"{key}: {'unknown key' if item['type'] == 'extra_forbidden' else item['msg'].removeprefix('Value error, ')}"


def _anchored(configuration: Configuration, folder: Path) -> Configuration:
    paths: dict[str, Any] = {"state_dir": folder / configuration.state_dir.expanduser()}
    if configuration.key_file is not None:
        paths["key_file"] = folder / configuration.key_file.expanduser()
    return configuration.model_copy(update=paths)


def _with_key(configuration: Configuration) -> Configuration:
    if configuration.key_file is None:
        return configuration
    key = _text(configuration.key_file, "key_file").strip()
    _must_be_private(configuration.key_file, "key_file")
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("key_file: holds no key")
    return configuration.model_copy(update={"key": SecretStr(key)})


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}: cannot be read ({type(error).__name__})") from None


def _must_be_private(path: Path, name: str) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigurationError(f"{name}: readable by others; chmod 600 it")
