"""The command line: one file a command. Results go to standard output, logs and progress to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import click

from lakeward.errors import ConfigError, LakewardError, StateInUse
from lakeward.secrets import redact

COMMANDS = (
    "run", "check", "explain", "ddl", "doctor", "status", "health", "query", "dead-letters", "verify", "position", "backfill", "plugins",
    "schema", "completion",
)  # fmt: skip
FRUGAL = {  # read by libraries when they are loaded; docs/decisions.md has the figures
    "OPENBLAS_NUM_THREADS": "1",  # numpy's threads, which nothing here uses, spin before they sleep
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # gives back what a batch took; the default keeps it
}
EPILOG = """\b
Examples:
  lakeward check pipeline.yaml            find every mistake, read nothing
  lakeward run pipeline.yaml --once       move what is there, then end
  lakeward run pipeline.yaml              go on until told to stop
  lakeward status pipeline.yaml           what was read, delivered, refused
  lakeward health pipeline.yaml           does it work now?

\b
Exit codes: 0 done, 1 the run failed, 2 the configuration or command line is wrong,
3 another instance holds the state, 130 after Ctrl-C,
143 after SIGTERM, 70 a bug of ours."""


class CommandGroup(click.Group):
    """Our commands by name; those of plugins are looked for only when needed, so that start-up stays short."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours in the order one needs them, then those of plugins."""
        return [*COMMANDS, *sorted(self._from_plugins().keys() - set(COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one of ours, or ask the plugins."""
        if cmd_name in COMMANDS:
            command: click.Command = import_module(f"lakeward.cli.{cmd_name.replace('-', '_')}").command
            return command
        return self._from_plugins().get(cmd_name)

    def _from_plugins(self) -> dict[str, click.Command]:
        if not self.commands:
            from lakeward.plugins import load_plugins

            for plugin in load_plugins().found:
                self.commands.update({command.name: command for command in plugin.commands if command.name})
        return dict(self.commands)


@click.group(cls=CommandGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="lakeward")
def lakeward() -> None:
    """Move what sensors write into SQLite to the lake. No row is lost, none takes effect twice."""


def main() -> None:
    """Entry point: run a command, turn what went wrong into one line and an exit code."""
    for name, value in FRUGAL.items():
        os.environ.setdefault(name, value)
    with _clean_exit():
        sys.exit(lakeward.main(standalone_mode=False) or 0)


@contextmanager
def _clean_exit() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        problems = sorted(set(error.problems), key=lambda one: (one.place.file, one.place.line, one.place.column, one.path))
        _fail(2, *(str(problem) for problem in problems), f"{len(problems)} problems found" if len(problems) > 1 else "")
    except StateInUse as error:
        _fail(3, str(error))
    except LakewardError as error:
        _fail(1, f"lakeward: {error}")
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has left; nothing to complain about
        sys.exit(1)
    except OSError as error:  # a full disk, a folder without permission
        _fail(1, f"lakeward: {error.filename or 'the system'}: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001  # a bug of ours: one line for the person, the rest for us
        from lakeward.cli.blame import bug_report  # what it needs would only slow down the start

        _fail(70, *bug_report(error))


def _fail(code: int, *lines: str) -> None:
    for line in filter(None, lines):
        click.echo(redact(line), err=True)
    sys.exit(code)
