"""Records for what every start of a command makes: dataclasses itself, which imports inspect, costs it 20 ms."""

from __future__ import annotations

TYPE_CHECKING = False  # for type checkers only, as in farmhand.wire.http1
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_):  # noqa: D103
        return lambda record: record


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """A subclass declares its fields as a frozen, keyword-only dataclass does; a default is a constant."""

    def __init__(self, **given: Any) -> None:
        names = self.names()
        unknown, missing = given.keys() - names, [x for x in names if x not in given and not hasattr(type(self), x)]
        if unknown or missing:
            raise TypeError(f"{type(self).__name__}: unknown {sorted(unknown)}, missing {missing}")
        self.__dict__.update({name: getattr(type(self), name, None) for name in names} | given)

    @classmethod
    def names(cls) -> list[str]:
        """The fields, in their order."""
        return list(cls.__annotations__)

    def replaced(self, **changes: Any) -> Self:
        """The same with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"
