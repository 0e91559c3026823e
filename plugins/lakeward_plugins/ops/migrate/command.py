"""What the command line says. Everything else loads when the command runs, as each `lakeward --help` asks this module."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lakeward import hookimpl
from lakeward.cli.answer import answer

LAKEWARD_API = (1, 0)
SYSTEMS = ("databricks", "s3", "delta", "cosmos", "environmental")
EPILOG = """\b
Examples:
  lakeward migrate databricks-uploader-config.yaml -o pipeline.yaml
  lakeward migrate uploader-config.yaml --env-file .env -o pipeline.yaml     variables win over the file, as they did
  lakeward migrate .env -o pipeline.yaml                                     of variables alone
  lakeward migrate uploader-config.yaml                                      print it

\b
Then: lakeward check pipeline.yaml, lakeward doctor pipeline.yaml."""


@hookimpl
def lakeward_commands() -> list[click.Command]:
    """`lakeward migrate`."""
    return [migrate]


@click.command(short_help="Write an old uploader's configuration anew.", epilog=EPILOG)
@click.argument("old", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="OLD")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it there.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--env-file", "files", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True, help="Lines NAME=value.")
@click.option("--env", "process", is_flag=True, help="Look at the variables of this process as well.")
@click.option("--system", type=click.Choice(SYSTEMS), help="Which uploader it was of, when its keys do not say so.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written and what could not be carried over as JSON.")
def migrate(old: Path, output: Path | None, force: bool, files: tuple[Path, ...], process: bool, system: str | None, as_json: bool) -> None:
    """Read OLD, a configuration of one of five uploaders that came before, and write a pipeline that does the same.

    Secrets are never copied: they become ${env:NAME}. What cannot be carried over is named, with what to do instead.
    """
    from lakeward_plugins.ops.migrate.draft import written
    from lakeward_plugins.ops.migrate.old import read
    from lakeward_plugins.ops.migrate.systems import migrated

    if output and output.exists() and not force:
        raise click.BadParameter(f"{output} is there already; choose another name, or give --force", param_hint="-o")
    known = read(old, files, os.environ if process else {})
    draft = migrated(known, system)
    text = written(draft, old.name, str(output or "pipeline.yaml"))
    if output:
        output.write_text(text, encoding="utf-8")
    notes = [{"key": note.key, "why": note.why, "todo": note.todo} for note in draft.notes]
    if as_json:
        answer({"file": str(output) if output else None, "yaml": text, "system": draft.system, "notes": notes}, True, str)
        return
    if not output:
        click.echo(text, nl=False)
    for note in draft.notes:
        click.echo(f"{note.key}: {note.why}. {note.todo}", err=True)
    if output:
        click.echo(f"wrote {output}; {len(notes)} things to look at, which stand at its top too. Next: lakeward check {output}", err=True)
