# cython: language_level=3, binding=False, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
# cython: wraparound=False, boundscheck=False, freethreading_compatible=True
"""The compiled twin of `hamt_py`, which explains what both do."""

cimport cython
from cpython.object cimport PyObject, PyTypeObject, hashfunc, inquiry, newfunc
from libc.stdint cimport uint32_t

from .._siblings_cy cimport import_sibling  # no-cython-lint: for its C code
from .trie_cy cimport (
    BOTH,
    EMPTY_NODE,
    FEW,
    FIRST_HASH,
    MINE,
    THEIRS,
    THERE,
    Change,
    Node,
    Tally,
    assoc,
    combined,
    compare,
    dissoc,
    drop_change,
    equal,
    find,
    fold,
    has_references,
    is_apart,
    is_within,
    make_change,
    mixed_items,
    owned,
    plain,
    popcount,
    prefetch_slots,
    prepare_assoc,
    prepare_dissoc,
    size_of,
    update,
    value_at,
    xincref,
)

import builtins
import collections.abc
from importlib import import_module
from types import GenericAlias

# As in `trie_cy`.
_debug, _diff, _sealed, _sentinels, _views = [
    import_module(name, __package__) for name in (".debug", ".diff", ".._sealed", ".._sentinels", ".views")
]

# When the interpreter ends, a module's names are gone before the last finalisers run; C variables are not.
cdef object ABSENT = _sentinels.ABSENT
cdef object MISSING = _sentinels.MISSING
cdef object Mapping = collections.abc.Mapping
cdef object Set = collections.abc.Set
cdef object HamtDiff = _diff.HamtDiff
cdef object check = _debug.check
cdef object dump = _debug.dump
cdef object merge_maps = _diff.merge
cdef object common = _views.common
cdef object are_within = _views.are_within
cdef object is_disjoint = _views.is_disjoint
cdef object symmetric_difference = _views.symmetric_difference
cdef object DICTS = (dict, getattr(builtins, "frozendict", dict))

cdef extern from "pair.h":
    PyObject *reused "reuse_pair"(PyObject *pair, PyObject *key, PyObject *value) noexcept

cdef extern from "set_hash.h":
    Py_hash_t mixed_set "hamt_mixed_set"(size_t mixed, Py_ssize_t count) noexcept

cdef extern from "map_memory.h":
    bint has_weak_references "HAMT_HAS_WEAK_REFERENCES"(Hamt hamt) noexcept
    PyObject **root_of "HAMT_ROOT"(Hamt hamt) noexcept

cdef extern from "type_slots.h":
    int publish "publish_type"(object type, object package, newfunc called) except -1
    unsigned long Py_TPFLAGS_MAPPING

cdef extern from "Python.h":
    Py_hash_t PyObject_HashNotImplemented(object thing) except -1
    int compare_objects "PyObject_RichCompareBool"(PyObject *value, PyObject *other, int operator) except -1
    int Py_EnterRecursiveCall(const char *where) except 1
    void Py_LeaveRecursiveCall() noexcept
    int Py_ReprEnter(object thing) except -1
    void Py_ReprLeave(object thing) noexcept


