"""Typed settings, read from the environment and a file at the process edge only."""

from weft.config.remotes import Remote
from weft.config.settings import SettingError, Settings, default_data, environment, load

__all__ = ["Remote", "SettingError", "Settings", "default_data", "environment", "load"]
