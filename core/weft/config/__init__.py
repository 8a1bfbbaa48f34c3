"""Typed settings, read from the environment and a file at the process edge only."""

from weft.config.credentials import read_credential
from weft.config.membership import Membership, authority_home, mark, membership
from weft.config.models import ModelBudget, ModelChoice, ModelEndpoint
from weft.config.remotes import Remote
from weft.config.settings import SettingError, Settings, default_data, environment, load
from weft.config.tools import ToolSetting

__all__ = [
    "Membership",
    "ModelBudget",
    "ModelChoice",
    "ModelEndpoint",
    "Remote",
    "SettingError",
    "Settings",
    "ToolSetting",
    "authority_home",
    "default_data",
    "environment",
    "load",
    "mark",
    "membership",
    "read_credential",
]
