"""`postroom cues` against a running server: a cue is made, listed, fired, shown and deleted."""

from tests.cli_rig import Postroom, ok


def test_a_cue_is_made_listed_fired_and_deleted(postroom: Postroom, agent: str) -> None:
    schedule = ["--cron", "0 9 29 2 *", "--timezone", "Europe/Berlin"]
    made = ok(postroom("cues", "create", agent, "--to", agent, *schedule, "-m", "Write the report", "--json"))
    assert made["next_run"].endswith("-02-29T08:00:00.000Z")
    assert made["id"] in [each["id"] for each in ok(postroom("cues", "list", "--status", "active", "--json"))["cues"]]
    assert "0 9 29 2 * Europe/Berlin" in postroom("cues", "list").stdout

    fired = ok(postroom("cues", "fire", made["id"], "--payload", '{"month": 3}', "--json"))
    [taken] = ok(postroom("inbox", agent, "--wait-s", "5", "--ack", "--json"))["messages"]
    assert (taken["execution_id"], taken["message"]) == (fired["execution_id"], "Write the report")
    assert fired["execution_id"] in postroom("cues", "show", made["id"]).stdout

    assert postroom("cues", "delete", made["id"]).returncode == 0
    gone = postroom("cues", "show", made["id"])
    assert gone.returncode == 1
    assert "cue_not_found: " in gone.stderr
    assert made["id"] not in [each["id"] for each in ok(postroom("cues", "list", "--json"))["cues"]]


def test_what_is_no_cue_is_refused_with_its_reason(postroom: Postroom, agent: str) -> None:
    misspelt = postroom("cues", "create", agent, "--to", agent, "--cron", "61 * * * *", "-m", "x")
    assert (misspelt.returncode, "invalid_schedule: " in misspelt.stderr) == (1, True)
    assert postroom("cues", "create", agent, "--to", agent, "--payload", "[]").returncode == 2
