"""The command `postroom`: every command by name. Each imports what it needs when it is called."""

import sys

import typer

from cli import accounts, agents, cues, dead_letters, keys, redrives, webhooks
from cli.attach import attach
from cli.audit import audit
from cli.checks import PASS_THROUGH, lint, test
from cli.doctor import doctor
from cli.explain import explain
from cli.failures import Failure
from cli.inbox import inbox, listen
from cli.monitor import monitor
from cli.nats_config import nats_config
from cli.presence import presence
from cli.route import route
from cli.send import send
from cli.settings import settings
from cli.smoke import smoke
from cli.tail import tail
from cli.up import up

RUN = "Run"
MESSAGES = "Messages"
AGENTS = "Agents and keys"
LOOK = "Look"
WORK = "Work on postroom"

app = typer.Typer(
    name="postroom",
    help="Delivery for AI agents: one address, four ways to be reached, and a record of which way was taken and why."
    "\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server answers, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel=RUN)(up)
app.command(rich_help_panel=RUN)(monitor)
app.command(rich_help_panel=RUN)(settings)
app.command("nats-config", rich_help_panel=RUN)(nats_config)
app.command(rich_help_panel=MESSAGES)(send)
app.command(rich_help_panel=MESSAGES)(route)
app.command(rich_help_panel=MESSAGES)(inbox)
app.command(rich_help_panel=MESSAGES)(listen)
app.command(rich_help_panel=MESSAGES)(attach)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=MESSAGES)
app.command(rich_help_panel=MESSAGES)(dead_letters.redrive)
app.add_typer(redrives.app, name="redrives", rich_help_panel=MESSAGES)
app.add_typer(agents.app, name="agents", rich_help_panel=AGENTS)
app.add_typer(accounts.app, name="accounts", rich_help_panel=AGENTS)
app.add_typer(cues.app, name="cues", rich_help_panel=AGENTS)
app.add_typer(keys.app, name="keys", rich_help_panel=AGENTS)
app.add_typer(webhooks.app, name="webhook", rich_help_panel=AGENTS)
app.command(rich_help_panel=LOOK)(explain)
app.command(rich_help_panel=LOOK)(presence)
app.command(rich_help_panel=LOOK)(tail)
app.command(rich_help_panel=LOOK)(smoke)
app.command(rich_help_panel=LOOK)(doctor)
app.command(rich_help_panel=LOOK)(audit)
app.command(rich_help_panel=WORK, context_settings=PASS_THROUGH)(test)
app.command(rich_help_panel=WORK)(lint)


@app.command(rich_help_panel=WORK, context_settings=PASS_THROUGH | {"help_option_names": []})
def bench(context: typer.Context) -> None:
    """Measure the product against the floors beneath it; see `postroom bench --help`."""
    from cli.bench import main as measure

    measure(context.args)


def main() -> None:
    """Run one command; failures become one line on standard error and an exit code that tells the truth."""
    try:
        app(prog_name="postroom")
    except Failure as failure:
        print(f"postroom: {failure.message}", file=sys.stderr)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
