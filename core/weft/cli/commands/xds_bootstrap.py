"""`weft xds-bootstrap`: what gRPC clients in other languages need to find agents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from weft.cli import failures
from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.mtls import Credentials


@click.command(
    name="xds-bootstrap",
    epilog=examples(
        "export GRPC_XDS_BOOTSTRAP_CONFIG=$(weft xds-bootstrap)",
        "weft xds-bootstrap --registry 10.0.0.7:7070 --node billing > bootstrap.json",
        "weft certificates issue --client ann --out ./ann && weft xds-bootstrap --certificates ./ann",
    ),
)
@click.option(
    "--node", default="weft", show_default=True, help="What the client is called in the logs."
)
@click.option(
    "--certificates",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="What the client shows in a mesh with mTLS: a folder of `weft certificates issue`. "
    "By default what WEFT_MTLS_CERTIFICATE, _KEY and _CA name.",
)
@configured("registry")
def xds_bootstrap(*, settings: Settings, node: str, certificates: Path | None) -> None:
    """Print what makes gRPC clients of any language find agents as xds:///NAME.

    They read it from the environment variable GRPC_XDS_BOOTSTRAP_CONFIG, or from the file that
    GRPC_XDS_BOOTSTRAP names.
    """
    from weft.rpc.bootstrap import xds_bootstrap as document

    click.echo(document(settings.registry, node, mtls=_shown(settings, certificates)))


def _shown(settings: Settings, folder: Path | None) -> Credentials | None:
    """What the client shows; None: there is no mTLS. Its files must outlive this command."""
    from weft import config

    with failures.settings_checked("WEFT_MTLS_*"):
        means = config.membership(settings)
    if folder is None and means is None:
        return None
    if folder is None and means is not None and means.files is None:
        raise failures.Failure(
            "This mesh has mTLS, and the client needs files to show: `weft certificates issue --client NAME --out FOLDER`, "
            "then `weft xds-bootstrap --certificates FOLDER`."
        )
    from weft import mtls

    if folder is not None:
        files = mtls.files_of(folder.absolute())
    else:
        assert means is not None
        assert means.files is not None
        certificate, key, ca = (path.absolute() for path in means.files)
        files = mtls.Files(certificate=certificate, key=key, ca=ca)
    with failures.settings_checked("WEFT_MTLS_*"):
        return mtls.Credentials(files)
