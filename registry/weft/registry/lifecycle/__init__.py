"""What operators do to agents that run: pause, drain, resume, set; with a record of each."""

from weft.registry.lifecycle.directives import Directives
from weft.registry.lifecycle.service import LifecycleService

__all__ = ["Directives", "LifecycleService"]
