"""A string that remembers which of its characters a user wrote, through whatever a chat template does to it.

`Marked` is a `str` of the true text, so that a template's own tests on it hold, with one mark a character. Where an operation
has no rule here, everything that comes out of it counts as MIXED when a user's text went in: never as the template's own.
Read next: `sandbox.py`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

TEMPLATE, USER, MIXED = 0, 1, 2


class Marked(str):
    """Text with a mark for each character: TEMPLATE, USER, or MIXED where both went into an operation that has no rule."""

    marks: bytes  # of the same length
    __hash__ = str.__hash__

    def __new__(cls, text: str, mark: int | bytes = USER) -> "Marked":
        made = super().__new__(cls, text)
        object.__setattr__(made, "marks", bytes([mark]) * len(made) if isinstance(mark, int) else mark)
        return made

    def __str__(self) -> str:
        return self

    def __add__(self, other: Any) -> "Marked":
        return join("", (self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> "Marked":
        return join("", (other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: Any) -> "Marked":
        return Marked(str.__mul__(self, times), self.marks * times)

    __rmul__ = __mul__

    def __getitem__(self, place: Any) -> "Marked":
        text = str.__getitem__(self, place)
        return Marked(text, self.marks[place] if isinstance(place, slice) else self.marks[place : place + 1 or None])

    def __iter__(self):
        return (self[i : i + 1] for i in range(len(self)))

    def lstrip(self, chars: str | None = None) -> "Marked":
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None) -> "Marked":
        return self[: len(str.rstrip(self, chars))]

    def strip(self, chars: str | None = None) -> "Marked":
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str) -> "Marked":
        return self[len(prefix) :] if self.startswith(prefix) else self[:]

    def removesuffix(self, suffix: str) -> "Marked":
        return self[: len(self) - len(suffix)] if suffix and self.endswith(suffix) else self[:]

    def split(self, sep: str | None = None, maxsplit: int = -1) -> list["Marked"]:
        return self._located(str.split(self, sep, maxsplit))

    def rsplit(self, sep: str | None = None, maxsplit: int = -1) -> list["Marked"]:
        parts = str.rsplit(self, sep, maxsplit)
        stops = [(len(self) - start, len(self) - stop) for start, stop in _spans(self[::-1], [part[::-1] for part in parts[::-1]])]
        return [self[stop:start] for start, stop in stops[::-1]]

    def splitlines(self, keepends: bool = False) -> list["Marked"]:
        return self._located(str.splitlines(self, keepends))

    def partition(self, sep: str) -> tuple["Marked", ...]:
        return tuple(self._located(str.partition(self, sep)))

    def rpartition(self, sep: str) -> tuple["Marked", ...]:
        head, _, tail = str.rpartition(self, sep)
        cut = len(self) - len(tail)
        return self[: len(head)], self[len(head) : cut], self[cut:]

    def replace(self, old: str, new: str, count: int = -1) -> "Marked":
        if not old:
            return blend(str.replace(self, old, new, count), (self, new))
        return join(new, self.split(old, count))

    def join(self, parts: Iterable[str]) -> "Marked":
        return join(self, parts)

    def _located(self, parts: Iterable[str]) -> list["Marked"]:
        return [self[start:stop] for start, stop in _spans(self, parts)]


def _spans(text: str, parts: Iterable[str]) -> list[tuple[int, int]]:
    """Where parts that lie in a text one after the other are."""
    found, place = [], 0
    for part in parts:
        start = str.find(text, part, place)
        place = start + len(part)
        found.append((start, place))
    return found


def marks_of(text: str) -> bytes:
    """The marks of any string: a plain one is the template's."""
    return text.marks if isinstance(text, Marked) else bytes([TEMPLATE]) * len(text)


def join(glue: str, parts: Iterable[Any]) -> Marked:
    """`glue.join(parts)` with the marks of each."""
    parts = [part if isinstance(part, str) else str(part) for part in parts]
    return Marked(str.join(str.__str__(glue), parts), marks_of(glue).join(map(marks_of, parts)))


def blend(result: Any, sources: Iterable[Any]) -> Any:
    """The result of an operation without a rule: strings out of it that carry no marks become MIXED if a user's text went in."""
    if isinstance(result, Marked) or not isinstance(result, str | list | tuple):
        return result
    if not any(map(touched, sources)):
        return result
    if isinstance(result, str):
        return Marked(result, MIXED) if type(result) is str else result
    return type(result)(blend(part, sources) for part in result)


def touched(value: Any, depth: int = 0) -> bool:
    """Whether a user's text is in a value."""
    if isinstance(value, Marked):
        return any(value.marks)
    if depth > 20 or isinstance(value, str):
        return False
    if isinstance(value, Mapping):
        value = (*value, *value.values())
    return isinstance(value, list | tuple) and any(touched(part, depth + 1) for part in value)


def mark(value: Any) -> Any:
    """A JSON value with every string in it, keys too, marked as the user's."""
    if isinstance(value, Mapping):
        return {mark(key): mark(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [mark(part) for part in value]
    return Marked(value) if isinstance(value, str) else value


def _blended(name: str):
    method = getattr(str, name)
    return lambda self, *args, **more: blend(method(self, *args, **more), (self, *args, *more.values()))


def _recased(name: str):
    method = getattr(str, name)

    def recase(self: Marked) -> Marked:
        text = method(self)
        return Marked(text, self.marks) if len(text) == len(self) else blend(str(text), (self,))

    return recase


for _name in ("lower", "upper", "title", "capitalize", "casefold", "swapcase"):
    setattr(Marked, _name, _recased(_name))
# Not `format`: the sandbox must know it for what it is, and makes the result the user's.
for _name in ("center", "ljust", "rjust", "zfill", "expandtabs", "translate", "__mod__", "__format__"):
    setattr(Marked, _name, _blended(_name))
