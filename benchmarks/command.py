"""How every benchmark ends: with its own exit code, or with one line of what to mend."""

from __future__ import annotations

from collections.abc import Sequence

import click

from runtime.errors import UserError

USER_ERROR = 2
STOPPED = 130


def exit_code_of(
    command: click.Command,
    arguments: Sequence[str] | None,
    stopped: str,
    mendable: tuple[type[Exception], ...] = (UserError,),
) -> int:
    """Run `command`; one line on stderr for whatever its user can mend.

    Args:
        command: returns its exit code, or None for 0.
        arguments: as typed; None: those of this process.
        stopped: what is said after Ctrl-C.
        mendable: whose text is such a line.
    """
    try:
        code = command.main(arguments, standalone_mode=False)
    except click.exceptions.Abort:
        click.echo(stopped, err=True)
        return STOPPED
    except click.ClickException as error:
        told = error.format_message()
    except mendable as error:
        told = str(error)
    else:
        return int(code or 0)
    click.echo("error: " + " ".join(told.split()), err=True)
    return USER_ERROR
