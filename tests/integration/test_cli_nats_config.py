"""`postroom nats-config`: an identity that a broker runs on, told without its secrets, and never replaced."""

import json
import subprocess
from pathlib import Path
from typing import Any

from cli.nats_config import FILES
from infra.binaries import nats_server_binary
from infra.clock import SystemClock
from infra.embedded import EmbeddedNats, default_nats_config
from infra.nats_connection import Broker
from infra.nats_identity import installation_identity, read_signer
from tests.cli_rig import ok, run


def told(folder: Path) -> Any:
    return ok(run("nats-config", "--out", str(folder), "--json"))


async def test_a_broker_runs_on_what_was_made_and_our_programs_are_let_in(tmp_path: Path) -> None:
    folder = tmp_path / "who + who" / "identity"
    found = told(folder)
    server = EmbeddedNats(data_dir=tmp_path / "data", identity_dir=folder)
    endpoint = await server.start()
    try:
        for name in ("POSTROOM_NATS_URL", "POSTROOM_NATS_SYS_URL"):
            url = found["programs_environment"][name].replace("tls://BROKER:4222", f"nats://127.0.0.1:{endpoint.port}")
            async with Broker.open(url, name="test") as broker:
                await broker.echo()
    finally:
        await server.stop()
    signer = read_signer(Path(found["programs_environment"]["POSTROOM_NATS_EDGE_SIGNING_KEY"]))
    assert signer.account == found["accounts"]["EDGE"]["public_key"]


def test_the_lines_for_a_server_are_valid_and_those_of_nats_conf(tmp_path: Path) -> None:
    lines = told(tmp_path / "identity")["server_config"]
    config = tmp_path / "server.conf"
    config.write_text(lines)
    checked = subprocess.run([nats_server_binary(), "-t", "-c", config], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    ours = {line.split("#")[0].strip() for line in default_nats_config().read_text().splitlines()}
    assert {line.strip() for line in lines.splitlines() if '"/' not in line} <= ours


def test_it_tells_of_what_is_there_and_replaces_nothing(tmp_path: Path) -> None:
    first, second = told(tmp_path / "identity"), told(tmp_path / "identity")
    assert (first.pop("made_now"), second.pop("made_now")) == (True, False)
    assert first == second


def test_no_secret_is_printed_and_every_file_has_its_line(tmp_path: Path) -> None:
    identity = installation_identity(tmp_path / "identity", SystemClock().now())
    shown = run("nats-config", "--out", str(identity.folder)).stdout + json.dumps(told(identity.folder))
    files = [path for path in identity.folder.rglob("*") if path.is_file()]
    for path in files:
        secrets = [word for word in path.read_text().split() if word.startswith("S") and len(word) == 58]
        assert bool(secrets) is (path.parent.name in {"keys", "creds"}), path
        assert not any(secret in shown for secret in secrets)
    patterns = [pattern for each in FILES for pattern in expanded(each.path)]
    explained = {path for pattern in patterns for path in identity.folder.glob(pattern)}
    assert {path for path in files if path not in explained} == set()


def expanded(path: str) -> list[str]:
    """The globs a line of the table stands for."""
    if path.endswith("/"):
        return [f"{path}*"]
    if "{" not in path:
        return [path]
    before, _, rest = path.partition("{")
    names, _, after = rest.partition("}")
    return [f"{before}{name}{after}" for name in names.split(",")]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    done = run("nats-config", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "is no broker identity" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
