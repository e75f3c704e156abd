"""What can be set: one frozen model per program, filled from the environment (`POSTROOM_…`) and nothing else."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ENV_PREFIX: Final = "POSTROOM_"
# Names that belong to the broker's configuration, to Docker Compose and to clients: known here, read elsewhere.
OTHER_NAMES: Final = frozenset(
    {
        "POSTROOM_NATS_STORE_DIR",
        "POSTROOM_NATS_MAX_FILE_STORE",
        "POSTROOM_NATS_OPERATOR",
        "POSTROOM_NATS_JWT_DIR",
        "POSTROOM_NATS_PORT",
        "POSTROOM_REDIS_PASSWORD",
        "POSTROOM_REDIS_PORT",
        "POSTROOM_REDIS_MAX_MEMORY",
        "POSTROOM_URL",
        "POSTROOM_API_KEY",
        "POSTROOM_WEBHOOK_SECRET",
        "POSTROOM_DATA_DIR",
    }
)
# A monitor and a test run have settings of their own.
OTHER_PREFIXES: Final = ("POSTROOM_MONITOR_", "POSTROOM_TEST_", "POSTROOM_BENCH_")

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
GIB: Final = 1024**3


class UnknownSettings(ValueError):
    """The environment names settings there are not: one is misspelt, and what was meant would not take effect."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"there is no such setting: {', '.join(names)}")
        self.names = names


class _Settings(BaseSettings):
    """The base: environment only, frozen, and a URL with a password never shows itself."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment; raises pydantic's `ValidationError` for what is missing or cannot be."""
        return cls()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings)


class ProgramSettings(_Settings):
    """What gateway and router have in common."""

    nats_url: Annotated[
        SecretStr, Field(description="The broker, as user `core`: nats://host,nats://host2?creds=FILE.")
    ]
    nats_sys_url: Annotated[
        SecretStr | None,
        Field(description="The broker as user `sys`: its durability is checked, lost monitors are known at once."),
    ] = None
    redis_url: Annotated[SecretStr, Field(description="Redis or Valkey, 7.0 or later.")]
    prefix: Annotated[
        str,
        Field(pattern=r"^[a-z0-9]{0,24}$", description="Sets this installation apart on a shared broker and Redis."),
    ] = ""
    ledger_max_bytes: Annotated[
        int, Field(ge=16 * 1024**2, description="How large the ledger may grow; full, it refuses and loses nothing.")
    ] = 8 * GIB
    directory_max_bytes: Annotated[int, Field(ge=1024**2, description="How large the directory may grow.")] = GIB
    events_max_bytes: Annotated[
        int, Field(ge=1024**2, description="How large the log of tenants' events may grow; full, it stands still.")
    ] = 2 * GIB
    replicas: Annotated[int, Field(ge=1, le=5, description="Copies of each stream in a cluster: 1, 3 or 5.")] = 1
    max_attempts_bg: Annotated[int, Field(ge=1, le=20, description="Attempts of a background execution.")] = 3
    outcome_deadline_s: Annotated[
        int, Field(ge=10, le=86_400, description="How long a live session may work after its claim.")
    ] = 900
    echo_timeout_s: Annotated[
        int, Field(ge=3, le=120, description="How long an echo may stay unanswered before sessions are unreachable.")
    ] = 10
    webhook_allow_loopback: Annotated[
        bool, Field(description="Let webhooks go to this machine, also without TLS. For development.")
    ] = False
    log_level: Annotated[LogLevel, Field(description="The least severe lines to log.")] = "info"


