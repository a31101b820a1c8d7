"""Our Hamt under the names of CPython's test double for its own map, which `HamtTest` in its test_context tests."""

import contextvars_cy


class Map:
    """The double's `delete` of a missing key returns the map; its views are iterators that know their length."""

    def __init__(self, hamt=None):
        self.hamt = contextvars_cy.Hamt() if hamt is None else hamt

    def _wrap(self, hamt):
        return self if hamt is self.hamt else Map(hamt)

    def set(self, key, value):
        return self._wrap(self.hamt.set(key, value))

    def delete(self, key):
        return self._wrap(self.hamt.discard(key))

    def get(self, key, *default):
        return self.hamt.get(key, *default)

    def keys(self):
        return Counted(self.hamt.keys())

    def values(self):
        return Counted(self.hamt.values())

    def items(self):
        return Counted(self.hamt.items())

    def __len__(self):
        return len(self.hamt)

    def __eq__(self, other):
        return self.hamt == other.hamt if isinstance(other, Map) else NotImplemented

    def __contains__(self, key):
        return key in self.hamt

    def __getitem__(self, key):
        return self.hamt[key]

    def __iter__(self):
        return iter(self.hamt)


class Counted:
    def __init__(self, view):
        self.view, self.iterator = view, iter(view)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.iterator)

    def __len__(self):
        return len(self.view)
