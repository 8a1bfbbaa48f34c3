"""`weft xds-bootstrap`: what gRPC clients in other languages need to find agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from weft.config import Settings


@click.command(
    name="xds-bootstrap",
    epilog=examples(
        "export GRPC_XDS_BOOTSTRAP_CONFIG=$(weft xds-bootstrap)",
        "weft xds-bootstrap --registry 10.0.0.7:7070 --node billing > bootstrap.json",
    ),
)
@click.option(
    "--node", default="weft", show_default=True, help="What the client is called in the logs."
)
@configured("registry")
def xds_bootstrap(*, settings: Settings, node: str) -> None:
    """Print what makes gRPC clients of any language find agents as xds:///NAME.

    They read it from the environment variable GRPC_XDS_BOOTSTRAP_CONFIG, or from the file that
    GRPC_XDS_BOOTSTRAP names.
    """
    from weft.rpc.bootstrap import xds_bootstrap as document

    click.echo(document(settings.registry, node))
