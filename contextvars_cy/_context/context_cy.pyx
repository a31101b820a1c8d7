# cython: language_level=3, binding=False, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
# cython: nonecheck=True, freethreading_compatible=True, unraisable_tracebacks=False
"""The compiled twin of `context_py`, which explains what both do."""

cimport cython
from cpython.contextvars cimport (
    PyContext_New,
    PyContextVar_New,
)
from cpython.dict cimport PyDict_GetItemWithError
from cpython.list cimport PyList_New
from cpython.weakref cimport PyWeakref_NewRef
from cpython.object cimport PyObject, PyTypeObject, freefunc, hashfunc, newfunc
from libc.stdint cimport uint32_t, uint64_t

from .._siblings_cy cimport import_sibling  # no-cython-lint: for its C code
from .._hamt.hamt_cy cimport EMPTY, ITEMS, KEYS, VALUES, Hamt, iterate, match_as_mapping
from .._hamt.trie_cy cimport (
    FIRST_HASH,
    Node,
    decref,
    find_identical,
    fold,
    has_references,
    owned,
    sole_slot,
    sole_with_entry,
    sole_without_entry,
    unfold,
    xincref,
)

import sys
from collections.abc import Mapping
from importlib import import_module
from types import GenericAlias, MethodType, WrapperDescriptorType

import _weakref

# As in `_hamt.trie_cy`.
_backend, _debug, _messages, _reprs, _sealed, _sentinels = [
    import_module(name, __package__)
    for name in (".._backend", ".debug", ".messages", ".._reprs", ".._sealed", ".._sentinels")
]
host = _backend.host

# When the interpreter ends, a module's names are gone before the last finalisers run; C variables are not.
cdef object ABSENT = _sentinels.ABSENT
cdef object MISSING = _sentinels.MISSING
cdef object ref = _weakref.ref
cdef object remove_dead_weakref = _weakref._remove_dead_weakref
cdef dict modules = sys.modules
cdef object origin = _debug.origin
cdef object warn_of_shared_default = _debug.warn_of_shared_default
cdef object context_repr = _reprs.context_repr
cdef object in_a_line = _reprs.in_a_line
cdef object noted = _sealed.noted
cdef object has_pairs = _messages.has_pairs
cdef object refuse_arguments = _messages.refuse_arguments
cdef object refuse_to_pickle = _sealed.refuse_to_pickle
cdef object whose = _messages.whose
cdef str ASSIGNS = _messages.ASSIGNS
cdef str DIFFERENT = _messages.DIFFERENT
cdef str ELSEWHERE = _messages.ELSEWHERE
cdef str CONTEXT = _messages.CONTEXT
cdef str ENTERED = _messages.ENTERED
cdef str LEAK = _messages.LEAK
cdef str NOT_ENTERED = _messages.NOT_ENTERED
cdef str UNSET = _messages.UNSET
cdef object bound_method = MethodType
cdef bint NATIVE = host == "native"
cdef bint DEBUG = _backend.debug
cdef bint TASKS_ARE_NATIVE = sys.version_info >= (3, 15)
cdef str ENTERING = f"{__package__}.entering"
cdef bint WATCHED = False
# Changes are watched, or noted in debug mode.
cdef bint TOLD = False
# Capabilities fill in the functions behind methods of ContextVar.
cdef dict _implementations = {"__reduce__": _sealed.refuse_unregistered, "explain": noted}
cdef object _tell_watchers = None
cdef object _note = None
cdef object _look = None
cdef object _entering = None
cdef uint32_t _serial = 0

cdef extern from "objects.h":
    bint HAS_GIL
    ctypedef struct free_list:
        pass
    PyObject *allocate(PyTypeObject *kind, free_list *freed) except NULL
    void release(PyObject *freed, free_list *kept) noexcept
    int raise_pending() except -1
    PyObject *referent_of(PyObject *reference) noexcept
    # From a pointer that owns a reference.
    Context as_context "(void *)"(PyObject *made)
    Token as_token "(void *)"(PyObject *made)
    void fill_token "FILL_TOKEN"(Token token, ContextVar var, PyObject *context) noexcept
    void fill_context "FILL_CONTEXT"(Context context, object native, Hamt snapshot) noexcept
    int exchange_entered "EXCHANGE_ENTERED"(Context context, int entered) noexcept
    # The old root is gone: nothing is counted.
    void put_root "PUT_ROOT"(Hamt snapshot, Node *root) noexcept
    PyObject **items_of "items_of_list"(list items) noexcept

cdef extern from "calls.h":
    ctypedef int (*initproc)(object, object, PyObject *) except -1
    object vectorcall "vectorcall_of"(PyObject *callable, PyObject *const *args, size_t count, PyObject *names)
    void be_called "BE_CALLED"(_InNativeContext function) noexcept
    int replace_init(PyTypeObject *kind, object init) except -1
    int replace_slot_init(PyTypeObject *kind, object replaced, initproc init, initproc *before) except -1

# What a pointer to a function can be cast to, and back.
ctypedef void (*any_function)() noexcept

cdef extern from "../_hamt/type_slots.h":
    int publish "publish_type"(object type, object package, newfunc called) except -1
    int replace_method(object kind, const char *name, any_function function, int flags) except -1

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    ctypedef struct PyInterpreterState:
        pass

cdef extern from "cpython_layout.h":
    uint64_t thread_id_here() noexcept
    uint64_t context_version() noexcept
    const uint64_t *context_version_here() noexcept
    PyObject *current_native_context() noexcept
    bint THREADS_ARE_SHOWN
    PyObject *native_context_of "NATIVE_CONTEXT_OF"(PyThreadState *thread) noexcept
    unsigned long ident_of "IDENT_OF"(PyThreadState *thread) noexcept
    PyObject *map_of_context(object context) noexcept
    bint layout_is_known
    PyObject *find_anchor(PyObject *context, bint *alone) noexcept
    PyObject *anchor_value_in(PyObject *context) noexcept
    PyObject *anchor_value_here() noexcept
    int probe_layout(object anchor, object value) except -1

cdef extern from "interpreter.h":
    int enter_native(object context) noexcept
    int exit_native(object context) noexcept
    object copy_native(object context)
    object copy_current_native()
    PyObject *context_of_token(object token) noexcept
    object set_native(object variable, object value)
    PyObject *value_in_native(object context, object variable) except? NULL
    PyObject *current_native_value(object variable) except? NULL
    int own_moves
    int watch_switches(void (*told)() noexcept) except -1

