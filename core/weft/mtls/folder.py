"""A folder with a certificate, its key and the roots to believe, replaced together or not at all.

The files are reached by a link, `current`, that is changed in one step, as Kubernetes does it with a mounted secret: no
reader sees the new certificate with the old key.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path

from weft.mtls.authority import Leaf
from weft.mtls.files import Files

_CURRENT = "current"
_OURS = re.compile(r"[0-9a-f]{16}")


def files_of(folder: Path) -> Files:
    """Where the files of a folder are."""
    current = folder / _CURRENT
    return Files(
        certificate=current / "certificate.pem",
        key=current / "key.pem",
        ca=current / "bundle.pem",
    )


def watched(file: Path) -> Path:
    """The folder in which something is moved when a file is replaced, by `replace`, by Kubernetes, or by a rename."""
    folder = file.parent
    return folder.parent if folder.name == _CURRENT or folder.is_symlink() else folder


def replace(folder: Path, leaf: Leaf, bundle: bytes) -> Files:
    """Writes a folder, or replaces what it has of an earlier certificate. Whatever else is in it stays.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = folder / secrets.token_hex(8)
    made.mkdir(mode=0o700)
    for name, content in (
        ("certificate.pem", leaf.certificate),
        ("key.pem", leaf.key),
        ("bundle.pem", bundle),
    ):
        descriptor = os.open(made / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    current, link = folder / _CURRENT, folder / f".{made.name}"
    former = current.readlink().name if current.is_symlink() else ""
    link.symlink_to(made.name)
    link.replace(current)
    if _OURS.fullmatch(former):  # and nothing else: the folder may be somebody's project
        shutil.rmtree(folder / former, ignore_errors=True)
    return files_of(folder)
