# cython: language_level=3, binding=False, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
# cython: nonecheck=True, freethreading_compatible=True
"""The compiled twin of `_context_py`, which explains what both do."""

cimport cython
from cpython.contextvars cimport (
    PyContext_Copy,
    PyContext_CopyCurrent,
    PyContext_Enter,
    PyContext_Exit,
    PyContext_New,
    PyContextVar_Get,
    PyContextVar_New,
)
from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject, PyTypeObject, hashfunc, newfunc
from cpython.pystate cimport PyThreadState
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uint32_t, uint64_t

from contextvars_cy._hamt_cy cimport EMPTY, ITEMS, KEYS, VALUES, Hamt, iterate, match_as_mapping, publish

import sys
from collections.abc import Mapping
from types import GenericAlias
from weakref import ref

from _weakref import _remove_dead_weakref

from contextvars_cy._backend import host
from contextvars_cy._sentinels import ABSENT as _ABSENT, MISSING as _MISSING

cdef object ABSENT = _ABSENT
cdef bint NATIVE = host == "native"
cdef uint32_t _serial = 0

cdef extern from *:
    """
    static int visit_native_context(PyObject *referent, void *found) {
        if (!PyContext_CheckExact(referent)) return 0;
        *(PyObject **)found = referent;
        return 1;
    }

    /* A token keeps its Context private, but shows it to the garbage collector; borrowed. */
    static PyObject *native_context_of(PyObject *token) {
        PyObject *context = NULL;
        Py_TYPE(token)->tp_traverse(token, visit_native_context, &context);
        return context;
    }

    /* Moves whenever this thread enters or leaves a native Context. A public field that a later Python may drop: there
       it moves at every look, which is slower but as right. */
    static uint64_t native_version(void) {
    #if PY_VERSION_HEX < 0x03100000
        return PyThreadState_Get()->context_ver;
    #else
        static uint64_t version = 0;
        return ++version;
    #endif
    }

    /* CPython reads and changes a Context without a lock, also where there is no GIL (its issue 155519). So whatever
       here touches a native Context that another thread can see does it in a critical section of that Context. */
    static PyObject *native_set(PyObject *anchor, PyObject *value) {
    #ifdef Py_GIL_DISABLED
        PyObject *context = PyThreadState_Get()->context;
        if (context != NULL) {
            PyObject *token;
            Py_BEGIN_CRITICAL_SECTION(context);
            token = PyContextVar_Set(anchor, value);
            Py_END_CRITICAL_SECTION();
            return token;
        }
    #endif
        return PyContextVar_Set(anchor, value);
    }
    """
    PyObject *native_context_of(object token) noexcept
    uint64_t native_version() noexcept
    object native_set(object anchor, object value)

cdef extern from "Python.h":
    PyObject *PyThreadState_GetDict() noexcept
    Py_hash_t PyObject_HashNotImplemented(object value) except -1


@cython.final
cdef class ContextVar:
    """ContextVar(name, /, *, default=ABSENT)\n--\n
    A variable of which every Context holds a value of its own (PEP 567).

    `name` is for people to read; `default` is what `get` returns where the current Context has no value. Create
    variables at the top level of a module: a Context keeps alive every variable that was set in it.

    >>> user = ContextVar("user", default="nobody")
    >>> with user.set("ada"):
    ...     user.get()
    'ada'
    >>> user.get()
    'nobody'
    """

    def __cinit__(self, name=ABSENT, /, *, default=ABSENT):
        global _serial
        if name is ABSENT:
            raise TypeError("ContextVar() takes exactly 1 positional argument (0 given)")
        if not isinstance(name, str):
            raise TypeError("context variable name must be a str")
        hash(name)
        self._name = name
        self._default = default
        with cython.critical_section(ABSENT):
            self._hash = _serial
            _serial += 1

    @property
    def name(self):
        """The name that the variable was created with."""
        return self._name

    def get(self, default=ABSENT, /):
        """Return the variable's value in the current Context. O(log n) in the number of variables set there.

        Where there is none: the argument, else the variable's own default, else LookupError.

        >>> ContextVar("colour", default="blue").get()
        'blue'
        >>> ContextVar("colour", default="blue").get("red")
        'red'
        """
        return contextvar_get(self, default)

    def set(self, value, /):
        """Set the variable in the current Context and return a Token that undoes it. O(log n).

        The Token is for `reset`, or undoes the set itself at the end of a `with` block.

        >>> colour = ContextVar("colour")
        >>> token = colour.set("blue")
        >>> colour.get()
        'blue'
        >>> colour.reset(token)
        """
        return contextvar_set(self, value)

    def reset(self, token, /):
        """Give the variable back the value it had before the `set` that made the token. O(log n).

        TypeError for what is no Token, RuntimeError for a token that was used already, ValueError for one that was
        made by another variable or in another Context; after any of these nothing has changed.

        >>> colour = ContextVar("colour")
        >>> token = colour.set("blue")
        >>> colour.reset(token)
        >>> colour.get("none")
        'none'
        """
        if type(token) is not Token:
            raise TypeError(f"expected an instance of Token, got {token!r}")
        contextvar_reset(self, token)

    def __hash__(self):
        return self._hash

    def __repr__(self):
        default = "" if self._default is ABSENT else f" default={self._default!r}"
        return f"<ContextVar name={self._name!r}{default} at {id(self):#x}>"

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.ContextVar' object")

    __class_getitem__ = classmethod(GenericAlias)


