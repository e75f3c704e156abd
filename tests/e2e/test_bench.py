"""The benchmark on a product of its own: what it measures is there, and nothing failed."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DONE_S = 240
MEASURED = (
    "fanout",
    "fanout_1",
    "redrive_with",
    "redrive_without",
    "webhook",
    "webhook_hung",
    "webhooks",
    "webhooks_bare",
    "webhooks_sent",
    *(f"{keys}_key_{n}" for keys in ("own", "same") for n in (8, 64)),
    *(f"poll_stored_{much}_{where}_{n}" for much in ("few", "many") for where in ("newest", "deep") for n in (1, 16)),
)


def test_fan_out_one_key_polls_over_much_a_redrive_and_webhooks_are_measured_without_a_failure(tmp_path: Path) -> None:
    wanted = ("fanout", "same_key", "own_key", "poll_stored", "redrive", "webhook")
    only = [word for name in wanted for word in ("--only", name)]
    sizes = ["--rounds", "1", "--duration-s", "0.2", "--stored", "2000", "--redriven", "60"]
    settings = [*sizes, "--out", str(tmp_path / "run.json")]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "bench", *settings, *only],
        env=bare | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=DONE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (results,) = json.loads((tmp_path / "run.json").read_text())["rounds"]
    assert sorted(results) == sorted(MEASURED)
    assert all(result["n"] and not result["failed"] for result in results.values())
    assert results["fanout"]["n"] == 100 * 2 * 10
