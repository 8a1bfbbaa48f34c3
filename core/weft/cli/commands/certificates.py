"""`weft certificates`: the authority of one machine, and what it issues."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import failures, membership, output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from cryptography import x509

    from weft.config import Settings
    from weft.mtls import Authority, SpiffeId

_WRONG = "certificates"


@click.group(
    epilog=examples(
        "weft certificates init",
        "weft certificates issue --agent greeter --out ./greeter-certificates",
        "weft certificates show",
    )
)
def certificates() -> None:
    """Issue certificates for mTLS on one machine, and show them.

    The authority is in the data folder. `weft up --mtls` makes it, and its processes issue their own certificates: these
    commands are for others. Where many machines are, let cert-manager, SPIRE or Vault write certificates (docs/mtls.md).
    """


@certificates.command(epilog=examples("weft certificates init --trust-domain shop.example"))
@click.option(
    "--trust-domain",
    "trust_domain",
    metavar="NAME",
    help="Trust domain of all ids; by default weft.local. [WEFT_MTLS_TRUST_DOMAIN]",
)
@configured("data")
@json_option
def init(*, settings: Settings, trust_domain: str | None, as_json: bool) -> None:
    """Make the authority, if there is none."""
    from weft import config
    from weft.mtls import Authority

    wanted = trust_domain or settings.mtls_trust_domain or membership.DEFAULT_TRUST_DOMAIN
    with failures.settings_checked(_WRONG):
        made = Authority.made(config.authority_home(settings.data), wanted)
    _tell(made, as_json=as_json)


@certificates.command(
    epilog=examples(
        "weft certificates issue --agent greeter --out ./greeter",
        "weft certificates issue --part registry --name registry.example.org --out ./registry",
        "weft certificates issue --client ann --days 7 --out ./ann",
    )
)
@click.option(
    "--agent", "agents", multiple=True, metavar="AGENT", help="For this agent; may be repeated."
)
@click.option(
    "--part",
    type=click.Choice(["registry", "broker", "gateway", "edge"]),
    help="For this part.",
)
@click.option("--client", metavar="NAME", help="For a client that is no agent.")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST|IP",
    help="By which ordinary TLS clients reach it; may be repeated.",
)
@click.option(
    "--days", type=click.IntRange(1, 365), default=1, help="How long it lives; 1 by default."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder to write, or to replace the certificate in.",
)
@configured("data")
@json_option
def issue(
    *,
    settings: Settings,
    agents: tuple[str, ...],
    part: str | None,
    client: str | None,
    names: tuple[str, ...],
    days: int,
    out: Path,
    as_json: bool,
) -> None:
    """Issue a certificate, its key and the roots to believe, as files that a process can follow."""
    from weft import mtls

    if sum(map(bool, (agents, part, client))) != 1:
        raise click.UsageError("Say whom it is for: --agent, --part or --client.")
    authority = _authority(settings)
    with failures.settings_checked(_WRONG):
        who = _who(authority.trust_domain, agents, part, client)
        own = [mtls.part_name(authority.trust_domain, part)] if part else []
        leaf = authority.issue(who, names=[*own, *names], life=timedelta(days=days))
        try:
            files = mtls.replace(out.resolve(), leaf, authority.bundle.read_bytes())
        except OSError as failed:
            raise failures.Failure(f"{out} cannot be written: {failed.strerror}.") from failed
    settings_of = {
        "WEFT_MTLS_CERTIFICATE": str(files.certificate),
        "WEFT_MTLS_KEY": str(files.key),
        "WEFT_MTLS_CA": str(files.ca),
    }
    if as_json:
        output.print_json({"id": str(who), "settings": settings_of})
        return
    click.echo(f"{who}, for {days} day{'s' if days > 1 else ''}. Its process takes it by", err=True)
    for variable, value in settings_of.items():
        click.echo(f"{variable}={value}")


@certificates.command(epilog=examples("weft certificates show", "weft certificates show cert.pem"))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@configured("data")
@json_option
def show(*, settings: Settings, files: tuple[Path, ...], as_json: bool) -> None:
    """Show whose certificates are in files, and how long they live; without files, the roots that this mesh believes."""
    from cryptography import x509

    if not files:
        named = (settings.mtls_certificate, settings.mtls_ca)
        files = tuple(Path(name) for name in named if name) or (_authority(settings).bundle,)
    found = []
    for path in files:
        try:
            found += [(path, one) for one in x509.load_pem_x509_certificates(path.read_bytes())]
        except (OSError, ValueError) as failed:
            raise failures.Failure(f"{path}: no certificate can be read.") from failed
    rows = [_fields(path, one) for path, one in found]
    if as_json:
        output.print_json(rows)
        return
    output.print_table(
        ["ID", "NAMES", "EXPIRES", "LEFT", "FILE"],
        [
            [
                row["id"],
                " ".join(row["names"]),
                output.moment(one.not_valid_after_utc),
                _left(row["secondsLeft"]),
                row["file"],
            ]
            for row, (_, one) in zip(rows, found, strict=True)
        ],
        "There is no certificate.",
    )


@certificates.command(
    epilog=examples("weft certificates rotate", "weft certificates rotate --finish")
)
@click.option(
    "--finish",
    is_flag=True,
    help="Believe the former roots no more, once all certificates are new.",
)
@configured("data")
@json_option
def rotate(*, settings: Settings, finish: bool, as_json: bool) -> None:
    """Make a new root. The former is believed as well, until --finish, so that nothing that runs is cut off."""
    authority = _authority(settings)
    with failures.settings_checked(_WRONG):
        if finish:
            authority.forget()
        else:
            authority = authority.rotated()
    _tell(authority, as_json=as_json)


def _authority(settings: Settings) -> Authority:
    from weft import config
    from weft.mtls import Authority

    with failures.settings_checked(_WRONG):
        return Authority.load(config.authority_home(settings.data))


def _who(
    trust_domain: str, agents: tuple[str, ...], part: str | None, client: str | None
) -> SpiffeId:
    from weft import mtls

    if agents:
        return mtls.agents_id(trust_domain, agents)
    if part:
        return mtls.part_id(trust_domain, part)
    return mtls.client_id(trust_domain, client or "")


def _tell(authority: Authority, *, as_json: bool) -> None:
    believed = authority.believed()
    facts = {
        "trustDomain": authority.trust_domain,
        "bundle": str(authority.bundle),
        "expires": authority.root.not_valid_after_utc.isoformat(),
        "roots": len(believed),
    }
    if as_json:
        output.print_json(facts)
        return
    click.echo(
        f"trust domain {authority.trust_domain}, {len(believed)} root{'s' if len(believed) > 1 else ''} "
        f"in {authority.bundle}"
    )


def _fields(path: Path, certificate: x509.Certificate) -> dict[str, Any]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return {
        "id": " ".join(uris),
        "names": [
            *names.get_values_for_type(x509.DNSName),
            *map(str, names.get_values_for_type(x509.IPAddress)),
        ],
        "expires": certificate.not_valid_after_utc.isoformat(),
        "secondsLeft": int((certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds()),
        "file": str(path),
    }


def _left(seconds: int) -> str:
    if seconds <= 0:
        return "expired"
    return str(timedelta(seconds=seconds)).rpartition(":")[0]