class GatewaySettings(ProgramSettings):
    """The front door."""

    http_host: Annotated[str, Field(description="The address to listen on.")] = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65_535, description="The port to listen on; 0 takes a free one.")] = 8080
    http_backlog: Annotated[int, Field(ge=1, description="Connections that may wait to be accepted.")] = 2048
    shutdown_grace_s: Annotated[int, Field(ge=0, description="How long requests may finish after SIGTERM.")] = 10
    bootstrap_admin_key_file: Annotated[
        Path | None,
        Field(description="A file for the first admin key: created with a fresh key when absent, read otherwise."),
    ] = None
    bootstrap_owner: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$", description="The owner the first admin key speaks for."
        ),
    ] = "local"
    peer_errors: Annotated[
        bool, Field(description="Answer errors as CueAPI's command line reads them, with an object as detail.")
    ] = False
    webhook_secret_readable: Annotated[
        bool, Field(description="Let owners read webhooks' secrets again, as CueAPI's clients do. Otherwise once.")
    ] = False
    nats_edge_signing_key: Annotated[
        Path | None,
        Field(description="The file `edge-signing.key` of the broker's identity: monitors' credentials come from it."),
    ] = None
    nats_edge_url: Annotated[
        str | None,
        Field(
            pattern=r"^(?:nats|tls)://[^\s?@]+$",
            description="The broker's address as monitors are told it: nats:// or tls://, and nothing secret in it.",
        ),
    ] = None
    monitor_jwt_s: Annotated[
        int, Field(ge=60, le=900, description="How long a monitor's credentials for the broker live.")
    ] = 600
    open_registration: Annotated[
        bool, Field(description="Let anybody who reaches the port register an owner and get a key.")
    ] = False
    oidc_issuer: Annotated[
        str | None, Field(min_length=1, description="The OpenID provider whose tokens count beside API keys; its URL.")
    ] = None
    oidc_audience: Annotated[
        str | None, Field(min_length=1, description="What a token's `aud` has to name: this installation.")
    ] = None
    oidc_jwks_url: Annotated[
        str | None, Field(description="The provider's key set. By default what its discovery document says.")
    ] = None
    oidc_owner_claim: Annotated[
        str, Field(min_length=1, description="The claim that names the owner a token speaks for.")
    ] = "postroom_owner"
    oidc_scope_claim: Annotated[
        str, Field(min_length=1, description="The claim with a token's scopes; a token without any may do nothing.")
    ] = "scope"
    oidc_leeway_s: Annotated[
        int, Field(ge=0, le=300, description="How far the provider's clock may differ from ours.")
    ] = 30
    echo_every_s: Annotated[
        int, Field(ge=5, le=600, description="How old an answered echo may be before a host's beat asks for another.")
    ] = 20
    guard_max_hops: Annotated[
        int, Field(ge=0, description="How many messages of agents, each answering the other, may lead to one; 0: any.")
    ] = 16
    guard_max_rounds: Annotated[
        int, Field(ge=0, le=5, description="How often the same agents may pass it on in the same order; 0: any.")
    ] = 3
    guard_pair_per_min: Annotated[
        int, Field(ge=0, le=1_000_000, description="Messages a minute from one agent to one other; 0: any.")
    ] = 60
    guard_thread_per_h: Annotated[
        int, Field(ge=0, le=1_000_000, description="Answers an hour in one thread; 0: any.")
    ] = 500
    guard_cool_down_s: Annotated[
        int, Field(ge=1, le=300, description="How long a used up pair or thread rests before one message tries it.")
    ] = 30
    guard_auto_replies: Annotated[bool, Field(description="Refuse automatic replies to automatic replies.")] = True
    rate_limits: Annotated[
        Literal["on", "off"], Field(description="Off: none of the rate limits holds, the guards do.")
    ] = "on"
    rate_limit_per_key_per_s: Annotated[
        float, Field(ge=0, le=1_000_000, description="Requests a second with one key; 0: any.")
    ] = 0
    rate_limit_per_agent_per_s: Annotated[
        float, Field(ge=0, le=1_000_000, description="Messages a second from one agent; 0: any.")
    ] = 0
    rate_limit_burst_s: Annotated[
        int, Field(ge=1, le=3_600, description="For how many seconds a rate may be saved up.")
    ] = 10
    rate_limit_failures_per_min: Annotated[
        int, Field(ge=0, description="Requests a minute without a valid key from one address; 0: any.")
    ] = 600
    rate_limit_lookups_per_min: Annotated[
        int, Field(ge=0, le=1_000_000, description="Times a minute a key may name an agent it cannot reach; 0: any.")
    ] = 600

    @model_validator(mode="after")
    def _provider_has_its_audience(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("POSTROOM_OIDC_ISSUER and POSTROOM_OIDC_AUDIENCE are set together")
        if self.oidc_jwks_url is not None and self.oidc_issuer is None:
            raise ValueError("POSTROOM_OIDC_JWKS_URL needs POSTROOM_OIDC_ISSUER")
        return self


class RouterSettings(ProgramSettings):
    """The sorting office."""

    http_host: Annotated[str, Field(description="The address for metrics and health.")] = "127.0.0.1"
    router_http_port: Annotated[int, Field(ge=0, le=65_535, description="The port for metrics and health.")] = 8081
    nats_edge_account: Annotated[
        str, Field(min_length=1, description="The broker's account monitors are in: its name, or its public key.")
    ] = "EDGE"
    nats_operator_signing_key: Annotated[
        Path | None,
        Field(description="The file `operator-signing.seed` of the broker's identity: it takes back credentials."),
    ] = None
    router_name: Annotated[
        str, Field(pattern=r"^[a-z0-9-]{0,40}$", description="Names this router in the ledger; empty: a fresh name.")
    ] = ""
    webhook_disable_after_days: Annotated[
        float, Field(gt=0, le=90, description="How long a webhook's receiver may take nothing before it is disabled.")
    ] = 5
    webhook_max_in_flight: Annotated[
        int, Field(ge=1, le=10_000, description="Webhooks this router has under way at once.")
    ] = 512
    webhook_max_in_flight_per_owner: Annotated[
        int, Field(ge=1, le=10_000, description="The same for the agents of one owner.")
    ] = 64
    webhook_max_in_flight_per_host: Annotated[int, Field(ge=1, le=32, description="The same to one host and port.")] = (
        32
    )
    redrive_max_per_s: Annotated[
        float, Field(ge=1, le=10_000, description="What all redrives this router works at have together.")
    ] = 200
    router_ready_file: Annotated[
        Path | None, Field(description="Written, with pid and port as JSON, once the ledger has been read to its end.")
    ] = None

    @model_validator(mode="after")
    def _what_is_signed_can_be_handed_in(self) -> Self:
        if self.nats_operator_signing_key is not None and self.nats_sys_url is None:
            raise ValueError("POSTROOM_NATS_OPERATOR_SIGNING_KEY needs POSTROOM_NATS_SYS_URL")
        return self


class Setting(NamedTuple):
    """One line of `postroom settings`."""

    name: str
    value: str
    default: str
    meaning: str


def refuse_unknown_names(environment: Mapping[str, str] = os.environ) -> None:
    """Raise `UnknownSettings` when the environment names a setting that no program of ours has."""
    known = OTHER_NAMES | {_name(field) for model in (GatewaySettings, RouterSettings) for field in model.model_fields}
    names = (name for name in environment if name.upper().startswith(ENV_PREFIX))
    unknown = [name for name in names if name.upper() not in known and not name.startswith(OTHER_PREFIXES)]
    if unknown:
        raise UnknownSettings(sorted(unknown))


def describe(model: type[BaseSettings], settings: BaseSettings | None = None) -> list[Setting]:
    """Every setting of a program: name, present value (empty without `settings`), default and meaning."""
    return [
        Setting(
            name=_name(name),
            value="" if settings is None else _shown(getattr(settings, name)),
            default="required" if field.is_required() else _shown(field.default),
            meaning=field.description or "",
        )
        for name, field in model.model_fields.items()
    ]


def _name(field: str) -> str:
    return f"{ENV_PREFIX}{field.upper()}"


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case _:
            return str(value)
