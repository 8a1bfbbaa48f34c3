"""The machine that Redis runs on, as far as a test can play with it: its clock and its disk."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_SOURCE = Path(__file__).with_name("preload.c")
_CLOCK, _FULL = 0, 8


class Host:
    """The clock and the disk of every process that is started with `environment`.

    Raises:
        RuntimeError: this machine has no C compiler, or preloads nothing.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None or not sys.platform.startswith("linux"):
            raise RuntimeError("a C compiler on Linux is needed to move a server's clock")
        library = folder / "preload.so"
        subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)], check=True
        )
        path = folder / "page"
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.environment = {"LD_PRELOAD": str(library), "WEFT_FAULTS_PAGE": str(path)}

    def step_clock(self, seconds: float) -> None:
        """From now on its time of day is so far from the real one; 0: right again."""
        struct.pack_into("q", self._page, _CLOCK, int(seconds * 1e9))

    def fill(self, *, full: bool) -> None:
        """From now on its files take no more bytes, or do again."""
        struct.pack_into("q", self._page, _FULL, int(full))

    def close(self) -> None:
        self._page.close()


class Disk:
    """A folder of its own on a small file system, which can be filled to the last byte.

    Made of a tmpfs, which takes root; `None` by `small_disk` where there is none, and then `Host.fill` has to do.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Takes all that is left."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        """Gives it back."""
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk | None]:
    """A disk at `folder`, gone with all it holds in the end."""
    folder.mkdir(exist_ok=True)
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    made = (
        os.getuid() == 0
        and mount is not None
        and unmount is not None
        and subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={megabytes}m", "weft-faults", str(folder)],
            check=False,
            capture_output=True,
        ).returncode
        == 0
    )
    try:
        yield Disk(folder) if made else None
    finally:
        if made:
            subprocess.run([str(unmount), "-l", str(folder)], check=True)
