"""Keys that a test can do anything with: choose their hash, make them raise, let them act while they are compared."""

from __future__ import annotations


class Key:
    """Equal to keys of the same name; hashes to what it is told."""

    def __init__(self, name, key_hash):
        self.name = name
        self.key_hash = key_hash

    def __hash__(self):
        return self.key_hash

    def __eq__(self, other):
        return self.name == other.name if isinstance(other, Key) else NotImplemented

    def __repr__(self):
        return f"Key({self.name!r}, {self.key_hash:#x})"


class HashError(Exception):
    pass


class EqualError(Exception):
    pass


class HostileKey(Key):
    """Raises in `__hash__` or `__eq__` once `raises` is set to it, and calls `acts` whenever it is compared."""

    raises = None
    acts = None

    def __hash__(self):
        if self.raises is HashError:
            raise HashError
        return self.key_hash

    def __eq__(self, other):
        if self.raises is EqualError or getattr(other, "raises", None) is EqualError:
            raise EqualError
        if self.acts:
            self.acts()
        return super().__eq__(other)
