"""Write the reference pages from the code: `python docs/generate.py`, or `--check` that nothing would change."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import click

from lakeward import hookspecs
from lakeward.cli import lakeward
from lakeward.cli.described import Described, describe, parts
from lakeward.config import Batching, Limits, PipelineFile, PluginRules, Spooling
from lakeward.plugins import load_plugins
from lakeward.units import PREFIXES, SYMBOLS, UNITS, WORDS
from lakeward_plugins.transforms.physics_validation.formulas import FORMULAS

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py; change the code, not this page. -->\n"


def main() -> None:
    """Write the pages, or compare them."""
    pages = {
        "components.md": components(),
        "commands.md": commands(),
        "hooks.md": hooks(),
        "pipeline-file.md": pipeline_file(),
        "formulas.md": formulas(),
        "units.md": units(),
    }
    stale = [name for name, text in pages.items() if not (REFERENCE / name).exists() or (REFERENCE / name).read_text() != text]
    if "--check" in sys.argv:
        if stale:
            sys.exit(f"out of date: {', '.join(stale)}; run python docs/generate.py")
        return
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages.items():
        (REFERENCE / name).write_text(text)


def components() -> str:
    """Every component that we keep, with its ports and options."""
    plugins = load_plugins()
    lines = [NOTE, "# Components\n"]
    for plugin, component in plugins.components():
        if plugin.distribution != "lakeward":
            continue
        cls = plugins.load(plugin, component)
        lines.append(f"## {component.kind} `{component.name}`\n\n{component.summary}\n")
        if component.extra:
            lines.append(f"Install it with `pip install '{component.extra}'`.\n")
        ports = getattr(cls, "ports", ("main",))
        if ports != ("main",):
            lines.append(f"Ports: {', '.join(f'`{port}`' for port in ports)}.\n")
        lines.append(inspect.cleandoc(cls.__doc__ or "") + "\n")
        lines.append(options(describe(cls)))
        if block := getattr(cls, "block", ""):
            lines.append(f"Also accepted inside a mapping `{block}:`, all or some of them.\n")
        for path, part in parts(cls):
            lines.append(f"`{path}`: {inspect.cleandoc(part.__doc__ or '')}\n\n{options(describe(part))}")
    return "\n".join(lines)


def options(described: list[Described]) -> str:
    """A table of options."""
    rows = ["| option | type | default | what it does |", "| --- | --- | --- | --- |"]
    for one in described:
        default = "required" if one.required else f"`{one.default}`" if one.default else "empty"
        unit = f", in {one.unit}" if one.unit else ""
        rows.append(f"| `{one.name}` | {one.type}{unit} | {default} | {one.help} |".replace("\n", " "))
    return "\n".join(rows) + "\n"


def pipeline_file() -> str:
    """The keys of the YAML file."""
    parts = [NOTE, "# The pipeline file\n", options(describe(PipelineFile))]
    for name, cls in (("batch", Batching), ("spool", Spooling), ("dead_letters", Limits), ("plugins", PluginRules)):
        parts += [f"## `{name}`\n", options(describe(cls))]
    parts.append(
        "Every component has `use` (its name, or `plugin/name`); transforms and sinks have `from` (`node`, `node.port` or a list of "
        "them; left out, the transform above). Every other key is an option of the component, see [components](components.md).\n"
    )
    return "\n".join(parts)


def commands() -> str:
    """The help of every command."""
    lines = [NOTE, "# Commands\n"]
    for path, command in walk("lakeward", lakeward):
        context = click.Context(command, info_name=path, terminal_width=100, **command.context_settings | {"max_content_width": 100})
        lines.append(f"## `{path}`\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(lines)


def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from walk(f"{path} {name}", child)


def hooks() -> str:
    """Every hook with its signature and docstring, and the values they get."""
    lines = [NOTE, "# Hooks\n"]
    for name, hook in vars(hookspecs).items():
        if name.startswith("lakeward_"):
            lines.append(f"## `{name}`\n\n```text\n{name}{inspect.signature(hook)}\n```\n\n{inspect.cleandoc(hook.__doc__ or '')}\n")
    for cls in (hookspecs.RunInfo, hookspecs.BatchInfo, hookspecs.RunResult):
        fields = ", ".join(f"`{field.name}`: {field.type}" for field in cls.__attrs_attrs__)
        lines.append(f"**{cls.__name__}**: {inspect.cleandoc(cls.__doc__ or '')} {fields}\n")
    return "\n".join(lines)


def formulas() -> str:
    """The functions of physics that an expression may name."""
    lines = [NOTE, "# Functions of physics\n", "| function | arguments | result | what it is |", "| --- | --- | --- | --- |"]
    for name, one in FORMULAS.items():
        arguments = ", ".join(f"{argument} ({unit})" for argument, unit in one.arguments.items())
        lines.append(f"| `{name}` | {arguments} | {one.unit} | {one.about} |")
    return "\n".join(lines) + "\n"


def units() -> str:
    """The units that are known without pint."""
    lines = [NOTE, "# Units\n"]
    lines.append(f"With a prefix ({', '.join(PREFIXES)}): {', '.join(f'`{name}`' for name in (*SYMBOLS.split(), *WORDS.split()))}.\n")
    lines += ["| spellings | in base units |", "| --- | --- |"]
    for spellings, scale, bases in UNITS:
        size = scale if len(scale) < 20 else f"{float(Fraction(scale)):.12g}"  # pi
        lines.append(f"| {', '.join(f'`{name}`' for name in spellings.split())} | {size} {bases} |".replace("  ", " "))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