cdef object contextvar_get(ContextVar var, object default=ABSENT):
    value = _load()._find(var, var._hash)
    if value is not ABSENT:
        return value
    if default is not ABSENT:
        return default
    if var._default is not ABSENT:
        return var._default
    raise LookupError(var)


cdef Token contextvar_set(ContextVar var, object value):
    cdef Token token = Token.__new__(Token)
    token._var = var
    _update(var, value, token)
    return token


cdef int contextvar_reset(ContextVar var, Token token) except -1:
    here = _here()
    if token._used:
        raise RuntimeError(f"{token!r} has already been used once")
    if token._var is not var:
        raise ValueError(f"{token!r} was created by a different ContextVar")
    if token._context is not here:
        raise ValueError(f"{token!r} was created in a different Context")
    token._used = True
    try:
        _update(var, token._old_value, None)
    except BaseException:
        token._used = False
        raise
    return 0


@cython.final
cdef class Token:
    """What `ContextVar.set` returns: the variable, its old value, and the Context in which it was set (PEP 567).

    A Token can be used once, by `ContextVar.reset` or as a context manager.

    >>> colour = ContextVar("colour")
    >>> with colour.set("blue") as token:
    ...     token.var is colour, token.old_value
    (True, <Token.MISSING>)
    """

    MISSING = _MISSING

    @property
    def var(self):
        """The variable that was set."""
        return self._var

    @property
    def old_value(self):
        """The value that the variable had before, or `Token.MISSING`."""
        return _MISSING if self._old_value is ABSENT else self._old_value

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback, /):
        contextvar_reset(self._var, self)

    def __repr__(self):
        return f"<Token{' used' if self._used else ''} var={self._var!r} at {id(self):#x}>"

    __hash__ = None

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.Token' object")

    __class_getitem__ = classmethod(GenericAlias)


