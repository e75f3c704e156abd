"""`postroom settings`: every setting there is, its value here, its default, its meaning."""

from cli.output import AsJson, print_json, print_table


def settings(as_json: AsJson = False) -> None:
    """Print the settings the programs read from the environment; secrets are not shown.

    Example: POSTROOM_LOG_LEVEL=debug postroom settings
    """
    from infra.settings import describe

    rows = describe()
    if as_json:
        print_json(rows)
    else:
        columns = ("name", "value", "default", "meaning")
        print_table(columns, ([row[column] for column in columns] for row in rows))