cdef extern from "thread_stack.h":
    uint64_t known_thread_id
    PyObject *known_thread_state
    int push "PUSH_CONTEXT"(ThreadState state, Context context) noexcept
    void pop "POP_CONTEXT"(ThreadState state) noexcept
    bint has_room "HAS_ROOM"(ThreadState state) noexcept
    bint is_topmost "IS_TOPMOST"(ThreadState state, Context context) noexcept

cdef extern from "Python.h":
    bint COLLECTS_AT_ALLOCATION "(PY_VERSION_HEX < 0x030C0000)"
    int METH_FASTCALL
    int METH_KEYWORDS
    Py_hash_t NOWHERE "PY_SSIZE_T_MIN"
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    int Py_EnterRecursiveCall(const char *where) except 1
    void Py_LeaveRecursiveCall() noexcept
    PyObject *PyThreadState_GetDict() noexcept
    uint64_t PyThreadState_GetID(PyThreadState *thread) noexcept
    PyInterpreterState *PyInterpreterState_Get() noexcept
    PyThreadState *PyInterpreterState_ThreadHead(PyInterpreterState *interpreter) noexcept
    PyThreadState *PyThreadState_Next(PyThreadState *thread) noexcept
    void PyErr_Clear() noexcept
    bint is_type "Py_IS_TYPE"(PyObject *thing, PyTypeObject *kind) noexcept
    bint next_item "PyDict_Next"(dict items, Py_ssize_t *position, PyObject **key, PyObject **value) noexcept
    Py_hash_t PyObject_HashNotImplemented(object value) except -1

# The number of the last snapshot that got one, below FIRST_HASH and never reused. No snapshot has the number NOWHERE.
cdef Py_hash_t _last_number = NOWHERE


@cython.final
cdef class ContextVar:
    """ContextVar(name, /, *, default=..., default_factory=None)\n--\n
    A variable that has its own value in every Context (PEP 567).

    `name` is for people to read; `get` returns `default` if the current Context has no value. `default_factory` is an
    alternative: the first `get` in a Context calls it without arguments and sets the value there, so that no Context
    made earlier shares it. Create variables at the top level of a module: a Context keeps alive every variable that was
    set in it.

    >>> user = ContextVar("user", default="nobody")
    >>> with user.set("ada"):
    ...     user.get()
    'ada'
    >>> user.get()
    'nobody'
    """

    def __cinit__(self, name=ABSENT, /, *more, default=ABSENT, default_factory=None, **unknown):
        global _serial
        if name is ABSENT or more or unknown:
            refuse_arguments((name is not ABSENT) + len(more), unknown)
        if not isinstance(name, str):
            raise TypeError("context variable name must be a str")
        hash(name)
        if default_factory is not None:
            if default is not ABSENT:
                raise TypeError("ContextVar() takes a default or a default_factory, not both")
            if not callable(default_factory):
                raise TypeError(f"default_factory must be callable, not {default_factory!r}")
        if DEBUG:
            warn_of_shared_default(name, default)
        self._name = name
        self._default = default
        self._default_factory = default_factory
        self._remembered_in = NOWHERE
        with cython.critical_section(ABSENT):
            self._hash = unfold(_serial)
            _serial += 1
        self._folded = fold(self._hash)

    @property
    def name(self):
        """The name that the variable was created with."""
        return self._name

    def get(self, default=..., /):
        """Return the variable's value in the current Context. O(log n) in the number of variables set there.

        Without a value there, return the argument, else the variable's default, or set and return what its
        `default_factory` makes, else raise LookupError.

        >>> ContextVar("colour", default="blue").get()
        'blue'
        >>> ContextVar("colour", default="blue").get("red")
        'red'
        >>> seen = ContextVar("seen", default_factory=list)
        >>> seen.get().append("red")
        >>> seen.get(), Context().run(seen.get)
        (['red'], [])
        """
        # `_get_called` replaces it, and takes its arguments as they come.

    def is_set(self):
        """Whether the current Context has a value for the variable; a default does not count. O(log n).

        >>> colour = ContextVar("colour", default="blue")
        >>> with colour.set("red"):
        ...     colour.is_set()
        True
        >>> colour.is_set()
        False
        """
        cdef Hamt snapshot = _current_snapshot()
        return _remembered_or_found(snapshot, self) is not NULL

    def set(self, value, /):
        """Set the variable in the current Context and return a Token that undoes it. O(log n).

        Pass the Token to `reset`, or use it in a `with` block, whose end undoes the set.

        >>> colour = ContextVar("colour")
        >>> token = colour.set("blue")
        >>> colour.get()
        'blue'
        >>> colour.reset(token)
        """
        return contextvar_set(self, value)

    def unset(self):
        """Remove the variable's value from the current Context and return a Token that undoes it. O(log n).

        >>> colour = ContextVar("colour", default="blue")
        >>> token = colour.set("red")
        >>> with colour.unset():
        ...     colour.get()
        'blue'
        >>> colour.get()
        'red'
        """
        return contextvar_set(self, ABSENT)

    def reset(self, token, /):
        """Restore the value that the variable had before the `set` that made the token. O(log n).

        TypeError if it is not a Token, RuntimeError if it was used already, ValueError if another variable made it or
        it was made in another Context. An error changes nothing. In debug mode, under `python -X dev` or with
        `CONTEXTVARS_CY_DEBUG=1`, the error says where the token was made.

        >>> colour = ContextVar("colour")
        >>> token = colour.set("blue")
        >>> colour.reset(token)
        >>> colour.get("none")
        'none'
        """
        if not is_type(<PyObject *>token, <PyTypeObject *>Token):
            raise TypeError(f"expected an instance of Token, got {token!r}{whose(token)}")
        contextvar_reset(self, <Token>token)

    def try_reset(self, token, /):
        """As `reset`, but return False, not an error, if the token was made in another Context; else True. O(log n).

        For cleanup that may run in another Context: the finaliser of an async generator, a callback, the end of a
        cancelled task. See CPython issue 118944.

        >>> colour = ContextVar("colour")
        >>> token = colour.set("blue")
        >>> copy_context().run(colour.try_reset, token)
        False
        >>> colour.try_reset(token)
        True
        """
        cdef Token made
        cdef PyObject *place
        if is_type(<PyObject *>token, <PyTypeObject *>Token):
            made = token
            place = <PyObject *>made._context
            if made._var is self and not made._used and place is not _place_of_set(place):
                _tell_of_refusal(self, made)
                return False
        self.reset(token)
        return True

    def watch(self, callback, /):
        """Call `callback(event)` after each change of this variable's value, with a `WatchEvent`. O(1).

        Returns a `Watcher`; its `cancel()` or the end of its `with` block stops it. It also fires if entering, leaving
        or switching Contexts changes the value. `contextvars_cy.watch` watches all variables.

        >>> colour = ContextVar("colour", default="blue")
        >>> with colour.watch(lambda event: print(event.kind, event.value)):
        ...     with colour.set("red"):
        ...         Context().run(colour.get)
        set red
        enter <Token.MISSING>
        exit red
        'blue'
        reset <Token.MISSING>
        """
        return _implementations["watch"](self, callback)

    def proxy(self):
        """Return an object that stands for whatever value the variable has at the moment.

        The `Proxy` forwards attributes, items, calls and operators to the value; without one they raise a LookupError
        that says so. Modelled on werkzeug's LocalProxy.

        >>> user = ContextVar("user", default="nobody")
        >>> current_user = user.proxy()
        >>> with user.set("ada"):
        ...     current_user.upper(), current_user + "!", f"{current_user:>5}"
        ('ADA', 'ada!', '  ada')
        >>> current_user == "nobody"
        True
        """
        return _implementations["proxy"](self)

    def __hash__(self):
        return self._hash

    def __repr__(self):
        default = "" if self._default is ABSENT else f" default={self._default!r}"
        if self._default_factory is not None:
            default = f" default_factory={self._default_factory!r}"
        return f"<ContextVar name={self._name!r}{default} at {id(self):#x}>"

    def __copy__(self):
        return self

    def __deepcopy__(self, memo, /):
        return self

    def __reduce__(self):
        return _implementations["__reduce__"](self)

    __class_getitem__ = classmethod(GenericAlias)


