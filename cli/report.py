"""What `up` tells while it works: a line per step, for people with colour and traces, for programs as JSON."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cli.failures import Failure
from cli.output import console, print_line

Facts = dict[str, Any]


class StepFailed(Failure):
    """A step did not hold; the report has told so already."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(f"{step}: {message}")
        self.step = step


class Report:
    """Prints each step as it ends. Steps may overlap."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._started = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[Facts]:
        """Run a step; what is put into the yielded facts is told with it. Failures become `StepFailed`."""
        started, facts = time.monotonic(), Facts()
        try:
            yield facts
        except StepFailed:
            raise
        except Exception as error:
            message = str(error) or type(error).__name__
            self._tell(name, False, time.monotonic() - started, facts | {"error": message})
            raise StepFailed(name, message) from error
        self._tell(name, True, time.monotonic() - started, facts)

    def died(self, failure: Failure) -> None:
        """Tell programs of an end that no step told of; people read it on standard error."""
        if self._as_json and not isinstance(failure, StepFailed):
            print_line({"step": "up", "ok": False, "elapsed_s": round(self.total_s(), 3), "error": failure.message})

    def total_s(self) -> float:
        return time.monotonic() - self._started

    def explain(self, view: Facts) -> None:
        """Print a message's trace as `postroom explain` does; programs read it in the step's facts."""
        if self._as_json:
            return
        from rich.padding import Padding

        from cli.explanation import message_lines

        screen = console()
        for line in message_lines(view):
            screen.print(Padding(line, (0, 0, 0, 4), expand=False))
        screen.print()

    def say(self, text: str) -> None:
        """A line for people."""
        if not self._as_json:
            print(text, flush=True)

    def _tell(self, name: str, ok: bool, elapsed_s: float, facts: Facts) -> None:
        if self._as_json:
            print_line({"step": name, "ok": ok, "elapsed_s": round(elapsed_s, 3), **facts})
            return
        from rich.text import Text

        mark = Text("✓ " if ok else "✗ ", "green" if ok else "red")
        title = str(facts.get("title") or name)
        console().print(
            mark.append(f"{title}", "bold" if "title" in facts else "").append(f"  {elapsed_s:.2f} s", "dim")
        )
