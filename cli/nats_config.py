"""`postroom nats-config`: who is who at a broker of one's own: keys, accounts, creds files, and where each belongs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from cli.failures import Failure
from cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from infra.nats_identity import NatsIdentity


class IdentityFile(NamedTuple):
    """One file of an identity, and its reader."""

    path: str
    who: str
    what_for: str


FILES: Final = (
    IdentityFile("broker/operator.jwt", "every server", "whom the servers trust; not secret"),
    IdentityFile("broker/jwt/", "every server, to write", "accounts, limits, revocations; not secret"),
    IdentityFile("creds/core.creds", "gateways, routers, whoever audits", "everything in the ledger"),
    IdentityFile("creds/sys.creds", "gateways, routers", "whether the broker keeps what it acknowledges"),
    IdentityFile("creds/edge.creds", "developers", "hears all pushes, without content; beats"),
    IdentityFile("keys/edge-signing.key", "gateways", "signs monitors' credentials"),
    IdentityFile("keys/operator-signing.seed", "routers, by choice", "signs accounts and their revocations"),
    IdentityFile("keys/{core,sys}-signing.key", "nobody that runs", "make users of CORE and SYS; keep them offline"),
    IdentityFile("keys/operator.seed", "nobody that runs", "makes a new operator-signing key; keep it offline"),
    IdentityFile("keys/{core,edge,sys}.seed", "nobody that runs", "the accounts' own keys; keep them offline"),
)
BROKER: Final = "tls://BROKER:4222"
Out = Annotated[Path, typer.Option("--out", help="The folder to make, or to tell of when it is there.")]


def nats_config(out: Out = Path("identity"), as_json: AsJson = False) -> None:
    """Make what a broker in operator mode needs, or tell of what was made. Replaces nothing and prints no secret.

    Example: postroom nats-config --out /etc/postroom/identity
    """
    from infra.clock import SystemClock
    from infra.nats_identity import installation_identity
    from infra.nats_jwt import BadCredential

    is_new = not (out / "broker").exists()
    try:
        identity = installation_identity(out, SystemClock().now())
        told = _told(identity, is_new=is_new)
    except (BadCredential, OSError) as error:
        raise Failure(str(error)) from None
    print_json(told) if as_json else _print(told)


def _told(identity: "NatsIdentity", *, is_new: bool) -> dict[str, Any]:
    from infra.broker_url import broker_url
    from infra.nats_identity import CORE, EDGE, SYS

    return {
        "folder": str(identity.folder),
        "made_now": is_new,
        "operator": identity.key("operator").public,
        "operator_jwt": identity.operator_jwt_path.read_text(),
        "accounts": {
            name: {"public_key": keys.public, "jwt_file": str(identity.jwt_dir / f"{keys.public}.jwt")}
            for name, keys in identity.accounts.items()
        },
        "files": [each._asdict() for each in FILES],
        "server_config": _server_config(identity),
        "broker_environment": {
            "POSTROOM_NATS_OPERATOR": str(identity.operator_jwt_path),
            "POSTROOM_NATS_JWT_DIR": str(identity.jwt_dir),
        },
        "programs_environment": {
            "POSTROOM_NATS_URL": broker_url(BROKER, creds=identity.creds_path(CORE)),
            "POSTROOM_NATS_SYS_URL": broker_url(BROKER, creds=identity.creds_path(SYS)),
            "POSTROOM_NATS_EDGE_SIGNING_KEY": str(identity.signer_path(EDGE)),
        },
    }


def _server_config(identity: "NatsIdentity") -> str:
    """The part of a server's configuration that says who is who; nats.conf holds all the rest."""
    return f"""\
operator: "{identity.operator_jwt_path}"
resolver {{
  type: full
  dir: "{identity.jwt_dir}"
  allow_delete: false
  interval: "2m"
  timeout: "1s"
  limit: 100
}}
"""


def _print(told: dict[str, Any]) -> None:
    print(f"{told['folder']}: {'made now' if told['made_now'] else 'as it was'}; operator {told['operator']}\n")
    print_table(("file", "who may have it", "what for"), [each.values() for each in told["files"]])
    print()
    print_table(("account", "public key"), [(name, each["public_key"]) for name, each in told["accounts"].items()])
    print("\nEvery server gets a copy of `broker`, and in its configuration (nats.conf has it already, and reads")
    print(f"{' and '.join(told['broker_environment'])}):\n")
    print(_indented(told["server_config"]))
    print("Gateways and routers (routers without the last; `&tls_ca=FILE` when the authority is your own):\n")
    print(_indented("".join(f"{name}={value}\n" for name, value in told["programs_environment"].items())))


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
