"""The authority of one machine, SPIFFE ids, and files that a process follows."""

from __future__ import annotations

import logging
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from tests.certificates import TRUST_DOMAIN, Certificates

from weft import mtls
from weft.rpc.testing import wait_until


def verified(leaf: mtls.Leaf, *roots: x509.Certificate, at: datetime | None = None) -> list[str]:
    """The names in a certificate, if it may be shown by a client that believes the roots."""
    builder = PolicyBuilder().store(Store(roots)).time(at or datetime.now(UTC))
    found = builder.build_client_verifier().verify(
        x509.load_pem_x509_certificate(leaf.certificate), []
    )
    return [str(name.value) for name in found.subjects or ()]


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://weft.local/agent/greeter",
        "spiffe://example.org/ns/shop/sa/triage",
        "spiffe://a_b-c.d/x.y/Z_9",
    ],
)
def test_ids_are_read_and_written(text: str) -> None:
    assert str(mtls.SpiffeId.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://weft.local",
        "spiffe://weft.local/",
        "spiffe://weft.local/agent/",
        "spiffe://weft.local/agent//x",
        "spiffe://weft.local/agent/../part",
        "spiffe://weft.local/./agent",
        "spiffe://Weft.local/agent/x",
        "spiffe://weft.local:80/agent/x",
        "spiffe:///agent/x",
        "https://weft.local/agent/x",
        "spiffe://weft.local/agent/x?y",
        "spiffe://weft.local/agent/ä",
        "spiffe://weft.local/" + "a" * 2048,
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SPIFFE id|trust domain"):
        mtls.SpiffeId.parse(text)


def test_ids_say_who_somebody_is() -> None:
    both = mtls.agents_id("weft.local", ["triage", "quality", "triage"])
    assert str(both) == "spiffe://weft.local/agent/quality/triage"
    assert both.agents == ("quality", "triage")
    assert mtls.part_id("weft.local", "registry").part == "registry"
    assert mtls.client_id("weft.local", "Ann O'Hara").client == "Ann-O-Hara"
    assert mtls.SpiffeId.parse("spiffe://weft.local/part/registry/evil").part == ""
    with pytest.raises(ValueError, match="SPIFFE id"):
        mtls.agents_id("weft.local", [])


def test_rules_say_which_agents_other_ids_may_be() -> None:
    rules = mtls.Roles.read("spiffe://x.org/ns/shop/sa/*=shop-* cashier, spiffe://x.org/a=b")
    shop = mtls.SpiffeId.parse("spiffe://x.org/ns/shop/sa/front")
    assert rules.may_be(shop, "shop-front")
    assert rules.may_be(shop, "cashier")
    assert not rules.may_be(shop, "b")
    assert not rules.may_be(mtls.SpiffeId.parse("spiffe://x.org/ns/shop/sa/a/b"), "cashier")
    assert not rules.may_be(mtls.SpiffeId.parse("spiffe://xzorg/ns/shop/sa/front"), "cashier")
    assert rules.may_be(mtls.SpiffeId.parse("spiffe://x.org/agent/greeter"), "greeter")
    for wrong in ("shop=a", "spiffe://x.org/a", "spiffe://x.org/a="):
        with pytest.raises(ValueError, match="ID=AGENT"):
            mtls.Roles.read(wrong)


def test_a_leaf_is_a_valid_svid(certificates: Certificates) -> None:
    authority = certificates.authority
    who = mtls.agents_id(TRUST_DOMAIN, ["greeter"])
    leaf = authority.issue(who, names=["greeter.example", "127.0.0.1", "::1"])
    certificate = x509.load_pem_x509_certificate(leaf.certificate)
    assert verified(leaf, authority.root) == [str(who), "greeter.example", "127.0.0.1", "::1"]
    assert timedelta(hours=24) <= _life(certificate) <= timedelta(hours=24, minutes=10)
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    # X.509-SVID, 4.3: digitalSignature, and neither keyCertSign nor cRLSign.
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign


def _life(certificate: x509.Certificate) -> timedelta:
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def test_nobody_else_vouches_for_a_leaf(certificates: Certificates, foreign: Certificates) -> None:
    leaf = foreign.authority.issue(mtls.agents_id(TRUST_DOMAIN, ["greeter"]))
    with pytest.raises(VerificationError):
        verified(leaf, certificates.authority.root)
    later = datetime.now(UTC) + timedelta(hours=25)
    own = certificates.authority.issue(mtls.agents_id(TRUST_DOMAIN, ["greeter"]))
    with pytest.raises(VerificationError):
        verified(own, certificates.authority.root, at=later)
    with pytest.raises(ValueError, match="not of the trust domain"):
        certificates.authority.issue(mtls.agents_id("other.example", ["greeter"]))


def test_an_authority_is_made_once_and_its_key_is_its_owners_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: mtls.Authority.made(tmp_path / "a", "x.org"), range(8)))
    assert len({each.root.serial_number for each in made}) == 1
    assert made[0].believed() == [made[0].root]
    for path in (tmp_path / "a").iterdir():
        if path.name != "bundle.pem":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert len(list((tmp_path / "a").iterdir())) == 2
    with pytest.raises(ValueError, match="is of the trust domain x.org, not y.org"):
        mtls.Authority.made(tmp_path / "a", "y.org")
    with pytest.raises(ValueError, match="weft certificates init"):
        mtls.Authority.load(tmp_path / "b")


