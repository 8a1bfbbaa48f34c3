"""Prompts by name, and which version of one a conversation gets."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from weft import rpc
from weft.agents.llm.prompts.files import Prompt, PromptError, read
from weft.agents.llm.replies import Question

log = logging.getLogger("weft.agents")

_RANGE = float(1 << 64)


class Choice:
    """The versions of one prompt.

    Args:
        versions: at least one with a weight; all have the same variables.

    Raises:
        PromptError: they do not fit together.
    """

    def __init__(self, versions: Sequence[Prompt]) -> None:
        # In one order, whatever the files are called: a conversation gets the same version in every process.
        self._versions = sorted(versions, key=lambda each: each.version)
        first = self._versions[0]
        self._missed = ""
        self._weight = sum(each.weight for each in self._versions)
        labels = [each.label for each in self._versions]
        if len(set(labels)) < len(labels):
            raise PromptError(f"{first.name}: two files have the same version")
        if self._weight <= 0:
            raise PromptError(f"{first.name}: no version has a weight")
        for each in self._versions:
            if (each.variables, each.untrusted) != (first.variables, first.untrusted):
                raise PromptError(f"{each.label} and {first.label} have different variables")

    def version(self, version: str) -> Prompt:
        """A version by its name.

        Raises:
            KeyError: there is none.
        """
        for each in self._versions:
            if each.version == version:
                return each
        raise KeyError(version)

    def of(self, key: str = "") -> Prompt:
        """The version of a conversation, the same each time.

        Args:
            key: what keeps to one version; by default the conversation, else the run, of the call that is served. Where
                there is none it is drawn.
        """
        if (pinned := self._pinned()) is not None:
            return pinned
        key = key or _key()
        place = random.random()  # noqa: S311 not a secret
        if key:
            hashed = hashlib.sha256(f"{self._versions[0].name}\0{key}".encode()).digest()
            place = int.from_bytes(hashed[:8], "big") / _RANGE
        place *= self._weight
        for each in self._versions:
            place -= each.weight
            if place < 0:
                return each
        return next(each for each in reversed(self._versions) if each.weight > 0)

    def _pinned(self) -> Prompt | None:
        """The version that operators have set of the agent that asks; None: none, or one that is not here."""
        call = rpc.current_call()
        if call is None or call.live is None or not call.live.prompts:
            return None
        wanted = call.live.prompts.get(self._versions[0].name)
        if wanted is None:
            return None
        try:
            return self.version(wanted)
        except KeyError:
            if wanted != self._missed:  # once, and not with every question
                self._missed = wanted
                log.warning(
                    "there is no such version of a prompt; it is chosen by weights",
                    extra={"prompt": self._versions[0].name, "version": wanted},
                )
            return None

    def ask(self, **values: object) -> Question:
        """The question that the version of this conversation makes; see `Prompt.ask`."""
        return self.of().ask(**values)


class Prompts(Mapping[str, Choice]):
    """The prompts of an agent.

    Args:
        versions: all versions of all of them.

    Raises:
        PromptError: versions of one do not fit together.
    """

    def __init__(self, versions: Sequence[Prompt]) -> None:
        by_name: dict[str, list[Prompt]] = {}
        for each in versions:
            by_name.setdefault(each.name, []).append(each)
        self._choices = {name: Choice(each) for name, each in by_name.items()}

    @classmethod
    def beside(cls, module_file: str) -> Prompts:
        """Those in the folder `prompts` beside a module, by its `__file__`.

        Raises:
            PromptError: there is none, or one cannot be used.
        """
        return cls.load(Path(module_file).parent / "prompts")

    @classmethod
    def load(cls, folder: Path) -> Prompts:
        """Those of a folder.

        Raises:
            PromptError: there is none, or one cannot be used.
        """
        paths = sorted(folder.glob("*.md"))
        if not paths:
            raise PromptError(f"{folder}: there is no prompt")
        try:
            return cls(
                [
                    read(path.name.split(".", 1)[0], path.read_text(encoding="utf-8"), str(path))
                    for path in paths
                ]
            )
        except (OSError, UnicodeDecodeError) as failed:
            raise PromptError(f"{folder}: a prompt cannot be read: {failed}") from failed

    def __getitem__(self, name: str) -> Choice:
        return self._choices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)


def _key() -> str:
    call = rpc.current_call()
    return (call.conversation or call.run) if call is not None else ""
