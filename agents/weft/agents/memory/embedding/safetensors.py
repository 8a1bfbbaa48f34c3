"""Reads tensors of the format safetensors (https://github.com/huggingface/safetensors, README, "Format")."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

_LENGTH = 8  # bytes that say how long the header is, little-endian
_LONGEST_HEADER = 100_000_000


class BadTensors(ValueError):
    """The file holds no tensors of this format."""


def tensors(file: Path) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """The tensors of 32-bit floats in a file, by name; those of other types are passed over.

    Raises:
        BadTensors: the file is damaged, or of another format.
    """
    raw = np.memmap(file, dtype=np.uint8, mode="r")
    try:
        length = int.from_bytes(raw[:_LENGTH].tobytes(), "little")
        if not 0 < length <= min(_LONGEST_HEADER, raw.size - _LENGTH):
            raise BadTensors(f"{file}: the header is longer than the file")
        header = json.loads(raw[_LENGTH : _LENGTH + length].tobytes())
        data = raw[_LENGTH + length :]
        for name, about in header.items():
            if name != "__metadata__" and about["dtype"] == "F32":
                begin, end = about["data_offsets"]
                yield name, data[begin:end].copy().view(np.float32).reshape(about["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as failed:
        raise BadTensors(f"{file}: {failed}") from failed