def test_a_new_root_is_believed_beside_the_former(certificates: Certificates) -> None:
    former = certificates.authority
    who = mtls.agents_id(TRUST_DOMAIN, ["greeter"])
    new = former.rotated()
    assert new.believed() == [new.root, former.root]
    for leaf in (former.issue(who), new.issue(who)):
        assert verified(leaf, *new.believed()) == [str(who)]
    assert new.forget() == 1
    with pytest.raises(VerificationError):
        verified(former.issue(who), *new.believed())


# Files


def test_files_are_read(certificates: Certificates) -> None:
    found = certificates.agents("greeter")
    assert str(found.who) == f"spiffe://{TRUST_DOMAIN}/agent/greeter"
    assert found.trust_domain == TRUST_DOMAIN
    assert 86_000 < found.seconds_left() <= 86_400
    assert isinstance(found.context, ssl.SSLContext)


def test_files_that_cannot_be_used_are_told_of(
    certificates: Certificates, foreign: Certificates, tmp_path: Path
) -> None:
    good, other = certificates.files("agent/a"), foreign.files("agent/a")
    nobody = tmp_path / "nobody.pem"
    nobody.write_bytes(_certificate_of_nobody())
    old = certificates.files("agent/a", life=timedelta(seconds=-1))
    wrong = {
        "is not the key of": mtls.Files(certificate=good.certificate, key=other.key, ca=good.ca),
        "No such file": mtls.Files(certificate=good.certificate, key=tmp_path / "no", ca=good.ca),
        "no private key": mtls.Files(certificate=good.certificate, key=good.ca, ca=good.ca),
        "no certificate": mtls.Files(certificate=good.key, key=good.key, ca=good.ca),
        "has expired": old,
        "must name one SPIFFE id": mtls.Files(certificate=nobody, key=nobody, ca=good.ca),
        "of an authority": mtls.Files(
            certificate=certificates.folder / "authority/authority.pem",
            key=certificates.folder / "authority/authority.pem",
            ca=good.ca,
        ),
    }
    for message, files in wrong.items():
        with pytest.raises(ValueError, match=message):
            mtls.Credentials(files)
    with pytest.raises(ValueError, match="not of other.example"):
        mtls.Credentials(good, trust_domain="other.example")