@cython.nonecheck(False)
cdef object _get_called(PyObject *self, PyObject *const *args, Py_ssize_t count):
    # The usual path alone: for the rare ones the compiler would save registers.
    cdef PyObject *snapshot = _snapshot_at_hand()
    cdef PyObject *value
    if snapshot is not NULL and count <= 1:
        value = _remembered_or_found(<Hamt>snapshot, <ContextVar>self)
        if value is NULL:
            value = args[0] if count else <PyObject *>(<ContextVar>self)._default
            if value is <PyObject *>ABSENT or WATCHED:
                return _get_slowly(<ContextVar>self, args, count)
        return <object>value
    return _get_slowly(<ContextVar>self, args, count)


cdef object _get_slowly(ContextVar var, PyObject *const *args, Py_ssize_t count):
    if count > 1:
        raise TypeError(f"get expected at most 1 argument, got {count}")
    cdef Hamt snapshot = _current_snapshot()
    cdef PyObject *value = _remembered_or_found(snapshot, var)
    if value is NULL:
        value = args[0] if count else <PyObject *>ABSENT
        if value is <PyObject *>ABSENT:
            value = <PyObject *>var._default
        if value is <PyObject *>ABSENT:
            if var._default_factory is not None:
                return _make_default(var)
        if WATCHED:
            _tell("read", var, ABSENT, <object>value)
        if value is <PyObject *>ABSENT:
            raise _implementations["explain"](LookupError(var), UNSET)
    return <object>value


cdef object _make_default(ContextVar var):
    value = var._default_factory()
    cdef Token token = contextvar_set(var, value)
    if token._old_value is ABSENT:
        return value
    contextvar_reset(var, token)
    return token._old_value


cdef object contextvar_get(ContextVar var, object default=ABSENT):
    cdef PyObject *argument = <PyObject *>default
    return _get_called(<PyObject *>var, &argument, 1)


cdef Token contextvar_set(ContextVar var, object value):
    cdef PyObject *place = _place_of_set()
    # Held, if allocating memory may run a finaliser that leaves the Context.
    cdef object _held = <object>place if COLLECTS_AT_ALLOCATION else None
    cdef PyObject *token = allocate(<PyTypeObject *>Token, &_free_tokens)
    cdef PyObject *old_value
    fill_token(<Token>token, var, place)
    if DEBUG:
        place = _note_origin(token)
    old_value = _exchange_in_place(place, var, <PyObject *>value)
    if old_value is not NULL:
        (<Token>token)._old_value = owned(old_value)
        if not TOLD:
            return as_token(token)
    owner = as_token(token)
    if old_value is NULL:
        (<Token>token)._old_value = _update(place, var, value)
    if TOLD:
        _tell_of_set(<Token>token, value)
    return owner


cdef PyObject *_note_origin(PyObject *token) except NULL:
    # Python code, which may leave the Context.
    cdef PyObject *place
    try:
        (<Token>token)._origin = origin()
        place = _place_of_set()
        (<Token>token)._context = <object>place
    except BaseException:
        decref(token)
        raise
    return place


cdef int _tell_of_refusal(ContextVar var, Token token) except -1:
    if WATCHED:
        _tell("refuse", var, ABSENT, native_wrap(token._context) if NATIVE else token._context)
    return 0


cdef int contextvar_reset(ContextVar var, Token token) except -1:
    cdef PyObject *place = _place_of_set(<PyObject *>token._context)
    if token._used:
        raise RuntimeError(f"{token!r} has already been used once{_made_where(token._origin)}")
    if token._var is not var:
        raise ValueError(f"{token!r} was created by a different ContextVar{_made_where(token._origin)}")
    if <PyObject *>token._context is not place:
        _tell_of_refusal(var, token)
        raise noted(
            ValueError(f"{token!r} was created in a different Context{_made_where(token._origin)}"), ELSEWHERE
        )
    token._used = True
    cdef PyObject *old_value = _exchange_in_place(place, var, <PyObject *>token._old_value)
    if old_value is not NULL:
        before = owned(old_value)
        if TOLD:
            _tell_of_change("reset", var, before, token._old_value)
        return 0
    try:
        before = _update(place, var, token._old_value)
    except BaseException:
        token._used = False
        raise
    if TOLD:
        _tell_of_change("reset", var, before, token._old_value)
    return 0


@cython.final
cdef class Token:
    """What `ContextVar.set` returns: the variable, its old value, and the Context in which it was set (PEP 567).

    A Token works once, in `ContextVar.reset` or as a context manager.

    >>> colour = ContextVar("colour")
    >>> with colour.set("blue") as token:
    ...     token.var is colour, token.old_value
    (True, <Token.MISSING>)
    """

    MISSING = _sentinels.MISSING

    @property
    def var(self):
        """The variable that was set."""
        return self._var

    @property
    def old_value(self):
        """The value that the variable had before, or `Token.MISSING`."""
        return MISSING if self._old_value is ABSENT else self._old_value

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback, /):
        contextvar_reset(self._var, self)

    def __repr__(self):
        return f"<Token{' used' if self._used else ''} var={self._var!r} at {id(self):#x}>"

    __hash__ = None

    def __reduce__(self):
        refuse_to_pickle("Token")

    __class_getitem__ = classmethod(GenericAlias)


