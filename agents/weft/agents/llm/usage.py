"""Tokens that a model was asked with and answered with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call of a model, or of several.

    Attributes:
        input: read, beside those of the cache.
        cache_read: read from the cache.
        cache_write_5m: written to the cache for 5 minutes.
        cache_write_1h: for an hour.
        output: written by the model, its thinking included.
        estimated: whether the endpoint did not tell all of it, because its answer broke off.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    estimated: bool = False

    @property
    def prompt(self) -> int:
        """All that the model was asked with."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def tokens(self) -> int:
        """All together."""
        return self.prompt + self.output

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input=self.input + other.input,
            cache_read=self.cache_read + other.cache_read,
            cache_write_5m=self.cache_write_5m + other.cache_write_5m,
            cache_write_1h=self.cache_write_1h + other.cache_write_1h,
            output=self.output + other.output,
            estimated=self.estimated or other.estimated,
        )


NOTHING = Usage()
