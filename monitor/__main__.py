"""`python -m monitor --config FILE`: the daemon as a program. The only file of this room that knows the world."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import anyio
import psutil
import structlog

from contracts.errors import Conflict
from contracts.heartbeats import connection_name
from infra.broker_url import BadBrokerUrl, BrokerUrl
from infra.clock import SystemClock, SystemIds
from infra.edge import EdgeFeed
from infra.edge_link import EdgeLink
from infra.files import private_folder, write_document
from infra.gateway_client import GatewayClient
from infra.logs import configure_logs
from infra.spawn import LocalPrograms
from infra.spool import JournalFolder, SpoolFolder
from monitor.configuration import Configuration, ConfigurationError, load
from monitor.daemon import Daemon
from monitor.ports import PushFeed
from monitor.renewed_pushes import RenewedPushes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; 0 then, 2 when the configuration cannot be used."""
    options = _parser().parse_args(arguments)
    configure_logs("info")
    try:
        configuration = load(options.config)
        anyio.run(run, configuration, options.ready_file)
    except (ConfigurationError, Conflict) as error:
        sys.stderr.write(f"monitor: {error}\n")
        return 2
    return 0


async def run(configuration: Configuration, ready_file: Path | None) -> None:
    """Serve until a signal stops us."""
    failure: ConfigurationError | Conflict | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
        try:
            await _serve(configuration, ready_file)
        except (ConfigurationError, Conflict) as error:
            # Out of the group as it is, and not wrapped in an exception group.
            failure = error
        tasks.cancel_scope.cancel()
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    if failure is not None:
        raise failure


async def _serve(configuration: Configuration, ready_file: Path | None) -> None:
    _require_usable(configuration.broker)
    state_dir = configuration.state_dir
    private_folder(state_dir)
    programs = LocalPrograms(state_dir / "work")
    async with GatewayClient.open(configuration.gateway_url, configuration.api_key, version=_version()) as gateway:
        daemon = Daemon(
            configuration,
            gateway=gateway,
            pushes=pushes(gateway, configuration.monitor_id, configuration.broker),
            programs=programs,
            spool=SpoolFolder(state_dir),
            journal=JournalFolder(state_dir),
            clock=SystemClock(),
            ids=SystemIds(),
            base_env=os.environ,
            booted_at=datetime.fromtimestamp(psutil.boot_time(), UTC),
            ready=lambda: _say_ready(ready_file),
        )
        await daemon.run()


def pushes(gateway: GatewayClient, monitor_id: str, nats_url: str | None) -> PushFeed:
    """What the broker pushes: to whom its URL says that we are, else with credentials that the gateway gives us."""
    name = connection_name(monitor_id)
    if nats_url is not None and BrokerUrl.parse(nats_url).says_who:
        return EdgeFeed(nats_url, name=name)
    return RenewedPushes(
        monitor_id=monitor_id,
        nats_url=nats_url,
        gateway=gateway,
        new_link=lambda: EdgeLink(name),
        without_credentials=lambda url: EdgeFeed(url, name=name),
    )


def _require_usable(nats_url: str | None) -> None:
    """Raise `ConfigurationError` for a URL, creds or TLS files that cannot be: waiting would not mend them."""
    if nats_url is None:
        return
    try:
        address = BrokerUrl.parse(nats_url)
        address.creds()
        address.tls()
    except BadBrokerUrl as error:
        raise ConfigurationError(f"nats_url: {error}") from None


def _say_ready(ready_file: Path | None) -> None:
    if ready_file is not None:
        write_document(ready_file, {"pid": os.getpid()})


async def _stop_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            structlog.get_logger().info("monitor_stopping", signal=signal.Signals(number).name)
            scope.cancel()
            return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="monitor", description="Serve the agents of this host.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration, TOML")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="written once everything is served")
    return parser


def _version() -> str | None:
    try:
        return version("postroom")
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
