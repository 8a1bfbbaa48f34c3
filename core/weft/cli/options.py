"""Options that several commands share. Settings come from weft.config; an option on the line wins."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import click

from weft import config
from weft.cli import membership

F = TypeVar("F", bound=Callable[..., Any])
_FIELDS = {field.name: field for field in dataclasses.fields(config.Settings)}
_HINTS = get_type_hints(config.Settings)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs instead of text."
)
detach_option = click.option(
    "--detach", is_flag=True, help="Do not wait for the end; print the run's id."
)
_tokens_option = click.option(
    "--budget-tokens",
    type=click.IntRange(1),
    help="Tokens of models that the run may spend; by default as agents are set.",
)
_usd_option = click.option(
    "--budget-usd",
    type=click.FloatRange(0, min_open=True),
    help="US dollars that the run may spend on models; by default as agents are set.",
)
key_option = click.option(
    "--key",
    metavar="KEY",
    envvar="WEFT_GATEWAY_KEY",
    help="API key, where the gateway asks for one. [WEFT_GATEWAY_KEY]",
)


def budget_options(command: F) -> F:
    """What a run may spend: `budget_tokens` and `budget_usd`, None where nothing is said."""
    return _tokens_option(_usd_option(command))


def examples(*lines: str) -> str:
    """The end of a command's help: what one may type."""
    title = "Example" if len(lines) == 1 else "Examples"
    # A paragraph that begins with a backspace is not filled by click.
    return "\b\n" + "\n".join([f"{title}:", *(f"  {line}" for line in lines)])


def configured(*fields: str, **renamed: str) -> Callable[[F], F]:
    """Passes `settings` to a command, with options that override single fields of it.

    Args:
        fields: settings whose option is their name: "registry" -> --registry.
        renamed: option name -> setting: listen="registry_listen" -> --listen.
    """
    options = {field: field for field in fields} | renamed

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = {field: kwargs.pop(f"set_{field}") for field in options.values()}
            settings = config.load()
            overrides = {field: value for field, value in given.items() if value is not None}
            settings = dataclasses.replace(settings, **overrides)
            membership.remember(settings)
            return command(*args, settings=settings, **kwargs)

        for name, field in reversed(options.items()):
            call = _option(name, field)(call)
        return call  # type: ignore[return-value]  # the same command with fewer parameters

    return decorate


def _option(name: str, field: str) -> Callable[[F], F]:
    about = str(_FIELDS[field].metadata["doc"]).rstrip(".")
    kind, metavar = _kind(field)
    if field == "mtls":  # `--mtls` alone says what nearly all who say it mean
        return click.option(
            "--mtls",
            "set_mtls",
            type=kind,
            is_flag=False,
            flag_value="on",
            help=f"{about}. [WEFT_MTLS]",
        )
    return click.option(
        f"--{name.replace('_', '-')}",
        f"set_{field}",
        type=kind,
        metavar=metavar,
        help=f"{about}. [WEFT_{field.upper()}]",
    )


def _kind(field: str) -> tuple[click.ParamType[Any], str | None]:
    if _HINTS[field] is Path:
        return click.Path(path_type=Path, file_okay=False), "DIR"
    if choices := get_args(_HINTS[field]):
        return click.Choice(choices), None
    if field in {"mtls_certificate", "mtls_key", "mtls_ca"}:
        return click.STRING, "FILE"
    if field == "gateway" or field.endswith("_url"):
        return click.STRING, "URL"
    return click.STRING, "NAME" if field == "zone" else "ADDRESS"
