"""`weft new agent`: a folder with a working agent and its test."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import resources, util
from pathlib import Path
from string import Template

import click

from weft.cli import failures, output
from weft.cli.options import examples, json_option

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MOST = 63  # characters of an agent's name (weft.v1.AgentOptions)
_SUFFIX = ".tmpl"


@click.group(epilog=examples("weft new agent greeter"))
def new() -> None:
    """Make an agent of your own."""


@new.command(
    epilog=examples(
        "weft new agent greeter",
        "weft new agent card-limits --dir agents",
    )
)
@click.argument("name")
@click.option(
    "--dir",
    "parent",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to make the folder; by default here.",
)
@json_option
def agent(*, name: str, parent: Path, as_json: bool) -> None:
    """Make a folder with a contract, an agent, its test and a README."""
    if not _NAME.fullmatch(name) or len(name) > _MOST:
        raise click.UsageError(
            f"{name!r} cannot be an agent's name: lower-case letters, digits and single hyphens, "
            f"starting with a letter, at most {_MOST} characters."
        )
    folder = parent / name
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise failures.Failure(
            f"{folder} is there already; choose another name or --dir."
        ) from None
    except OSError as failed:
        raise failures.Failure(f"{folder} cannot be made: {failed.strerror}.") from failed
    _write(folder, name)
    generated = _generate(folder)
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    if as_json:
        output.print_json({"folder": str(folder), "files": files, "generated": generated})
        return
    click.echo(f"Made {folder}: {', '.join(files)}")
    steps = [f"cd {folder}", "pytest", "python agent.py"]
    if not generated:
        click.echo("The code of the contract is not made yet, since grpcio-tools is not installed.")
        steps[1:1] = ["pip install grpcio-tools", "python gen.py"]
    click.echo("Next: " + "; ".join(steps))


def _write(folder: Path, name: str) -> None:
    module = name.replace("-", "_")
    words = {
        "name": name,
        "module": module,
        "class_name": "".join(part.capitalize() for part in name.split("-")),
    }
    templates = resources.files("weft.cli") / "templates" / "agent"
    for template in templates.iterdir():
        if template.name.endswith(_SUFFIX):
            text = Template(template.read_text()).substitute(words)
            target = template.name.removesuffix(_SUFFIX).replace("NAME", module)
            (folder / target).write_text(text)


def _generate(folder: Path) -> bool:
    """Makes the contract's code; whether it could."""
    if util.find_spec("grpc_tools") is None:
        return False
    done = subprocess.run(
        [sys.executable, "gen.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise failures.Failure(f"gen.py failed in {folder}:\n{done.stderr.strip()}")
    return True
