"""`weft ask`: a question to the support fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weft.cli import output
from weft.cli.options import configured, examples, json_option, key_option

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.support.v1 import support_pb2


@click.command(epilog=examples('weft ask "My top-up failed but the money left my bank" --watch'))
@click.argument("text")
@click.option("--conversation", default="", metavar="ID", help="Conversation to go on with.")
@click.option("--watch", is_flag=True, help="Show each step as it begins and ends.")
@click.option(
    "--timeout", default=30.0, show_default=True, metavar="SECONDS", help="How long it may take."
)
@key_option
@configured("gateway", "registry")
@json_option
def ask(
    *,
    settings: Settings,
    text: str,
    conversation: str,
    watch: bool,
    timeout: float,
    key: str | None,
    as_json: bool,
) -> None:
    """Ask the support fleet a question.

    Goes through the gateway, or straight to the supervisor when no gateway runs. With --json and
    --watch each step is a line of its own, the result the last.
    """
    from weft.cli import answer, question
    from weft.support.v1 import supervisor_pb2

    out = output.console()

    def seen(step: support_pb2.Step) -> None:
        if as_json:
            output.print_line({"step": output.as_json(step)})
        else:
            answer.follow(out, step)

    handled = question.ask(
        settings,
        supervisor_pb2.HandleRequest(text=text, conversation_id=conversation),
        key=key or "",
        timeout=timeout,
        seen=seen if watch else None,
    )
    if as_json and watch:
        output.print_line({"result": output.as_json(handled)})
    elif as_json:
        output.print_json(output.as_json(handled))
    else:
        if watch:
            out.print()
        answer.show(out, handled)
