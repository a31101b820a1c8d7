"""The two values that stand for "no value", shared by both twins.

`MISSING` is public: a token's `old_value` and `Hamt.find` return it for an unset variable or key. `ABSENT` is private:
an argument that was not given, a key that was not found. They must differ, because a user may store `MISSING`, or call
`var.get(Token.MISSING)` to learn whether a variable is set.
"""

from __future__ import annotations

from typing import NoReturn, final


@final
class _Sentinel:
    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {self._text}: it is compared by identity")


MISSING = _Sentinel("<Token.MISSING>")
# Its text is what signatures show: an argument that may be left out.
ABSENT = _Sentinel("...")