@cython.final
@cython.no_gc_clear
@cython.trashcan(True)
@cython.freelist(16)
cdef class Hamt:
    """Hamt(source=(), /, **items)\n--\n
    A persistent map: every change gives a new map, and the old one stays as it was.

    `Hamt(source, **items)` takes what `dict` takes: a mapping, an iterable of pairs, keywords; and any object with
    `items()`; O(n). Given a map, it returns that map. Keys need `__hash__` and `__eq__`; as in a dict, only keys of one
    hash are compared, by identity first. Iteration follows the hashes: the order depends only on the content, except
    for keys of one hash.

    Two maps are equal if they have equal values for the same keys; a dict is equal too. If one was made from the other,
    comparing takes the time of their difference, since it skips shared subtrees; else O(n). A map has a hash if its
    values have one, that of `frozenset(map.items())`, as a frozendict has: O(n) once, then O(1).

    A hash array mapped trie in the CHAMP encoding (Steindorfer and Vinju, OOPSLA 2015). Finding, setting and deleting
    take O(log n), with a base of 32; a map needs no copying.

    >>> one = Hamt({"a": 1})
    >>> two = one.set("b", 2)
    >>> len(one), len(two), two["b"]
    (1, 2, 2)
    >>> two == one | {"b": 2}
    True
    """

    @classmethod
    def fromkeys(cls, keys, value=None, /):
        """Return the map that gives every key the same value. O(n).

        >>> Hamt.fromkeys("a", 0)
        Hamt({'a': 0})
        """
        return EMPTY._updated(dict.fromkeys(keys, value))

    def find(self, key, /):
        """Return `(value, True)`, or `(MISSING, False)` if the key is missing. O(log n).

        >>> Hamt(a=None).find("a")
        (None, True)
        >>> Hamt().find("a")
        (<Token.MISSING>, False)
        """
        cdef PyObject *value = look_up(self, key)
        if value is NULL:
            return MISSING, False
        return <object>value, True

    def get(self, key, default=None, /):
        """Return the value of the key, or the default if the key is missing. O(log n).

        >>> Hamt(a=1).get("a"), Hamt().get("a", 0)
        (1, 0)
        """
        cdef PyObject *value = look_up(self, key)
        return default if value is NULL else <object>value

    def set(self, key, value, /):
        """Return the map with the key set; this map itself if the key has this very value. O(log n).

        >>> one = Hamt(a=1)
        >>> sorted(one.set("b", 2).items())
        [('a', 1), ('b', 2)]
        >>> one.set("a", 1) is one
        True
        """
        cdef Py_hash_t key_hash = hash(key)
        return self._set(key, fold(key_hash), value, key_hash)

    def delete(self, key, /):
        """Return the map without the key; KeyError if it is missing. O(log n).

        >>> Hamt(a=1).delete("a")
        Hamt({})
        >>> Hamt().delete("a")
        Traceback (most recent call last):
        ...
        KeyError: 'a'
        """
        smaller = self.discard(key)
        if smaller is self:
            raise KeyError(key)
        return smaller

    def discard(self, key, /):
        """Return the map without the key; this map itself if the key is missing. O(log n).

        >>> one = Hamt(a=1)
        >>> one.discard("b") is one
        True
        """
        cdef Py_hash_t key_hash = hash(key)
        return self._discard(key, fold(key_hash), key_hash)

    def update(self, source=(), /, **items):
        """Return the map with all entries of `Hamt(source, **items)` set; this map itself if nothing changes.

        O(m log n) for a source of m entries, in one walk of the tree. If the source is a map, it takes the time of the
        smaller map or of their difference, and shares the rest. `map | mapping` is the same; in `mapping | map` the
        map's values win.

        >>> Hamt(a=1).update({"a": 2}) == Hamt(a=2)
        True
        >>> {"a": 1, "b": 1} | Hamt(a=2) == Hamt(a=2, b=1)
        True
        """
        cdef Hamt changed
        if type(source) is not Hamt:
            return self._updated(_as_dict(source, items))
        if self._count == 0:
            changed = source
        elif (<Hamt>source)._count <= FEW and (<Hamt>source)._count * FEW < self._count:
            changed = self._updated(dict(source.items()))
        else:
            changed = self._combined(source, MINE | BOTH | THEIRS)
        return changed._updated(items) if items else changed

    def mutate(self):
        """Return a `HamtMutation`, which turns many changes into one new map. O(1).

        >>> with Hamt(a=1).mutate() as mutation:
        ...     mutation["b"] = 2
        ...     del mutation["a"]
        >>> mutation.finish()
        Hamt({'b': 2})
        """
        cdef HamtMutation mutation = HamtMutation.__new__(HamtMutation)
        mutation._hamt = self
        return mutation

    def diff(self, other, /):
        """Return the changes from this map to the other: a `HamtDiff` of added, removed and changed.

        Values are compared by identity first, then by `==`, so only equal maps have an empty difference. If one map was
        made from the other, the time grows with the difference, not with the maps: shared subtrees are skipped. Else
        O(n).

        >>> Hamt(a=1, b=2).diff(Hamt(a=1, b=3)).changed
        {'b': (2, 3)}
        """
        if type(other) is not Hamt:
            raise TypeError(f"diff() takes a Hamt, not {type(other).__name__}")
        cdef dict added = {}, removed = {}, changed = {}
        compare(<Node *>self._root, <Node *>(<Hamt>other)._root, 0, added, removed, changed)
        return HamtDiff(added, removed, changed)

    def merge(self, base, other, /, resolve=None):
        """Return this map with the changes from the base to the other map: a three-way merge.

        A key that both sides changed differently is a conflict. `resolve(key, base_value, own_value, other_value)`
        returns its value; MISSING stands for no value. Without a resolver a conflict is a ValueError. Takes the time of
        `base.diff(other)`, and O(log n) for each change.

        >>> base = Hamt(a=1, b=1)
        >>> base.set("a", 2).merge(base, base.set("b", 3)) == Hamt(a=2, b=3)
        True
        >>> base.set("a", 2).merge(base, base.set("a", 3), lambda key, base, own, other: max(own, other))["a"]
        3
        """
        return merge_maps(self, base, other, resolve)

    def keys(self):
        """Return a view of the keys, a `collections.abc.Set`; iterating it takes O(n). Its `mapping` is this map.

        >>> "a" in Hamt(a=1).keys()
        True
        >>> Hamt(a=1, b=2).keys() & {"b", "c"}
        {'b'}
        """
        cdef HamtKeys view = HamtKeys.__new__(HamtKeys)
        view._mapping = self
        return view

    def values(self):
        """Return a view of the values; iterating it takes O(n). Its `mapping` is this map.

        >>> list(Hamt(a=1).values())
        [1]
        """
        cdef HamtValues view = HamtValues.__new__(HamtValues)
        view._mapping = self
        return view

    def items(self):
        """Return a view of the (key, value) pairs, a `collections.abc.Set`; iterating it takes O(n). Its `mapping` is
        this map.

        >>> list(Hamt(a=1).items())
        [('a', 1)]
        """
        cdef HamtItems view = HamtItems.__new__(HamtItems)
        view._mapping = self
        return view

    def copy(self):
        """Return this very map, which nothing can change. O(1).

        >>> one = Hamt(a=1)
        >>> one.copy() is one
        True
        """
        return self

    __copy__ = copy

    def __replace__(self, /, **items):
        return self._updated(items)

    def __getitem__(self, key):
        cdef PyObject *value = look_up(self, key)
        if value is NULL:
            raise KeyError(key)
        return <object>value

    def __contains__(self, key):
        return look_up(self, key) is not NULL

    def __len__(self):
        return self._count

    def __iter__(self):
        return iterate(self, KEYS)

    def __eq__(self, other):
        cdef Hamt that
        if type(other) is Hamt:
            that = other
            # CPython only lends the maps it compares: without our references they could be changed in place meanwhile.
            root, other_root = self._root, that._root
            return self._count == that._count and equal(<Node *>root, <Node *>other_root)
        if isinstance(other, DICTS):
            return self._count == len(other) and _has_items(self, other)
        return NotImplemented

    def __hash__(self):
        cdef Py_hash_t known
        with cython.critical_section(self):
            known = self._hash
        if known < FIRST_HASH or known == 0:
            Py_EnterRecursiveCall(" while hashing a map")
            try:
                known = mixed_set(mixed_items(<Node *>self._root), self._count)
            finally:
                Py_LeaveRecursiveCall()
            with cython.critical_section(self):
                if self._hash == 0 and known >= FIRST_HASH:
                    self._hash = known
        return known

    def __or__(self, other):
        return self.update(other) if _is_mapping(other) else NotImplemented

    def __ror__(self, other):
        return EMPTY._updated(dict(other)).update(self) if _is_mapping(other) else NotImplemented

    def __repr__(self):
        if Py_ReprEnter(self):
            return "Hamt({...})"
        try:
            return f"Hamt({_braced(self)})"
        finally:
            Py_ReprLeave(self)

    def __reduce__(self):
        return Hamt, (dict(self.items()),)

    __reversed__ = None
    __class_getitem__ = classmethod(GenericAlias)

    cdef object _find(self, object key, uint32_t folded, Py_hash_t key_hash):
        cdef PyObject *value = find(<Node *>self._root, folded, <PyObject *>key, key_hash)
        return ABSENT if value is NULL else <object>value

    cdef Hamt _set(self, object key, uint32_t folded, object value, Py_hash_t key_hash):
        cdef Py_ssize_t added = 0
        root = assoc(<Node *>self._root, folded, <PyObject *>key, <PyObject *>value, key_hash, &added)
        return self if root is self._root else _new(root, self._count + added)

    cdef Hamt _discard(self, object key, uint32_t folded, Py_hash_t key_hash):
        root = dissoc(<Node *>self._root, folded, <PyObject *>key, key_hash)
        if root is None:
            return self
        return _new(root, self._count - 1) if self._count > 1 else EMPTY

    cdef Hamt _updated(self, dict changes):
        cdef Py_ssize_t added = 0
        root = update(<Node *>self._root, changes, &added)
        return self if root is self._root else _new(root, self._count + added)

    cdef Hamt _combined(self, Hamt other, int kept):
        cdef Tally tally = Tally.__new__(Tally)
        cdef Py_ssize_t shared, count = 0
        root = combined(<Node *>self._root, <Node *>other._root, kept, tally)
        if root is self._root:
            return self
        if root is None:
            return EMPTY
        shared = tally.total_shared(self._count)
        count += shared if kept & BOTH else 0
        count += self._count - shared if kept & MINE else 0
        count += other._count - shared if kept & THEIRS else 0
        return _new(root, count)

    def _common(self, Hamt other not None):
        return self._combined(other, BOTH)

    def _without(self, Hamt other not None):
        return self._combined(other, MINE)

    def _unshared(self, Hamt other not None):
        return self._combined(other, MINE | THEIRS)

    def _is_within(self, Hamt other not None):
        return self._count <= other._count and is_within(<Node *>self._root, <Node *>other._root, 0)

    def _is_apart(self, Hamt other not None):
        return is_apart(<Node *>self._root, <Node *>other._root, 0)

    cdef int _become(self, Hamt other) except -1:
        self._hash, self._count, self._root = 0, other._count, other._root
        return 0

    def _dump(self):
        """Return the tree as text, one line per node or entry; both twins give the same."""
        return dump(plain(<Node *>self._root), self._count)

    def _check(self):
        """Raise AssertionError if an invariant is broken, with its name and the tree."""
        check(plain(<Node *>self._root), self._count)