cdef object _refuse_token(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    raise RuntimeError("Tokens can only be created by ContextVars")


@cython.final
@cython.trashcan(True)
cdef class Context:
    """A mapping from every ContextVar that was set in it to its value (PEP 567).

    `Context()` is empty; `copy_context()` copies the current one. Code runs in a Context by `run`, or in the body of
    `with context:`. A Context can be entered once at a time; what the code sets stays in it. The body of the `with`
    must not `await` or `yield`: whoever continues would find itself in this Context.

    >>> colour = ContextVar("colour", default="blue")
    >>> context = Context()
    >>> with context:
    ...     token = colour.set("red")
    >>> colour.get(), context[colour]
    ('blue', 'red')
    """

    @property
    def native(self):
        """The native Context that this one wraps, for an API that insists on the real type; native host only."""
        if not NATIVE:
            raise AttributeError("a Context of the thread host wraps no native one; set CONTEXTVARS_CY_HOST=native")
        return self._native

    @cython.embedsignature(False)
    def run(self, /, *args, **kwargs):
        """run($self, callable, /, *args, **kwargs)\n--\n
        Call `callable(*args, **kwargs)` in this Context and return its result; O(1) beside the call.

        RuntimeError where the Context is entered already, in this thread or another.

        >>> colour = ContextVar("colour")
        >>> context = copy_context()
        >>> token = context.run(colour.set, "red")
        >>> context[colour]
        'red'
        """
        if not args:
            raise TypeError("run() missing 1 required positional argument")
        context_enter(self)
        try:
            return args[0](*args[1:], **kwargs)
        finally:
            context_exit(self)

    def copy(self):
        """Return a Context with the same values. O(1).

        >>> Context().copy() == Context()
        True
        """
        return _wrap(_copy_native(self)) if NATIVE else _with_snapshot(_snapshot_of(self))

    def get(self, key, default=None, /):
        """Return the value of the variable in this Context, or the default. O(log n). The variable's own default
        plays no part.

        >>> Context().get(ContextVar("colour", default="blue"))
        """
        cdef ContextVar var = _checked(key)
        value = _snapshot_of(self)._find(var, var._hash)
        return default if value is ABSENT else value

    def keys(self):
        """Return an iterator over the variables; O(n).

        >>> list(Context().keys())
        []
        """
        return iterate(_snapshot_of(self), KEYS)

    def values(self):
        """Return an iterator over the values; O(n).

        >>> list(Context().values())
        []
        """
        return iterate(_snapshot_of(self), VALUES)

    def items(self):
        """Return an iterator over the (variable, value) pairs; O(n).

        >>> list(Context().items())
        []
        """
        return iterate(_snapshot_of(self), ITEMS)

    def __getitem__(self, key):
        cdef ContextVar var = _checked(key)
        value = _snapshot_of(self)._find(var, var._hash)
        if value is ABSENT:
            raise KeyError(key)
        return value

    def __contains__(self, key):
        cdef ContextVar var = _checked(key)
        return _snapshot_of(self)._find(var, var._hash) is not ABSENT

    def __len__(self):
        return _snapshot_of(self)._count

    def __iter__(self):
        return self.keys()

    def __eq__(self, other):
        if type(other) is not Context:
            return NotImplemented
        return _snapshot_of(self) == _snapshot_of(other)

    __reversed__ = None

    def __enter__(self):
        context_enter(self)
        return self

    def __exit__(self, kind, error, traceback, /):
        context_exit(self)

    def __repr__(self):
        return f"<contextvars_cy.Context object at {id(self):#x}>"

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.Context' object")


cdef object _context_from_call(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    if <tuple>args or kwargs is not NULL and <dict>kwargs:
        raise TypeError("Context() does not accept any arguments")
    return _wrap(PyContext_New()) if NATIVE else _with_snapshot(EMPTY)


cdef ContextVar _checked(object key):
    if type(key) is not ContextVar:
        raise TypeError(f"a ContextVar key was expected, got {key!r}")
    return key


@cython.final
cdef class ThreadState:
    """Where one thread's current Context is found; `thread_state()` returns the calling thread's.

    For schedulers and interpreters of one's own, which enter and leave Contexts in other places than a `with` block:

    >>> state, context = thread_state(), Context()
    >>> state.enter(context)
    >>> state.context is context
    True
    >>> state.exit(context)
    """

    @property
    def context(self):
        """The thread's current Context itself, as `current_context()` returns it."""
        self._check_thread()
        return context_current()

    def enter(self, context, /):
        """Make the Context the current one, on top of those entered before. O(1).

        RuntimeError where it is entered already, in this thread or another.
        """
        self._check_thread()
        context_enter(_checked_context(context))

    def exit(self, context, /):
        """Make the Context that was current before this one the current one again. O(1).

        RuntimeError where this one is not the current Context, so exits out of order are refused.
        """
        self._check_thread()
        context_exit(_checked_context(context))

    def _check_thread(self):
        if self is not _thread_state():
            raise RuntimeError(f"{self!r} belongs to another thread; call thread_state() in this one")

    def __reduce__(self):
        raise TypeError("cannot pickle 'contextvars_cy.ThreadState' object")


cdef object _refuse_thread_state(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    raise RuntimeError("a thread has one ThreadState; ask thread_state() for it")


cdef Context _checked_context(object context):
    if type(context) is not Context:
        raise TypeError("an instance of Context was expected")
    return context


cdef str _STATE_KEY = "contextvars_cy._context_cy.ThreadState"


cdef ThreadState _thread_state():
    # The interpreter's own dictionary of the thread: cleared when the thread ends, as a threading.local is.
    cdef PyObject *thread = PyThreadState_GetDict()
    if thread is NULL:
        raise MemoryError
    cdef PyObject *found = PyDict_GetItemWithError(<dict>thread, _STATE_KEY)
    if found is not NULL:
        return <ThreadState>found
    cdef ThreadState state = ThreadState.__new__(ThreadState)
    if not NATIVE:
        state._base = state._current = _with_snapshot(EMPTY)
        state._base._home = ref(state)
    return (<dict>thread).setdefault(_STATE_KEY, state)


def thread_state():
    """Return the calling thread's ThreadState; it is made at the first call and gone with its thread. O(1).

    >>> thread_state() is thread_state()
    True
    """
    return _thread_state()


def current_context():
    """Return the current Context itself, not a copy: what is set later shows in it. O(1).

    On the thread host a Context is always the same object. On the native host two calls in one Context return the same
    object for as long as somebody holds the first; after that another object may stand for the same Context. It
    compares equal then, and tokens, which remember the native Context, do not mind.

    >>> colour = ContextVar("colour")
    >>> context = current_context()
    >>> with colour.set("red"):
    ...     context[colour], current_context() is context
    ('red', True)
    """
    return context_current()


def copy_context():
    """Return a copy of the current Context. O(1).

    >>> copy_context() == current_context()
    True
    """
    return context_copy_current()


# ---- the hosts: one switch, because a C function cannot be defined twice ----

cdef object _anchor = PyContextVar_New("contextvars_cy", NULL)
cdef object _get_native = type(PyContext_New()).get
cdef dict _wrappers = {}


class _Reference(ref):
    __slots__ = ("address",)


def _forget(reference):
    _remove_dead_weakref(_wrappers, getattr(reference, "address", None))


cdef Context _wrap(object native):
    known = _wrappers.get(id(native))
    context = None if known is None else known()
    return _registered(native) if context is None else context


cdef Context _registered(object native):
    cdef Context context = Context.__new__(Context)
    context._native = native
    reference = _Reference(context, _forget)
    reference.address = id(native)
    while True:
        wrapper = _wrappers.setdefault(id(native), reference)()
        if wrapper is not None:
            return wrapper
        _remove_dead_weakref(_wrappers, id(native))


cdef Hamt _load():
    cdef PyObject *found = NULL
    if NATIVE:
        PyContextVar_Get(_anchor, NULL, &found)
        if found is NULL:
            return EMPTY
        snapshot = <object>found
        Py_DECREF(snapshot)
        # Checked, because whoever lists the native Context can get hold of the anchor.
        return <Hamt?>snapshot
    return _snapshot_of(_thread_state()._current)


cdef int _update(ContextVar var, object value, Token token) except -1:
    cdef Hamt snapshot, expected, changed, found
    cdef Context context
    if NATIVE:
        snapshot = expected = changed = _load()
        try:
            while True:
                old_value = snapshot._find(var, var._hash)
                changed = _with(snapshot, var, value)
                native_token = native_set(_anchor, changed)
                found = _old_snapshot(native_token)
                if found is expected:
                    if token is not None:
                        token._old_value, token._context = old_value, <object>native_context_of(native_token)
                    return 0
                snapshot, expected = found, changed
        except BaseException:
            if changed is not snapshot and _load() is changed:
                native_set(_anchor, snapshot)
            raise
    context = _here()
    while True:
        snapshot = _snapshot_of(context)
        old_value = snapshot._find(var, var._hash)
        changed = _with(snapshot, var, value)
        with cython.critical_section(context):
            if context._snapshot is snapshot:
                if token is not None:
                    token._old_value, token._context = old_value, context
                context._snapshot = changed
                return 0


cdef object _here():
    cdef Hamt snapshot, expected, found
    cdef Context context
    if NATIVE:
        snapshot = expected = _load()
        while True:
            token = native_set(_anchor, snapshot)
            found = _old_snapshot(token)
            if found is expected:
                return <object>native_context_of(token)
            snapshot, expected = found, snapshot
    context = context_current()
    if context is _thread_state()._base:
        _refuse_event_loop()
    return context


cdef Hamt _old_snapshot(object token):
    old_value = token.old_value
    return <Hamt>old_value if type(old_value) is Hamt else EMPTY


cdef Context context_current():
    return _wrap(_here()) if NATIVE else _thread_state()._current


cdef Hamt _snapshot_of(Context context):
    # Without the GIL: another thread may be about to let go of the snapshot, in the middle of a set.
    if NATIVE:
        with cython.critical_section(context._native):
            return _get_native(context._native, _anchor, EMPTY)
    with cython.critical_section(context):
        return context._snapshot


cdef object _copy_native(Context context):
    with cython.critical_section(context._native):
        return PyContext_Copy(context._native)


cdef Context context_copy_current():
    return _wrap(PyContext_CopyCurrent()) if NATIVE else _with_snapshot(_load())


cdef int context_enter(Context context) except -1:
    cdef Context before
    cdef ThreadState state
    if NATIVE:
        try:
            with cython.critical_section(context._native):
                PyContext_Enter(context._native)
        except RuntimeError as error:
            _name_our_context(error, context)
            raise
        return 0
    state = _thread_state()
    before = state._current
    _check_home(context, state)
    cdef bint entered
    with cython.critical_section(context):
        entered, context._entered = context._entered, True
    if entered:
        raise RuntimeError(_ENTERED.format(context))
    context._before, state._current = before, context
    return 0


cdef int context_exit(Context context) except -1:
    cdef ThreadState state
    if NATIVE:
        try:
            with cython.critical_section(context._native):
                PyContext_Exit(context._native)
        except RuntimeError as error:
            _name_our_context(error, context)
            raise
        return 0
    state = _thread_state()
    if state._current is not context or context._before is None:
        raise _refusal_to_leave(context)
    state._current, context._before = context._before, None
    with cython.critical_section(context):
        context._entered = False
    return 0


cdef int _name_our_context(object error, Context context) except -1:
    for text in (_ENTERED, _NOT_ENTERED):
        if error.args == (text.format(context._native),):
            error.args = (text.format(context),)
    return 0


cdef int _refuse_event_loop() except -1:
    # A loop enters a native Context for each task's step and each callback: while the version stays, none has begun.
    cdef ThreadState state = _thread_state()
    cdef uint64_t version = native_version()
    if version == state._quiet_version:
        return 0
    events = sys.modules.get("asyncio.events")
    running_loop = getattr(events, "_get_running_loop", None)
    if running_loop is not None and running_loop() is not None:
        raise RuntimeError(_LEAK)
    state._quiet_version = version
    return 0


cdef Context _with_snapshot(Hamt snapshot):
    cdef Context context = Context.__new__(Context)
    context._snapshot = snapshot
    return context


cdef int _check_home(Context context, ThreadState state) except -1:
    home = None if context._home is None else context._home()
    if home is not None and home is not state:
        raise RuntimeError(_ENTERED.format(context))
    return 0


cdef object _refusal_to_leave(Context context):
    return RuntimeError(_NOT_ENTERED.format(context) if context._before is None else _DIFFERENT)


cdef Hamt _with(Hamt snapshot, ContextVar var, object value):
    if value is ABSENT:
        return snapshot._discard(var, var._hash)
    return snapshot._set(var, var._hash, value)


_ENTERED = "cannot enter context: {} is already entered"
_NOT_ENTERED = "cannot exit context: {} has not been entered"
_DIFFERENT = "cannot exit context: thread state references a different context object"
_LEAK = (
    "a context variable was set under a running asyncio event loop, in the thread's base Context: on the thread host "
    "every task would see it. Use the native host, which follows event loops (CONTEXTVARS_CY_HOST=native), or set it "
    "in a Context of your own (Context.run)"
)

# ---- end of the hosts ----

Mapping.register(Context)
match_as_mapping(Context)
publish(ContextVar, "contextvars_cy.ContextVar", NULL)
publish(Token, "contextvars_cy.Token", <newfunc>_refuse_token)
publish(Context, "contextvars_cy.Context", <newfunc>_context_from_call)
publish(ThreadState, "contextvars_cy.ThreadState", <newfunc>_refuse_thread_state)
for _public in (thread_state, current_context, copy_context):
    _public.__module__ = "contextvars_cy"

# For the slot: the name in the class body is only what Python code reads.
(<PyTypeObject *>Token).tp_hash = <hashfunc>PyObject_HashNotImplemented
