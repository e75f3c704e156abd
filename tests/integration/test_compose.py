"""The deployment files: valid, alike for the embedded servers and for Compose, and without a password of ours."""

import os
import re
import subprocess
import sysconfig
from pathlib import Path

from infra.binaries import nats_server_binary
from infra.clock import SystemClock
from infra.embedded import nats_environment
from infra.nats_identity import installation_identity

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
NATS_CONF = (ROOT / "nats.conf").read_text()


def run(*argv: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_compose_file_follows_the_compose_specification() -> None:
    checker = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    run(checker, "--builtin-schema", "vendor.compose-spec", "docker-compose.yml", env=dict(os.environ))


def test_nats_conf_is_valid(tmp_path: Path) -> None:
    environment = nats_environment(
        identity=installation_identity(tmp_path / "an identity", SystemClock().now()),
        store_dir=tmp_path / "a path with blanks",
        max_file_store_bytes=2**30,
    )
    assert "is valid" in run(nats_server_binary(), "-t", "-c", "nats.conf", env=environment)


def test_compose_gives_the_broker_every_variable_it_reads() -> None:
    read = set(re.findall(r"\$(POSTROOM_\w+)", NATS_CONF))
    assert len(read) == 4
    assert read <= set(re.findall(r"^ {6}(POSTROOM_\w+):", COMPOSE, re.MULTILINE))


def test_every_password_is_required_from_outside() -> None:
    assert set(re.findall(r"\$\{POSTROOM_\w+_PASSWORD([^}]{2})", COMPOSE)) == {":?"}


def test_compose_mounts_files_of_an_identity_and_no_more_of_it_than_each_needs(tmp_path: Path) -> None:
    identity = installation_identity(tmp_path / "identity", SystemClock().now())
    mounted = {service: set(re.findall(r"\./(identity/\S+?)[,\s]", text)) for service, text in services().items()}
    creds = {"identity/creds/core.creds", "identity/creds/sys.creds"}
    assert mounted["nats"] == {"identity/broker"}
    assert mounted["router"] == creds
    assert mounted["gateway"] == creds | {"identity/keys/edge-signing.key"}
    for path in set.union(*mounted.values()):
        assert (identity.folder.parent / path).exists()


def services() -> dict[str, str]:
    """Each service's part of the file, with what its aliases stand for."""
    anchors = dict(re.findall(r"^x-[\w-]+: &([\w-]+)\n((?:  .*\n)+)", COMPOSE, re.MULTILINE))
    parts = re.findall(r"^  (\w+):\n((?:(?:    .*)?\n)+)", COMPOSE.partition("\nservices:\n")[2], re.MULTILINE)
    return {name: re.sub(r"\*([\w-]+)", lambda found: anchors[found[1]], text) for name, text in parts}


def test_the_brokers_monitoring_stays_on_loopback() -> None:
    assert re.findall(r"^http.*", NATS_CONF, re.MULTILINE)[0].startswith('http: "127.0.0.1:')
    assert "8222:8222" not in COMPOSE