def _certificate_of_nobody() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.public_key(key.public_key()).not_valid_before(now)
    made = builder.not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return made.public_bytes(pem) + key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_half_a_change_leaves_things_as_they_were(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when cert-manager, or an editor, replaces one file after the other."""
    made = certificates.files("agent/a")
    plain = mtls.Files(
        certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key", ca=tmp_path / "ca.crt"
    )
    for new, old in zip(_paths(plain), _paths(made), strict=True):
        new.write_bytes(old.read_bytes())
    credentials = mtls.Credentials(plain)
    other = certificates.files("agent/b")
    plain.key.write_bytes(other.key.read_bytes())
    with caplog.at_level(logging.WARNING, "weft.mtls"):
        credentials.look()
        credentials.look()
    assert credentials.who.agents == ("a",)
    assert credentials.generation == 0
    (told,) = caplog.records
    assert "is not the key of" in told.cause
    plain.certificate.write_bytes(other.certificate.read_bytes())
    credentials.look()
    assert credentials.who.agents == ("b",)
    assert credentials.generation == 1


def _paths(files: mtls.Files) -> tuple[Path, Path, Path]:
    return files.certificate, files.key, files.ca


def test_a_certificate_of_another_trust_domain_is_not_taken(
    certificates: Certificates, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    credentials = mtls.Credentials(certificates.files("agent/a", folder=folder))
    other = Certificates(tmp_path / "other", "other.example")
    other.files("agent/a", folder=folder)
    credentials.look()
    assert credentials.generation == 0


def test_a_certificate_of_no_root_in_the_bundle_is_warned_of(
    certificates: Certificates, foreign: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    own, other = foreign.files("agent/a"), certificates.files("agent/a")
    with caplog.at_level(logging.WARNING, "weft.mtls"):
        mtls.Credentials(mtls.Files(certificate=own.certificate, key=own.key, ca=other.ca))
    assert "of no root" in caplog.text


async def test_files_are_followed(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weft.mtls.credentials.WATCH", timedelta(milliseconds=20))
    folder = tmp_path / "own"
    files = certificates.files("agent/a", folder=folder)
    async with mtls.followed(files, TRUST_DOMAIN) as credentials:
        certificates.files("agent/b", folder=folder)
        await wait_until(lambda: credentials.who.agents == ("b",))


async def test_a_process_issues_itself_a_certificate_again_at_half_its_life(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weft.mtls.credentials.WATCH", timedelta(milliseconds=20))
    home = certificates.folder / "authority"
    # Certificates begin five minutes early: half of their life is over 0.5 s from now.
    life = timedelta(minutes=5, seconds=1)
    async with mtls.issued(home, lambda _: mtls.client_id(TRUST_DOMAIN, "ann"), life=life) as own:
        assert own.who.client == "ann"
        (folder,) = (home / "processes").iterdir()
        own.serve(["b", "a"])
        own.serve(["b"])
        assert own.who.agents == ("a", "b")
        before = own.generation
        own._issued -= 60
        await wait_until(lambda: own.generation > before)
        assert own.who.agents == ("a", "b")
        assert len(list(folder.iterdir())) == 2, "one certificate, and the link to it"
    assert not list((home / "processes").iterdir())


async def test_a_process_whose_root_is_believed_no_longer_issues_itself_another_certificate(
    certificates: Certificates,
) -> None:
    home = certificates.folder / "authority"
    async with mtls.issued(home, lambda _: mtls.client_id(TRUST_DOMAIN, "ann")) as own:
        own._issued -= 60
        new = certificates.authority.rotated()
        own.look()
        assert own._current.issued_by_own
        new.forget()
        own.look()
        assert not own._current.issued_by_own
        own.look()
        leaf = mtls.Leaf(certificate=own._current.certificate, key=own._current.key)
        assert verified(leaf, new.root) == [f"spiffe://{TRUST_DOMAIN}/client/ann"]


async def test_what_an_authority_cannot_be_used_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no certificate authority"):
        async with mtls.issued(tmp_path, lambda _: mtls.client_id("x.org", "ann")):
            pass
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of another make")])
    now = datetime.now(UTC)
    root = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    content = root.public_bytes(pem) + key.private_bytes(pem, *plain)
    (tmp_path / "authority.pem").write_bytes(content)
    with pytest.raises(ValueError, match="names no trust domain"):
        mtls.Authority.load(tmp_path)


def test_a_folder_is_replaced_and_what_else_is_in_it_stays(
    certificates: Certificates, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "work.py").write_text("years of it")
    (folder / "0123456789abcdef").mkdir()
    who = mtls.client_id(TRUST_DOMAIN, "ann")
    bundle = certificates.authority.bundle.read_bytes()
    leaves = [certificates.authority.issue(who) for _ in range(3)]
    for leaf in leaves:
        files = mtls.replace(folder, leaf, bundle)
        assert files.certificate.read_bytes() == leaf.certificate
        assert mtls.load(files).who == who
    assert (folder / "src" / "work.py").read_text() == "years of it"
    found = {each.name for each in folder.iterdir()}
    held = (folder / "current").readlink().name
    assert found == {"src", "0123456789abcdef", "current", held}, "former ones are gone"
