"""Named values that register themselves once: operators, dataflows, proxies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from nashc.errors import NashcError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Insertion-ordered name -> value; a name registers once, an unknown one gets a hint."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._values: dict[str, T] = {}

    def add(self, name: str, value: T) -> T:
        if name in self._values:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        self._values[name] = value
        return value

    def get(self, name: str) -> T:
        try:
            return self._values[name]
        except KeyError:
            raise NashcError(f"unknown {self.kind} '{name}'", hint=did_you_mean(name, self._values)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def values(self) -> tuple[T, ...]:
        return tuple(self._values.values())