cdef bint _has_items(Hamt hamt, object items) except -1:
    cdef PyObject *mine
    for key, value in items.items():
        mine = look_up(hamt, key)
        if mine is NULL or not compare_objects(mine, <PyObject *>value, 2):
            return False
    return True


cdef inline PyObject *look_up(Hamt hamt, object key) except? NULL:
    # Borrowed; NULL without an exception if the key is missing.
    cdef Py_hash_t key_hash = hash(key)
    return find(<Node *>hamt._root, fold(key_hash), <PyObject *>key, key_hash)


cdef inline bint is_sole(Hamt hamt) noexcept:
    # If nothing but a mutation and its method holds the map, and no weak reference could come to.
    return has_references(<void *>hamt, 2) and not has_weak_references(hamt)


cdef Hamt _new(object root, Py_ssize_t count):
    cdef Hamt hamt = Hamt.__new__(Hamt)
    hamt._root = root
    hamt._count = count
    return hamt


cdef dict _as_dict(object source, dict items):
    if type(source) is dict and not items:
        return source
    if type(source) is tuple and not source:
        return items
    if hasattr(source, "items") and not hasattr(source, "keys"):
        source = source.items()
    return dict(source, **items) if items else dict(source)


cdef bint _is_mapping(object other) except -1:
    return type(other) is Hamt or type(other) is dict or isinstance(other, Mapping)


