"""`postroom doctor`: what works here, what does not, and what to do about it."""

import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from cli.api import Api, ApiKey, Url, connect
from cli.failures import Failure, Unreachable
from cli.output import AsJson, print_json
from cli.places import default_data_dir, read_run

ASK_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    detail: str


def doctor(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Check this installation and the server the other commands would talk to.

    Example: postroom doctor --json
    """
    found = [*_here(), *_there(url, api_key)]
    if as_json:
        print_json([{"what": each.what, "ok": each.ok, "detail": each.detail} for each in found])
    else:
        for each in found:
            print(f"{'✓' if each.ok else '✗'} {each.what:<14} {each.detail}")
    failed = {each.what for each in found if not each.ok}
    if failed:
        raise typer.Exit(Unreachable.exit_code if "gateway" in failed else Failure.exit_code)


def _here() -> Iterator[Finding]:
    ours = sys.version_info >= (3, 11)
    yield Finding(what="python", ok=ours, detail=f"{platform.python_version()}{'' if ours else '; 3.11 is needed'}")
    for package in ("nats-py", "redis", "fastapi"):
        yield _package(package)
    from infra.binaries import nats_server_binary, redis_server_binary

    yield _program("nats-server", nats_server_binary)
    yield _program("valkey-server", redis_server_binary)
    run = read_run()
    note = f"`postroom up` runs as {run.pid} on {run.url}" if run else f"no `postroom up` runs on {default_data_dir()}"
    yield Finding(what="embedded", ok=True, detail=note)


def _package(name: str) -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Finding(what=name, ok=True, detail=version(name))
    except PackageNotFoundError:
        return Finding(what=name, ok=False, detail="not installed")


def _program(name: str, find: Callable[[Path | None], Path]) -> Finding:
    from infra.embedded_errors import EmbeddedError

    try:
        done = subprocess.run([find(None), "--version"], capture_output=True, timeout=ASK_TIMEOUT_S, check=True)
    except (EmbeddedError, OSError, subprocess.SubprocessError) as error:
        return Finding(what=name, ok=False, detail=str(error))
    return Finding(what=name, ok=True, detail=done.stdout.decode(errors="replace").strip())


def _there(url: str | None, api_key: str | None) -> Iterator[Finding]:
    try:
        with connect(url, api_key) as api:
            yield _asked("gateway", lambda: (api.get("/healthz"), api.url)[1])
            yield _asked("ready", lambda: (api.get("/readyz"), "broker and store answer")[1])
            yield _asked("key", lambda: _who(api))
    except Unreachable as unreachable:
        yield Finding(what="gateway", ok=False, detail=unreachable.message)


def _asked(what: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, ok=True, detail=ask())
    except Failure as failure:
        return Finding(what=what, ok=False, detail=failure.message)


def _who(api: Api) -> str:
    who = api.get("/v1/auth/me")
    return f"{who['key_id']} of owner {who['owner']}{', admin' if who['admin'] else ''}"