cdef str _made_where(object made):
    return f"; it was made {made}" if DEBUG else ""


cdef free_list _free_tokens


cdef void _free_token(void *token) noexcept:
    release(<PyObject *>token, &_free_tokens)


cdef object _refuse_token(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    raise RuntimeError("Tokens can only be created by ContextVars")


@cython.final
@cython.freelist(16)
cdef class Assignment:
    """What `assign` returns; it undoes the assignment once, by `undo` or at the end of a `with` block.

    >>> colour = ContextVar("colour", default="blue")
    >>> with assign({colour: "red"}):
    ...     colour.get()
    'red'
    >>> colour.get()
    'blue'
    """

    def undo(self):
        """Restore the value that every variable had before: all of them, or none on an error. O(m log n).

        RuntimeError if it was undone already, ValueError in another Context than that of the `assign`.

        >>> colour = ContextVar("colour", default="blue")
        >>> assignment = assign({colour: "red"})
        >>> assignment.undo()
        >>> colour.get()
        'blue'
        """
        _undo_assignment(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback, /):
        _undo_assignment(self)

    def __repr__(self):
        names = sorted([var.name for var in (<list>self._old_value)[::2]])
        return f"<Assignment{' undone' if self._used else ''} of {{{in_a_line(names, len(names))}}} at {id(self):#x}>"

    __hash__ = None

    def __reduce__(self):
        refuse_to_pickle("Assignment")


cdef int _undo_assignment(Assignment assignment) except -1:
    cdef PyObject *place = _place_of_set(<PyObject *>assignment._context)
    if assignment._used:
        raise RuntimeError(f"{assignment!r} has already been undone{_made_where(assignment._origin)}")
    if <PyObject *>assignment._context is not place:
        raise ValueError(f"{assignment!r} was made in a different Context{_made_where(assignment._origin)}")
    assignment._used = True
    # `_update` may put the earlier values into this list.
    changes = _as_dict(assignment._old_value) if TOLD else None
    try:
        before = _update(place, None, assignment._old_value)
    except BaseException:
        assignment._used = False
        raise
    if TOLD and changes is not None:
        _tell_of_change("reset", None, _as_dict(before), changes)
    return 0


cdef object _refuse_assignment(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    raise RuntimeError("Assignments can only be created by assign()")


@cython.embedsignature(False)
def assign(values=ABSENT, /, *more):
    """assign(values, /)\n--\n
    Set many variables in the current Context at once: all, or none on an error. O(m log n) for m of n.

    `values` is a mapping from ContextVar to value, or what `dict` takes. TypeError for a key that is not a ContextVar.
    Returns an `Assignment`, which undoes all at once, by `undo` or at the end of a `with` block. From three variables
    on, faster than calls of `ContextVar.set`.

    >>> user, tenant = ContextVar("user", default="nobody"), ContextVar("tenant")
    >>> with assign({user: "ada", tenant: "acme"}):
    ...     user.get(), tenant.get()
    ('ada', 'acme')
    >>> user.get(), tenant.get(None)
    ('nobody', None)
    """
    if values is ABSENT or more:
        raise TypeError(f"{ASSIGNS}, not {(values is not ABSENT) + len(more)} arguments")
    cdef dict pairs = <dict>values if type(values) is dict else _pairs(values)
    cdef list changes
    cdef Py_ssize_t position = 0, index = 0
    cdef PyObject *key
    cdef PyObject *value
    cdef Assignment assignment = Assignment.__new__(Assignment)
    # The interpreter checks the stack before it calls `__exit__`, but not always before this.
    Py_EnterRecursiveCall(" while calling a Python object")
    Py_LeaveRecursiveCall()
    if DEBUG:
        assignment._origin = origin()
    # A list of variables and values in turn: exchanging values in it needs no reference counting.
    with cython.critical_section(pairs):
        changes = PyList_New(2 * len(pairs))
        while next_item(pairs, &position, &key, &value):
            _checked_variable(<object>key)
            xincref(key)
            xincref(value)
            items_of(changes)[index], items_of(changes)[index + 1] = key, value
            index += 2
    cdef PyObject *place = _place_of_set()
    assignment._context = <object>place
    told = _as_dict(changes) if TOLD else None
    assignment._old_value = _update(place, None, changes)
    if TOLD and told is not None:
        _tell_of_change("set", None, _as_dict(assignment._old_value), told)
    return assignment


cdef dict _pairs(object values):
    is_pair = type(values) is tuple and values and type(values[0]) is ContextVar
    if type(values) is ContextVar or is_pair or not has_pairs(values):
        raise TypeError(f"{ASSIGNS}, not a {type(values).__name__}")
    return dict(values)


@cython.final
cdef class Context:
    """Context()\n--\n
    A mapping from each ContextVar that was set in it to its value (PEP 567).

    `Context()` is empty; `copy_context()` copies the current one. Code runs in a Context by `run`, or in the body of
    `with context:`; what it sets stays there. A Context can be entered only once at a time. Do not await or yield in
    the body of the `with`: the code that runs meanwhile would run in this Context.

    >>> colour = ContextVar("colour", default="blue")
    >>> context = Context()
    >>> with context:
    ...     token = colour.set("red")
    >>> colour.get(), context[colour]
    ('blue', 'red')
    """

    @property
    def native(self):
        """The native Context that this one wraps, for an API that demands the real type; native host only."""
        if not NATIVE:
            raise AttributeError("a Context of the thread host wraps no native one; set CONTEXTVARS_CY_HOST=native")
        native_registered(self)
        return self._native

    @cython.embedsignature(False)
    def run(self, /, *args, **kwargs):
        """run($self, callable, /, *args, **kwargs)\n--\n
        Call `callable(*args, **kwargs)` in this Context and return its result; O(1) beside the call.

        RuntimeError if the Context is entered already, in this thread or another.

        >>> colour = ContextVar("colour")
        >>> context = copy_context()
        >>> token = context.run(colour.set, "red")
        >>> context[colour]
        'red'
        """
        # `_run_called` replaces it.

    def copy(self):
        """Return a Context with the same values. O(1).

        >>> Context().copy() == Context()
        True
        """
        return _copy_of(self)

    __copy__ = copy

    def __deepcopy__(self, memo, /):
        return _copy_of(self)

    def get(self, key, default=None, /):
        """Return the value of the variable in this Context, or the default. O(log n). The variable's own default is
        ignored.

        >>> Context().get(ContextVar("colour", default="blue"))
        """
        return owned(_value_in(self, key, <PyObject *>default))

    def keys(self):
        """Return an iterator over the variables; O(n).

        >>> list(Context().keys())
        []
        """
        return iterate(_shown_values(self), KEYS)

    def values(self):
        """Return an iterator over the values; O(n).

        >>> list(Context().values())
        []
        """
        return iterate(_shown_values(self), VALUES)

    def items(self):
        """Return an iterator over the (variable, value) pairs; O(n).

        >>> list(Context().items())
        []
        """
        return iterate(_shown_values(self), ITEMS)

    def diff(self, other, /):
        """Return the changes from this Context's values to the other's, a `HamtDiff` of added, removed and changed.

        Values are compared by identity first, then by `==`. Comparing a Context with its copy takes time in the size of
        their difference, else O(n). TypeError if `other` is not a Context.

        >>> colour = ContextVar("colour", default="blue")
        >>> before = copy_context()
        >>> with colour.set("red"):
        ...     before.diff(current_context()).added == {colour: "red"}
        True
        """
        return _shown_values(self).diff(_shown_values(_checked_context(other)))

    def __getitem__(self, key):
        return owned(_value_in(self, key, NULL))

    def __contains__(self, key):
        if not is_type(<PyObject *>key, <PyTypeObject *>ContextVar):
            return owned(_native_value_in(self, key, <PyObject *>ABSENT)) is not ABSENT
        return _find(_snapshot_of(self), <ContextVar>key) is not NULL

    def __len__(self):
        return _shown_values(self)._count

    def __iter__(self):
        return iterate(_shown_values(self), KEYS)

    def __eq__(self, other):
        if type(other) is not Context:
            return NotImplemented
        if NATIVE and map_of_context(self._native) is map_of_context((<Context>other)._native):
            return True
        cdef Hamt snapshot = _shown_values(self), other_snapshot = _shown_values(other)
        return snapshot is other_snapshot or snapshot == other_snapshot

    __reversed__ = None

    def __enter__(self):
        context_enter(self)
        return self

    def __exit__(self, kind, error, traceback, /):
        context_exit(self)

    def __repr__(self):
        return context_repr(self)

    def __reduce__(self):
        refuse_to_pickle("Context")


cdef free_list _free_contexts


cdef void _free_context(void *context) noexcept:
    release(<PyObject *>context, &_free_contexts)


cdef object _context_from_call(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    if <tuple>args or kwargs is not NULL and <dict>kwargs:
        raise TypeError("Context() does not accept any arguments")
    return _new_context()


@cython.nonecheck(False)
cdef object _run_called(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    if count == 0:
        raise TypeError("run() missing 1 required positional argument")
    cdef PyObject *state = _state()
    _enter(<ThreadState>state, <Context>self)
    try:
        return vectorcall(args[0], args + 1, count - 1, names)
    finally:
        _leave(<ThreadState>state, <Context>self)


cdef inline PyObject *_value_in(Context context, object key, PyObject *default) except NULL:
    # Owned; KeyError without a default.
    cdef PyObject *value
    cdef Hamt snapshot
    if not is_type(<PyObject *>key, <PyTypeObject *>ContextVar):
        return _native_value_in(context, key, default)
    if NATIVE or not HAS_GIL:
        snapshot = _snapshot_of(context)
        value = _find(snapshot, <ContextVar>key)
    else:
        value = _find(context._snapshot, <ContextVar>key)
    if value is NULL:
        value = default
        if value is NULL:
            raise KeyError(key)
    xincref(value)
    return value


cdef inline int _checked_variable(object key) except -1:
    if not is_type(<PyObject *>key, <PyTypeObject *>ContextVar):
        raise TypeError(f"a ContextVar key was expected, got {key!r}{whose(key)}")
    return 0


@cython.final
cdef class ThreadState:
    """Where one thread's current Context is found; `thread_state()` returns the calling thread's.

    For your own scheduler or interpreter, which enters and leaves Contexts outside of a `with` block:

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

        RuntimeError if it is entered already, in this thread or another.
        """
        self._check_thread()
        context_enter(_checked_context(context))

    def exit(self, context, /):
        """Make the Context that was current before this one the current one again. O(1).

        RuntimeError if this is not the current Context, so exits out of order are refused.
        """
        self._check_thread()
        context_exit(_checked_context(context))

    def _check_thread(self):
        if self is not _thread_state():
            raise RuntimeError(f"{self!r} belongs to another thread; call thread_state() in this one")

    def __reduce__(self):
        refuse_to_pickle("ThreadState")


cdef object _refuse_thread_state(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    raise RuntimeError("a thread has one ThreadState; ask thread_state() for it")


cdef Context _checked_context(object context):
    if type(context) is not Context:
        raise TypeError(f"an instance of Context was expected{whose(context)}")
    return context


def thread_state():
    """Return the calling thread's ThreadState, made at the first call and gone with the thread. O(1).

    >>> thread_state() is thread_state()
    True
    """
    return _thread_state()


# By thread number: the states of threads that run, and, if a finaliser asked, of threads that have begun to end.
cdef dict _states = {}
cdef dict _states_at_end = {}


cdef class _ThreadEnd:
    # Freed when its thread begins to end: the interpreter frees a thread's dictionary before its Contexts.
    cdef uint64_t _thread_id

    def __dealloc__(self):
        global known_thread_id
        if self._thread_id == 0:
            return
        if known_thread_id == self._thread_id:
            known_thread_id = 0
        _states_at_end[self._thread_id] = None
        _states.pop(self._thread_id, None)


# The type itself, so that each of two copies of the package has its own key.
cdef object _END_KEY = _ThreadEnd


cdef ThreadState _thread_state():
    return <ThreadState>_state()


cdef inline PyObject *_state() except NULL:
    # Borrowed.
    return known_thread_state if known_thread_id == thread_id_here() else _state_of_thread()


cdef PyObject *_state_of_thread() except NULL:
    global known_thread_id, known_thread_state
    cdef uint64_t thread_id = thread_id_here()
    cdef PyObject *found = PyDict_GetItemWithError(_states, thread_id)
    if found is NULL:
        if thread_id in _states_at_end:
            return _state_at_end(thread_id)
        found = _make_state(thread_id)
    known_thread_id, known_thread_state = thread_id, found
    return found


cdef PyObject *_make_state(uint64_t thread_id) except NULL:
    cdef PyObject *thread = PyThreadState_GetDict()
    cdef _ThreadEnd end = _ThreadEnd.__new__(_ThreadEnd)
    if thread is NULL:
        raise MemoryError
    _forget_threads()
    state = _new_state()
    # What a finaliser made meanwhile stays. Not `setdefault`: CPython 3.13's goes on if memory is short.
    if _END_KEY not in <dict>thread:
        (<dict>thread)[_END_KEY] = end
    if thread_id not in _states:
        _states[thread_id] = state
    (<_ThreadEnd>(<dict>thread)[_END_KEY])._thread_id = thread_id
    return PyDict_GetItemWithError(_states, thread_id)


cdef ThreadState _new_state():
    cdef ThreadState state = ThreadState.__new__(ThreadState)
    state._below = []
    if not NATIVE:
        thread_prepare(state)
    return state


cdef PyObject *_state_at_end(uint64_t thread_id) except NULL:
    # In the thread's dictionary, made anew, it would never be freed.
    if _states_at_end[thread_id] is None:
        state = _new_state()
        if _states_at_end[thread_id] is None:
            _states_at_end[thread_id] = state
    return PyDict_GetItemWithError(_states_at_end, thread_id)


cdef int _forget_threads() except -1:
    # Forgets those that have ended. Without the GIL they cannot be counted.
    cdef PyThreadState *thread
    if not HAS_GIL:
        return 0
    alive = set()
    thread = PyInterpreterState_ThreadHead(PyInterpreterState_Get())
    while thread is not NULL:
        alive.add(PyThreadState_GetID(thread))
        thread = PyThreadState_Next(thread)
    for states in (_states, _states_at_end):
        for thread_id in list(states):
            if thread_id not in alive:
                states.pop(thread_id, None)
    return 0


def contexts_of_threads():
    """For `snapshot`: the current Contexts of this interpreter's threads, by the number that `get_ident` returns there;
    a thread without one has an empty one. None if only a thread itself can tell."""
    cdef PyThreadState *thread
    cdef PyObject *found
    cdef dict places = {}
    if not THREADS_ARE_SHOWN:
        return None
    # Nothing here makes an object that the collector follows: it would run finalisers, and threads come and go.
    thread = PyInterpreterState_ThreadHead(PyInterpreterState_Get())
    while thread is not NULL:
        if NATIVE:
            found = native_context_of(thread)
        else:
            found = PyDict_GetItemWithError(_states, PyThreadState_GetID(thread))
        if found is not NULL:
            places[ident_of(thread)] = <object>found
        thread = PyThreadState_Next(thread)
    return {ident: native_wrap(place) if NATIVE else (<ThreadState>place)._current for ident, place in places.items()}


def current_context():
    """Return the current Context itself, not a copy: it shows what is set later. O(1).

    On the thread host a Context is always the same object. On the native host calls in one Context return the same
    object as long as a reference to it remains; later another object may stand for the same Context. The two compare
    equal, and tokens, which remember the native Context, work with both.

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


# ---- the hosts, and the switch between them: one binary serves both, and the environment chooses ----

include "native_host.pxi"
include "thread_host.pxi"


cdef inline PyObject *_snapshot_at_hand() noexcept:
    # The current one, borrowed; NULL if that needs more work.
    return native_snapshot_at_hand() if NATIVE else thread_snapshot_at_hand()


cdef inline PyObject *_loaded(PyObject *place) except NULL:
    # Borrowed, valid until other code runs.
    return native_loaded(place) if NATIVE else <PyObject *>(<Context>place)._snapshot


cdef Hamt _current_snapshot():
    return <Hamt>_loaded(NULL if NATIVE else <PyObject *>(<ThreadState>_state())._current)


cdef Hamt _snapshot_of(Context context):
    return native_snapshot_of(context) if NATIVE else thread_snapshot_of(context)


cdef inline PyObject *_sole_snapshot(PyObject *place, Py_ssize_t count) noexcept:
    # The Context's snapshot, borrowed, if only the Context and the caller hold it, as its reference count shows: then
    # it can be changed in place, unseen. Else NULL.
    cdef bint alone = True
    cdef PyObject *snapshot = (
        native_snapshot_held_by(place, &alone) if NATIVE else <PyObject *>(<Context>place)._snapshot
    )
    if snapshot is NULL or not alone or not is_type(snapshot, <PyTypeObject *>Hamt):
        return NULL
    return snapshot if has_references(snapshot, count) else NULL


cdef bint _exchange(PyObject *place, Hamt expected, Hamt changed) except -1:
    if NATIVE:
        return native_exchange(place, expected, changed)
    return thread_exchange(<Context>place, expected, changed)


cdef PyObject *_place_of_set(PyObject *made_in=NULL) except NULL:
    # What a token made now remembers as its Context, borrowed from the thread. On the thread host, an error if no
    # variable may be set there, unless the token was made elsewhere: then it is refused for that.
    return native_place_of_set() if NATIVE else thread_place_of_set(made_in)


cdef Context context_current():
    return native_wrap(<object>native_place_of_set()) if NATIVE else _thread_state()._current


cdef Context context_copy_current():
    cdef Context copied
    if NATIVE:
        copied = native_context_with(copy_current_native())
    else:
        copied = thread_context_with((<ThreadState>_state())._current._snapshot)
    if WATCHED:
        _tell("copy", None, None, copied)
    return copied


cdef Context _copy_of(Context context):
    cdef Context copied
    if NATIVE:
        copied = native_context_with(copy_native(context._native))
    else:
        copied = thread_context_with(thread_snapshot_of(context))
    if WATCHED:
        _tell("copy", None, context, copied)
    return copied


cdef Context _new_context():
    return native_context_with(PyContext_New()) if NATIVE else thread_context_with(EMPTY)


cdef inline Hamt _shown_values(Context context):
    return native_shown_values(context) if SHOWS_NATIVE_VARIABLES else _snapshot_of(context)


cdef inline int _enter(ThreadState state, Context context) except -1:
    return 0 if _enters_quickly(state, context) else _enter_slowly(state, context)


cdef inline int _leave(ThreadState state, Context context) except -1:
    return 0 if _leaves_quickly(state, context) else _leave_slowly(state, context)


cdef inline bint _enters_quickly(ThreadState state, Context context) noexcept:
    # False if something is in the way; then nothing was done.
    if WATCHED or not has_room(state):
        return False
    return native_enters_quickly(state, context) if NATIVE else thread_enters_quickly(state, context)


cdef inline bint _leaves_quickly(ThreadState state, Context context) noexcept:
    if WATCHED or not is_topmost(state, context):
        return False
    return native_leaves_quickly(state, context) if NATIVE else thread_leaves_quickly(state, context)


cdef int _enter_slowly(ThreadState state, Context context) except -1:
    cdef Context left = context_current() if WATCHED else None
    if NATIVE:
        native_enter(state, context)
    else:
        thread_enter(state, context)
    if left is not None:
        _tell("enter", None, left, context)
    return 0


cdef int _leave_slowly(ThreadState state, Context context) except -1:
    try:
        if NATIVE:
            native_leave(state, context)
        else:
            thread_leave(state, context)
    except RuntimeError as refusal:
        if _entering is not None:
            _entering.refuse_to_leave(context, refusal)
        raise
    if WATCHED:
        _tell("exit", None, context, None)
    return 0


# ---- lookups and sets, on either host ----


@cython.nonecheck(False)
cdef inline PyObject *_remembered_or_found(Hamt snapshot, ContextVar var) noexcept:
    # Borrowed, NULL for none.
    return var._remembered if var._remembered_in == snapshot._hash else _found_and_remembered(snapshot, var)


@cython.nonecheck(False)
cdef PyObject *_found_and_remembered(Hamt snapshot, ContextVar var) noexcept:
    # The value stays right until the snapshot is changed in place, and that updates the variable too.
    global _last_number
    cdef PyObject *value = _find(snapshot, var)
    if not HAS_GIL:
        return value
    if snapshot._hash == 0 and _last_number + 1 < FIRST_HASH:
        _last_number += 1
        snapshot._hash = _last_number
    if snapshot._hash < FIRST_HASH:
        var._remembered, var._remembered_in = value, snapshot._hash
    return value


cdef inline PyObject *_find(Hamt snapshot, ContextVar var) noexcept:
    return find_identical(<Node *>snapshot._root, var._folded, <PyObject *>var)


cdef object _update(PyObject *place, ContextVar var, object value):
    # Returns the old value, so that nothing runs before the token gets it.
    cdef Hamt snapshot = EMPTY
    cdef Hamt changed = EMPTY
    cdef PyObject *loaded = _loaded(place)
    if var is None and _sole_snapshot(place, 1) is not NULL and _exchange_all(<Hamt>loaded, value):
        return value
    try:
        while True:
            snapshot = <Hamt>_loaded(place)
            old_value = _old_value_in(snapshot, var, value)
            changed = _with_change(snapshot, var, value)
            # Two references: ours and the Context's. Allocating may have run a finaliser that set a variable or copied
            # the Context.
            if _sole_snapshot(place, 2) is <PyObject *>snapshot:
                snapshot._become(changed)
                break
            if _exchange(place, snapshot, changed):
                break
    except BaseException:
        if NATIVE and changed is not snapshot:
            native_take_back(snapshot, changed)
        raise
    # Not above: on a return from a `try`, Cython writes the exception that a caller handles into the running generator,
    # which would keep it, and show it in `sys.exc_info()`.
    return old_value


cdef inline PyObject *_exchange_in_place(PyObject *place, ContextVar var, PyObject *value) noexcept:
    # The old value, owned, if no other reference to the snapshot exists and it can be changed at once; else NULL, and
    # nothing was done. Changing in place runs no user code.
    cdef PyObject *snapshot = _sole_snapshot(place, 1)
    cdef PyObject **slot
    cdef PyObject *old_value = NULL
    if snapshot is NULL:
        return NULL
    if value is <PyObject *>ABSENT:
        old_value = _discard_in_place(<Hamt>snapshot, var)
    else:
        slot = sole_slot(<Node *>(<Hamt>snapshot)._root, var._folded, <PyObject *>var, value)
        if slot is NULL:
            old_value = _add_in_place(<Hamt>snapshot, var, value)
        else:
            xincref(value)
            old_value, slot[0] = slot[0], value
    if old_value is not NULL:
        _changed_in_place(<Hamt>snapshot, var, NULL if value is <PyObject *>ABSENT else value)
    return old_value


cdef inline void _changed_in_place(Hamt snapshot, ContextVar var, PyObject *value) noexcept:
    if var._remembered_in == snapshot._hash:
        var._remembered = value
    elif snapshot._hash >= FIRST_HASH:
        # Other code had the snapshot, and asked for its hash.
        snapshot._hash = 0


cdef PyObject *_add_in_place(Hamt snapshot, ContextVar var, PyObject *value) noexcept:
    cdef Node *root = sole_with_entry(<Node *>snapshot._root, var._folded, <PyObject *>var, value)
    if root is NULL:
        return NULL
    put_root(snapshot, root)
    snapshot._count += 1
    xincref(<PyObject *>ABSENT)
    return <PyObject *>ABSENT


cdef PyObject *_discard_in_place(Hamt snapshot, ContextVar var) noexcept:
    cdef PyObject *old_value = NULL
    cdef Node *root = sole_without_entry(<Node *>snapshot._root, var._folded, <PyObject *>var, &old_value)
    if root is not NULL:
        put_root(snapshot, root)
        snapshot._count -= 1
    return old_value


cdef bint _exchange_all(Hamt snapshot, list changes) noexcept:
    # In place, if that works for every variable; the list then holds the old values.
    cdef Py_ssize_t index, done
    for index in range(0, len(changes), 2):
        if not _exchange_one(snapshot, changes, index):
            for done in range(0, index, 2):
                _exchange_one(snapshot, changes, done)
            return False
    return True


cdef inline bint _exchange_one(Hamt snapshot, list changes, Py_ssize_t index) noexcept:
    cdef PyObject **items = items_of(changes)
    cdef PyObject **slot
    if items[index + 1] is <PyObject *>ABSENT:
        return False
    slot = sole_slot(<Node *>snapshot._root, (<ContextVar>items[index])._folded, items[index], items[index + 1])
    if slot is NULL:
        return False
    items[index + 1], slot[0] = slot[0], items[index + 1]
    _changed_in_place(snapshot, <ContextVar>items[index], slot[0])
    return True


cdef int context_enter(Context context) except -1:
    cdef PyObject *state = _state()
    cdef const uint64_t *version = context_version_here()
    cdef bint quiet = version[0] == (<ThreadState>state)._loopless_version or _about_to_enter(context)
    _enter(<ThreadState>state, context)
    # Our own entering is not a step of a loop.
    if quiet:
        (<ThreadState>state)._loopless_version = version[0]
    return 0


cdef int context_exit(Context context) except -1:
    cdef PyObject *state = _state()
    cdef const uint64_t *version = context_version_here()
    cdef bint quiet = version[0] == (<ThreadState>state)._loopless_version
    _leave(<ThreadState>state, context)
    if quiet:
        (<ThreadState>state)._loopless_version = version[0]
    return 0


cdef object _old_value_in(Hamt snapshot, ContextVar var, object value):
    if var is not None:
        return snapshot._find(var, var._folded, var._hash)
    cdef list changes = value, old_values = []
    cdef ContextVar each
    cdef Py_ssize_t index
    for index in range(0, len(changes), 2):
        old_values.append(changes[index])
        each = changes[index]
        old_values.append(snapshot._find(each, each._folded, each._hash))
    return old_values


cdef Hamt _with_change(Hamt snapshot, ContextVar var, object value):
    cdef list changes
    cdef Py_ssize_t index
    if var is None:
        changes = value
        for index in range(0, len(changes), 2):
            snapshot = _with_change(snapshot, changes[index], changes[index + 1])
        return snapshot
    if value is ABSENT:
        return snapshot._discard(var, var._folded, var._hash)
    return snapshot._set(var, var._folded, value, var._hash)


cdef object _running_loop():
    events = modules.get("asyncio.events")
    running_loop = getattr(events, "_get_running_loop", None)
    return None if running_loop is None else running_loop()


cdef bint _about_to_enter(Context context) except -1:
    # Whether no loop can be running. Comes before entering: an interrupt afterwards would leave the Context entered.
    global _entering
    loop = _running_loop()
    # An asynchronous test that would misuse a Context under a loop is refused without one too.
    if loop is None and "unittest.async_case" not in modules:
        return True
    if _entering is None:
        _entering = import_module(ENTERING)
    _entering.about_to_enter(context, loop)
    return False


def implement(method, function):
    """For capabilities: set what `ContextVar.watch`, `proxy` or `__reduce__` calls, and what explains a LookupError. An
    import there would fail when the interpreter ends."""
    _implementations[method] = function


def tell_changes_to(tell):
    """For `watch`: call `tell(kind, variable, old, new)` after each change, each copy of a Context and each read of an
    unset variable from now on; None ends that."""
    global WATCHED, TOLD, _tell_watchers
    if NATIVE:
        watch_switches(_tell_of_switch if tell is not None else <void (*)() noexcept>NULL)
    _tell_watchers = tell
    WATCHED = tell is not None
    TOLD = WATCHED or _note is not None


def note_changes_by(note, look):
    """For debug mode: call `note(kind, variable, old, new)` after each change of values, and `look(variable)` before
    each `get`."""
    global TOLD, _note, _look
    _note, _look, TOLD = note, look, True
    replace_method(ContextVar, "get", <any_function>_get_after_look, METH_FASTCALL)


cdef object _get_after_look(PyObject *self, PyObject *const *args, Py_ssize_t count):
    _look(<object>self)
    return _get_called(self, args, count)


@cython.final
cdef class _InNativeContext:
    # A function that binds like a method and takes its arguments as they come.
    cdef readonly object __wrapped__
    cdef any_function _vectorcall

    def __cinit__(self, function):
        self.__wrapped__ = function
        self._vectorcall = <any_function>_call_in_native_context
        be_called(self)

    @property
    def __doc__(self):
        return self.__wrapped__.__doc__

    def __getattr__(self, name):
        return getattr(self.__wrapped__, name)

    def __get__(self, instance, owner):
        return self if instance is None else bound_method(self, instance)

    def __repr__(self):
        return repr(self.__wrapped__)


cdef object _call_in_native_context(PyObject *self, PyObject *const *args, size_t count, PyObject *names):
    cdef PyObject *function = <PyObject *>(<_InNativeContext>self).__wrapped__
    cdef Py_ssize_t index, positional = count & ~PY_VECTORCALL_ARGUMENTS_OFFSET
    if names is not NULL:
        for index in range(len(<tuple>names)):
            if is_type(args[positional + index], <PyTypeObject *>Context) and (<tuple>names)[index] == "context":
                options = {name: <object>args[positional + place] for place, name in enumerate(<tuple>names)}
                options["context"] = options["context"].native
                return (<object>function)(*[<object>args[place] for place in range(positional)], **options)
    return vectorcall(function, args, positional, names)


def in_native_context(function):
    """For event loops: the function, which gets the native Context if its argument `context` is one of ours."""
    return _InNativeContext(function)


cdef initproc _init_task = NULL


cdef int _init_task_with_native_context(object self, object args, PyObject *options) except -1:
    if options is not NULL:
        context = (<dict>options).get("context")
        if type(context) is Context and (TASKS_ARE_NATIVE or (<dict>options).get("eager_start")):
            native_options = {**<dict>options, "context": context.native}
            return _init_task(self, args, <PyObject *>native_options)
    return _init_task(self, args, options)


def give_tasks_native_contexts(cls):
    """For event loops: the same for this class of asyncio tasks, if it takes only native Contexts. False if that is
    impossible."""
    init = cls.__init__
    if type(init) is WrapperDescriptorType:
        replace_slot_init(<PyTypeObject *>cls, init, <initproc>_init_task_with_native_context, &_init_task)
    else:
        replace_init(<PyTypeObject *>cls, in_native_context(init))
    return True


cdef void _tell(str kind, ContextVar var, object old, object new) noexcept:
    # Another thread may have removed it. Its own errors, an interrupt or a lack of room on the stack, go to
    # `sys.unraisablehook`: the change is done, and no code would leave a Context that was entered. By Cython's default,
    # `unraisable_tracebacks`, they would first go to `sys.excepthook`, a SystemExit would end the process, and with a
    # full stack CPython 3.11 would print them, and allow one more level each time.
    tell = _tell_watchers
    if tell is not None:
        tell(kind, var, old, new)


cdef int _tell_of_change(str kind, ContextVar var, object old, object new) except -1:
    if _note is not None:
        _note(kind, var, old, new)
    _tell(kind, var, old, new)
    return 0


cdef object _tell_of_set(Token token, object value):
    _tell_of_change("unset" if value is ABSENT else "set", token._var, token._old_value, value)


cdef void _tell_of_switch() noexcept:
    _tell("switch", None, None, None)


cdef dict _as_dict(list changes):
    return dict(zip(changes[::2], changes[1::2]))


Mapping.register(Context)
match_as_mapping(Context)
publish(ContextVar, _sealed.PACKAGE, NULL)
publish(Token, _sealed.PACKAGE, <newfunc>_refuse_token)
publish(Assignment, _sealed.PACKAGE, <newfunc>_refuse_assignment)
publish(Context, _sealed.PACKAGE, <newfunc>_context_from_call)
publish(ThreadState, _sealed.PACKAGE, <newfunc>_refuse_thread_state)
for _public in (assign, thread_state, current_context, copy_context):
    _public.__module__ = _sealed.PACKAGE

(<PyTypeObject *>Token).tp_free = <freefunc>_free_token
(<PyTypeObject *>Context).tp_free = <freefunc>_free_context
replace_method(ContextVar, "get", <any_function>_get_called, METH_FASTCALL)
replace_method(Context, "run", <any_function>_run_called, METH_FASTCALL | METH_KEYWORDS)

# For the slot: the name in the class body serves only Python code.
(<PyTypeObject *>Token).tp_hash = <hashfunc>PyObject_HashNotImplemented
(<PyTypeObject *>Assignment).tp_hash = <hashfunc>PyObject_HashNotImplemented