cdef object _refuse_call(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    raise TypeError(f"cannot create '{cls.tp_name.decode()}' instances; a Hamt's methods give them")


cdef str _braced(Hamt hamt):
    # No comprehension of new objects: if memory for the list runs out, Cython 3.3 frees one twice.
    cdef list parts = []
    for key, value in hamt.items():
        parts.append(f"{key!r}: {value!r}")
    return "{" + ", ".join(parts) + "}"


cdef object _hamt_from_call(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    cdef tuple sources = <tuple>args
    cdef dict items = {} if kwargs is NULL else <dict>kwargs
    if len(sources) > 1:
        raise TypeError(f"Hamt expected at most 1 argument, got {len(sources)}")
    return EMPTY.update(*sources, **items)


cdef Hamt EMPTY = _new(EMPTY_NODE, 0)


@cython.final
@cython.no_gc_clear
@cython.freelist(4)
cdef class HamtIterator:
    """
    Walks one map, a node's entries before its children; its length is the map's, as in `context.keys()`."""

    cdef Hamt _hamt
    cdef int _kind
    cdef int _depth
    # Where the current node's entries continue, and where they end.
    cdef PyObject **_slot
    cdef PyObject **_end
    # The nodes from the root to the current one, borrowed from the map, and how many children of each are left.
    cdef Node *_nodes[8]
    cdef int _unvisited[8]
    cdef object _last

    def __iter__(self):
        return self

    def __len__(self):
        return self._hamt._count

    def __next__(self):
        cdef PyObject *given
        with cython.critical_section(self):
            given = self._next()
        # Raised here, because inside it would cost a traceback.
        if given is NULL:
            raise StopIteration
        return owned(given)

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.HamtIterator' object")

    cdef PyObject *_next(self) except? NULL:
        cdef PyObject **slot = self._slot
        cdef PyObject *given
        cdef tuple pair
        if slot is self._end:
            if not self._advance():
                return NULL
            slot = self._slot
        self._slot = slot + 2
        if self._kind != ITEMS:
            given = slot[self._kind]
            xincref(given)
            return given
        given = reused(<PyObject *>self._last, slot[0], slot[1])
        if given is NULL:
            pair = <object>slot[0], <object>slot[1]
            # One that other code keeps stays the last: when it is let go, it can be used again.
            if self._last is None:
                self._last = pair
            given = <PyObject *>pair
            xincref(given)
        return given

    cdef bint _advance(self) noexcept:
        # Moves to the next node that has entries; False if there is none.
        cdef PyObject **child
        cdef Node *node
        cdef int depth = self._depth
        while self._slot is self._end:
            while not self._unvisited[depth]:
                if depth == 0:
                    return False
                depth -= 1
            node = self._nodes[depth]
            self._unvisited[depth] -= 1
            child = node.slots + size_of(node) - popcount(node.children) + self._unvisited[depth]
            if self._unvisited[depth]:
                prefetch_slots(<Node *>(child - 1)[0])
            depth += 1
            self._depth = depth
            self._enter(<Node *>child[0])
        return True

    cdef int _enter(self, Node *node) noexcept:
        cdef int children = popcount(node.children)
        self._nodes[self._depth] = node
        self._unvisited[self._depth] = children
        self._slot = node.slots
        self._end = node.slots + size_of(node) - children
        return 0


cdef object iterate(Hamt hamt, int kind):
    cdef HamtIterator iterator = HamtIterator.__new__(HamtIterator)
    iterator._kind = kind
    iterator._hamt = hamt
    iterator._enter(<Node *>hamt._root)
    return iterator


@cython.no_gc_clear
cdef class _View:
    # What all views share.

    cdef Hamt _mapping

    @property
    def mapping(self):
        """The map that this is a view of."""
        return self._mapping

    def __len__(self):
        return self._mapping._count

    __class_getitem__ = classmethod(GenericAlias)


@cython.no_gc_clear
cdef class _SetView(_View):
    # What keys and items share as abstract sets.

    def isdisjoint(self, other, /):
        """Return True if two sets have a null intersection."""
        return is_disjoint(self, other)

    def __eq__(self, other):
        if type(self) is HamtItems and type(other) is HamtItems:
            return self._mapping == (<HamtItems>other)._mapping
        return Set.__eq__(self, other)

    def __le__(self, other):
        if type(self) is HamtKeys and type(other) is HamtKeys:
            return self._mapping._is_within((<HamtKeys>other)._mapping)
        if type(self) is HamtItems and type(other) is HamtItems:
            return are_within(self, other)
        return Set.__le__(self, other)

    def __lt__(self, other):
        return Set.__lt__(self, other)

    def __ge__(self, other):
        if type(self) is HamtKeys and type(other) is HamtKeys:
            return (<HamtKeys>other)._mapping._is_within(self._mapping)
        if type(self) is HamtItems and type(other) is HamtItems:
            return are_within(other, self)
        return Set.__ge__(self, other)

    def __gt__(self, other):
        return Set.__gt__(self, other)

    def __and__(self, other):
        return common(self, other)

    def __or__(self, other):
        return Set.__or__(self, other)

    def __sub__(self, other):
        return Set.__sub__(self, other)

    def __xor__(self, other):
        return symmetric_difference(self, other)

    def __rand__(self, other):
        return common(self, other)

    def __ror__(self, other):
        return Set.__ror__(self, other)

    def __rsub__(self, other):
        return Set.__rsub__(self, other)

    def __rxor__(self, other):
        return symmetric_difference(self, other)

    __hash__ = None
    _from_iterable = set


@cython.final
@cython.no_gc_clear
cdef class HamtKeys(_SetView):
    """
    The keys of a map, as `Hamt.keys` gives them: a set that is never copied; its operators give builtin sets.

    >>> keys = Hamt(a=1, b=2).keys()
    >>> "a" in keys, keys & {"a", "c"}, keys.mapping["b"]
    (True, {'a'}, 2)
    """

    def __contains__(self, key):
        return key in self._mapping

    def __iter__(self):
        return iterate(self._mapping, KEYS)

    def __repr__(self):
        return f"HamtKeys({list(self)!r})"

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.HamtKeys' object")


@cython.final
@cython.no_gc_clear
cdef class HamtValues(_View):
    """
    The values of a map, as `Hamt.values` gives them.

    >>> values = Hamt(a=1, b=2).values()
    >>> sorted(values), 2 in values, len(values.mapping)
    ([1, 2], True, 2)
    """

    def __contains__(self, value):
        for other in self:
            if value is other or value == other:
                return True
        return False

    def __iter__(self):
        return iterate(self._mapping, VALUES)

    def __repr__(self):
        return f"HamtValues({list(self)!r})"

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.HamtValues' object")


@cython.final
@cython.no_gc_clear
cdef class HamtItems(_SetView):
    """
    The (key, value) pairs of a map, as `Hamt.items` gives them: a set; its operators give builtin sets.

    >>> items = Hamt(a=1, b=2).items()
    >>> ("a", 1) in items, items - {("b", 2)}, items.mapping["b"]
    (True, {('a', 1)}, 2)
    """

    def __contains__(self, item):
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        key, value = item
        mine = self._mapping.get(key, ABSENT)
        return mine is not ABSENT and (value is mine or bool(value == mine))

    def __iter__(self):
        return iterate(self._mapping, ITEMS)

    def __repr__(self):
        return f"HamtItems({list(self)!r})"

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.HamtItems' object")


@cython.final
@cython.no_gc_clear
@cython.freelist(4)
cdef class HamtMutation:
    """
    Makes one new map of many changes; `Hamt.mutate` returns it.

    It reads and changes like a dict; iterators and views show what it held when they began. A change takes O(log n),
    and is one step: if another thread, or a key's `__hash__` or `__eq__`, changes the mutation meanwhile, no change is
    lost. After `finish` every change is a ValueError.

    >>> mutation = Hamt(a=1).mutate()
    >>> mutation["b"] = 2
    >>> mutation.pop("a")
    1
    >>> mutation.finish()
    Hamt({'b': 2})
    """

    cdef object __weakref__
    # Changed in place as long as nothing else holds it.
    cdef Hamt _hamt
    cdef bint _finished

    def get(self, key, default=None, /):
        """Return the value of the key, or the default if the key is missing. O(log n).

        >>> Hamt(a=1).mutate().get("b", 0)
        0
        """
        value = self._find(key)
        return default if value is ABSENT else value

    def set(self, key, value, /):
        """Set the key, like `mutation[key] = value`. O(log n).

        >>> mutation = Hamt().mutate()
        >>> mutation.set("a", 1)
        >>> mutation["a"]
        1
        """
        self._store(key, value)

    @cython.embedsignature(False)
    def pop(self, key, default=ABSENT, /):
        """pop($self, key, default=..., /)\n--\n
        Remove the key and return its value; if it is missing, the default, or KeyError without one. O(log n).

        >>> mutation = Hamt(a=1).mutate()
        >>> mutation.pop("a"), mutation.pop("a", 0)
        (1, 0)
        """
        return self._take(key, default)

    def update(self, source=(), /, **items):
        """Set all entries of `Hamt(source, **items)`, or none on an error. As `Hamt.update`.

        >>> mutation = Hamt(a=1).mutate()
        >>> mutation.update({"a": 2}, b=3)
        >>> mutation.finish() == Hamt(a=2, b=3)
        True
        """
        cdef Hamt hamt
        self._refuse_finished()
        if type(source) is not Hamt:
            source, items = _as_dict(source, items), {}
            if len(<dict>source) == 1:
                for key, value in (<dict>source).items():
                    self._store(key, value)
                return
        while True:
            hamt = self._unfinished()
            if self._replace(hamt, hamt.update(source, **items)):
                return

    def finish(self):
        """Return the new map, or the old map itself if nothing was changed. The mutation takes no further change.

        >>> hamt = Hamt(a=1)
        >>> hamt.mutate().finish() is hamt
        True
        """
        with cython.critical_section(self):
            self._finished = True
            hamt = self._hamt
        return hamt

    def keys(self):
        """Return a view of the keys of now, as `Hamt.keys`.

        >>> mutation = Hamt(a=1).mutate()
        >>> keys = mutation.keys()
        >>> mutation["b"] = 2
        >>> list(keys)
        ['a']
        """
        return self._now().keys()

    def values(self):
        """Return a view of the values of now, as `Hamt.values`.

        >>> list(Hamt(a=1).mutate().values())
        [1]
        """
        return self._now().values()

    def items(self):
        """Return a view of the (key, value) pairs of now, as `Hamt.items`.

        >>> list(Hamt(a=1).mutate().items())
        [('a', 1)]
        """
        return self._now().items()

    def __getitem__(self, key):
        value = self._find(key)
        if value is ABSENT:
            raise KeyError(key)
        return value

    def __setitem__(self, key, value):
        self._store(key, value)

    def __delitem__(self, key):
        self._take(key, ABSENT)

    def __contains__(self, key):
        return self._find(key) is not ABSENT

    def __len__(self):
        return self._now()._count

    def __iter__(self):
        return iterate(self._now(), KEYS)

    def __enter__(self):
        self._refuse_finished()
        return self

    def __exit__(self, *exception):
        self.finish()

    def __eq__(self, other):
        return self._now() == (<HamtMutation>other)._now() if type(other) is HamtMutation else NotImplemented

    def __repr__(self):
        if Py_ReprEnter(self):
            return "HamtMutation({...})"
        try:
            return f"HamtMutation({_braced(self._now())})"
        finally:
            Py_ReprLeave(self)

    __reversed__ = None
    __hash__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.HamtMutation' object")

    cdef inline Hamt _now(self):
        with cython.critical_section(self):
            hamt = self._hamt
        return hamt

    cdef inline Hamt _unfinished(self):
        self._refuse_finished()
        return self._now()

    cdef inline int _refuse_finished(self) except -1:
        if self._finished:
            raise ValueError("the mutation has been finished; call mutate() on a map for another one")
        return 0

    cdef inline object _find(self, object key):
        cdef Hamt hamt = self._now()
        cdef PyObject *value = look_up(hamt, key)
        return ABSENT if value is NULL else <object>value

    cdef int _store(self, object key, object value) except -1:
        cdef Hamt hamt
        cdef Py_hash_t key_hash
        cdef uint32_t folded
        cdef Change change
        self._refuse_finished()
        key_hash = hash(key)
        folded = fold(key_hash)
        while True:
            hamt = self._unfinished()
            prepare_assoc(
                &change, <Node *>hamt._root, folded, <PyObject *>key, <PyObject *>value, key_hash, is_sole(hamt)
            )
            if change.found == THERE and value_at(&change) is <PyObject *>value:
                return 0
            if self._make(hamt, &change, <PyObject *>key, <PyObject *>value, change.found != THERE):
                return 0

    cdef object _take(self, object key, object default):
        cdef Hamt hamt
        cdef Py_hash_t key_hash
        cdef uint32_t folded
        cdef Change change
        self._refuse_finished()
        key_hash = hash(key)
        folded = fold(key_hash)
        while True:
            hamt = self._unfinished()
            prepare_dissoc(&change, <Node *>hamt._root, folded, <PyObject *>key, key_hash, is_sole(hamt))
            if change.found != THERE:
                if default is ABSENT:
                    raise KeyError(key)
                return default
            value = <object>value_at(&change)
            if self._make(hamt, &change, NULL, NULL, -1):
                return value

    cdef bint _make(self, Hamt hamt, Change *change, PyObject *key, PyObject *value, Py_ssize_t added) except -1:
        # False if another change came first.
        cdef Py_ssize_t count = hamt._count + added
        if count == 0:
            drop_change(change)
            return self._replace(hamt, EMPTY)
        if change.sole == 0:
            made = owned(<PyObject *>change.made)
            return self._replace(hamt, _new(made, count))
        if self._hamt is not hamt or self._finished or not is_sole(hamt):
            drop_change(change)
            return False
        # First, because what is replaced may run user code as it is freed.
        hamt._count, hamt._hash = count, 0
        if make_change(change, root_of(hamt), key, value):
            return True
        hamt._count -= added
        return False

    cdef bint _replace(self, Hamt hamt, Hamt changed) except -1:
        cdef bint is_first
        with cython.critical_section(self):
            is_first = self._hamt is hamt and not self._finished
            if is_first:
                self._hamt = changed
        return is_first


cdef int _clear_mutation(HamtMutation self) noexcept:
    # A finished mutation can be a value of its own map, and nothing else breaks that cycle. Never None, because no code
    # checks for it.
    self._hamt = EMPTY
    return 0


cdef int match_as_mapping(object kind) except -1:
    # Registering with Mapping does this for Python classes, so that `match` treats them as mappings.
    (<PyTypeObject *>kind).tp_flags |= Py_TPFLAGS_MAPPING
    return 0


Mapping.register(Hamt)
collections.abc.KeysView.register(HamtKeys)
collections.abc.ValuesView.register(HamtValues)
collections.abc.ItemsView.register(HamtItems)
match_as_mapping(Hamt)
publish(Hamt, _sealed.PACKAGE, <newfunc>_hamt_from_call)
publish(HamtIterator, _sealed.PACKAGE, <newfunc>_refuse_call)
publish(HamtKeys, _sealed.PACKAGE, <newfunc>_refuse_call)
publish(HamtValues, _sealed.PACKAGE, <newfunc>_refuse_call)
publish(HamtItems, _sealed.PACKAGE, <newfunc>_refuse_call)
publish(HamtMutation, _sealed.PACKAGE, <newfunc>_refuse_call)
(<PyTypeObject *>HamtMutation).tp_clear = <inquiry>_clear_mutation
(<PyTypeObject *>HamtMutation).tp_hash = <hashfunc>PyObject_HashNotImplemented
(<PyTypeObject *>HamtKeys).tp_hash = <hashfunc>PyObject_HashNotImplemented
(<PyTypeObject *>HamtItems).tp_hash = <hashfunc>PyObject_HashNotImplemented
