"""What a person is told when a command fails: what is wrong, and what to do about it."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from weft import rpc


class Failure(click.ClickException):
    """The command cannot do what it was asked; exit status 1."""


class WrongSetting(click.ClickException):
    """A setting or an argument cannot be used; exit status 2."""

    exit_code = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint like "Did you mean X?", a space before it, when something known is like `name`."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


@contextlib.contextmanager
def settings_checked(names: str) -> Iterator[None]:
    """Turns a part's refusal of a value into one of the settings it came from."""
    try:
        yield
    except ValueError as failed:
        raise WrongSetting(f"{names}: {failed}.") from failed


def explain(failed: BaseException) -> click.ClickException | None:
    """What to tell of an exception that left a command; None: it is a bug and deserves its traceback."""
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    if isinstance(failed, click.ClickException):
        return failed
    # Only parts that were imported can have raised; looking for others would import them all.
    loaded = sys.modules
    if "weft.config" in loaded and isinstance(failed, loaded["weft.config"].SettingError):
        return WrongSetting(str(failed))
    if "weft.embedded" in loaded and isinstance(failed, loaded["weft.embedded"].Error):
        return Failure(str(failed))
    if "weft.rpc" in loaded:
        return _explain_call(failed)
    return None


def _explain_call(failed: BaseException) -> click.ClickException | None:
    import grpc

    from weft import rpc

    if isinstance(failed, rpc.AddressInUseError):
        return Failure(str(failed))
    if isinstance(failed, grpc.aio.AioRpcError):
        failed = rpc.error_from_call(failed)
    return of_error(failed) if isinstance(failed, rpc.Error) else None


def of_error(error: rpc.Error) -> click.ClickException:
    """A failed call in words."""
    from weft import rpc

    lines = [f"{error.code.name}: {error.message}"]
    if isinstance(error, rpc.InvalidArgument) and error.violations:
        lines = [f"{error.code.name}:", *(f"  {path}: {text}" for path, text in error.violations)]
    retry = getattr(error, "retry_after", None)
    if retry:
        lines.append(f"  Try again in {retry.total_seconds():g} s.")
    if isinstance(error, rpc.Unauthenticated):
        lines.append("  Make a key with `weft keys create NAME` and pass it with --key.")
    return Failure("\n".join(lines))
