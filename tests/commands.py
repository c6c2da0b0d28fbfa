"""The commands as they are typed, in this process."""

from __future__ import annotations

import click
from click.testing import CliRunner, Result


def typed(command: click.Command, *arguments: object) -> Result:
    """Run `command`; what it did not turn into an exit code is raised."""
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(command: click.Command, *arguments: object) -> str:
    """Run `command`, which succeeds; what it said."""
    result = typed(command, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(command: click.Command, *arguments: object) -> str:
    """Run `command`, which ends in exit code 2 and one line of error: that line."""
    result = typed(command, *arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.output
    assert result.output.splitlines()[-1] == lines[0], "nothing follows the error"
    assert "Traceback" not in result.output
    return lines[0]
