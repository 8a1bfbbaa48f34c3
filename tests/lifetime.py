"""Processes that end with the one that started them, so that a test leaves nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

# Asks for SIGKILL at its parent's end (prctl(2), PR_SET_PDEATHSIG), then becomes the program of its arguments.
_LAUNCH = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


def ending_with_parent(command: Sequence[str | Path]) -> list[str]:
    """The command of a process that the kernel kills when the one that started it ends.

    A `preexec_fn` would be Python in a child that was forked from all of gRPC's threads; now and then it crashes there.
    """
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, *map(str, command)]
