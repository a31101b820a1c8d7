# cython: language_level=3, binding=False, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
# cython: nonecheck=True, freethreading_compatible=True, unraisable_tracebacks=False
"""The compiled twin of `context_py`, which explains what both do."""

cimport cython
from cpython.contextvars cimport (
    PyContext_New,
    PyContextVar_Get,
    PyContextVar_New,
)
from cpython.dict cimport PyDict_GetItemWithError
from cpython.list cimport PyList_New
from cpython.object cimport PyObject, PyTypeObject, freefunc, hashfunc, newfunc
from libc.stdint cimport uint32_t, uint64_t

from .._siblings_cy cimport import_sibling
from .._hamt.hamt_cy cimport EMPTY, ITEMS, KEYS, VALUES, Hamt, iterate, match_as_mapping, publish
from .interpreter_cy cimport (
    known_thread_id,
    native_context_of,
    native_copy,
    native_copy_current,
    native_current,
    native_current_value,
    native_enter,
    native_exit,
    native_find,
    native_glance,
    native_heard_thread_id,
    native_here,
    native_is_known,
    native_look,
    native_map,
    native_moves,
    native_set,
    native_thread_id,
    native_value,
    native_version,
    native_version_here,
    native_watch,
)
from .objects_cy cimport (
    METH_FASTCALL,
    METH_KEYWORDS,
    call,
    decref_held,
    free_list,
    initproc,
    is_sole,
    keep,
    make,
    replace_init,
    replace_slot_init,
    take_arguments,
)
from .._hamt.trie_cy cimport (
    Node,
    decref,
    find_identical,
    handed_over,
    sole_slot,
    sole_with_entry,
    sole_without_entry,
    xincref,
)

import sys
from collections.abc import Mapping
from importlib import import_module
from threading import get_ident, main_thread
from types import GenericAlias, MethodType, WrapperDescriptorType

import _weakref

# As in `_hamt.trie_cy`.
_backend, _debug, _messages, _sealed, _sentinels = [
    import_module(name, __package__) for name in (".._backend", ".debug", ".messages", ".._sealed", ".._sentinels")
]
host = _backend.host

# When the interpreter ends, the names of a module are gone before the last finalisers run; C's are not.
cdef object ABSENT = _sentinels.ABSENT
cdef object MISSING = _sentinels.MISSING
cdef object ref = _weakref.ref
cdef object remove_dead_weakref = _weakref._remove_dead_weakref
cdef object getframe = sys._getframe
cdef dict modules = sys.modules
cdef object origin = _debug.origin
cdef object warn_of_shared_default = _debug.warn_of_shared_default
cdef object noted = _sealed.noted
cdef object refuse_arguments = _messages.refuse_arguments
cdef object refuse_to_pickle = _sealed.refuse_to_pickle
cdef object whose = _messages.whose
cdef str ASSIGNS = _messages.ASSIGNS
cdef str ELSEWHERE = _messages.ELSEWHERE
cdef str UNSET = _messages.UNSET
cdef object bound_method = MethodType
cdef bint NATIVE = host == "native"
cdef bint DEBUG = _backend.debug
cdef bint TASKS_ARE_NATIVE = sys.version_info >= (3, 15)
cdef str ENTERING = f"{__package__}.entering"
cdef bint WATCHED = False
# Of changes: watched, or noted in debug mode.
cdef bint TOLD = False
cdef bint SHOWS_NATIVE_VARIABLES = False
# By capabilities, the functions behind methods of ContextVar.
cdef dict _implementations = {}
cdef object _tell_watchers = None
cdef object _note = None
cdef object _look = None
cdef object _entering = None
cdef initproc _init_task = NULL
cdef uint32_t _serial = 0
# The number of a snapshot is negative, and never given again. NOWHERE is the least, and no snapshot's.
cdef Py_hash_t _last_number = 0

cdef extern from *:
    """
    #ifndef Py_GIL_DISABLED
    #define HAMT_GIL 1
    #else
    #define HAMT_GIL 0
    #endif

    /* The known thread's, borrowed. */
    static HAMT_THREAD_LOCAL PyObject *known_thread_state;

    /* References move from the current one to those below and back, since a count that goes up and down at once waits
       for the processor's caches. The list keeps its room: leaving asks for no memory. */
    static inline int hamt_push(PyObject **current, PyObject *below, PyObject *context) {
        PyListObject *list = (PyListObject *)below;
        Py_ssize_t size = Py_SIZE(list);
        if (size < list->allocated) {
            list->ob_item[size] = *current;
            Py_SET_SIZE(list, size + 1);
        }
        else {
            if (PyList_Append(below, *current) < 0) return -1;
            Py_DECREF(*current);
        }
        Py_INCREF(context);
        *current = context;
        return 0;
    }
    static inline void hamt_pop(PyObject **current, PyObject *below) {
        PyListObject *list = (PyListObject *)below;
        Py_ssize_t size = Py_SIZE(list) - 1;
        PyObject *left = *current;
        *current = list->ob_item[size];
        Py_SET_SIZE(list, size);
        Py_DECREF(left);
    }
    #define HAMT_PUSH(state, context) \
        hamt_push((PyObject **)&(state)->_current, (PyObject *)(state)->_below, (PyObject *)(context))
    #define HAMT_POP(state) hamt_pop((PyObject **)&(state)->_current, (PyObject *)(state)->_below)
    #define HAMT_HAS_ROOM(state) \
        (Py_SIZE((state)->_below) < ((PyListObject *)(state)->_below)->allocated)
    #define HAMT_IS_TOPMOST(state, context) ((state)->_current == (context) && Py_SIZE((state)->_below) > 0)

    /* One step, where another thread may be trying the same. */
    #ifdef Py_GIL_DISABLED
    #define HAMT_EXCHANGE_ENTERED(context, entered) _Py_atomic_exchange_int(&(context)->_entered, entered)
    #else
    static inline int hamt_exchange(int *flag, int value) {
        int old = *flag;
        *flag = value;
        return old;
    }
    #define HAMT_EXCHANGE_ENTERED(context, entered) hamt_exchange(&(context)->_entered, entered)
    #endif

    #define HAMT_PUT_ROOT(snapshot, root) ((snapshot)->_root = (PyObject *)(root))

    /* An instance's type is called by what is in its field `_vectorcall`, and binds without making a bound method. */
    #define HAMT_TAKE_CALLS(self) \
        hamt_take_calls(Py_TYPE(self), (char *)&(self)->_vectorcall - (char *)(self))
    static inline void hamt_take_calls(PyTypeObject *type, Py_ssize_t offset) {
        type->tp_vectorcall_offset = offset;
        type->tp_call = PyVectorcall_Call;
        type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
    }

    #define hamt_items_of(list) (((PyListObject *)(list))->ob_item)

    static int hamt_raise_set(void) {
        return -1;
    }

    /* Of objects just made. */
    #define HAMT_FILL_TOKEN(token, var, context) \
        hamt_fill((PyObject **)&(token)->_var, (PyObject *)(var)); \
        hamt_fill((PyObject **)&(token)->_old_value, Py_None); \
        hamt_fill((PyObject **)&(token)->_context, (PyObject *)(context)); \
        hamt_fill((PyObject **)&(token)->_origin, Py_None); \
        (token)->_used = 0
    #define HAMT_FILL_CONTEXT(context, native, snapshot) \
        hamt_fill((PyObject **)&(context)->_native, (PyObject *)(native)); \
        hamt_fill((PyObject **)&(context)->_snapshot, (PyObject *)(snapshot)); \
        hamt_fill((PyObject **)&(context)->_home, Py_None); \
        (context)->_entered = 0
    static inline void hamt_fill(PyObject **field, PyObject *value) {
        Py_INCREF(value);
        *field = value;
    }

    """
    PyObject *known_thread_state
    # From a pointer that owns.
    Context as_context "(void *)"(PyObject *made)
    Token as_token "(void *)"(PyObject *made)
    int push "HAMT_PUSH"(ThreadState state, Context context) noexcept
    void pop "HAMT_POP"(ThreadState state) noexcept
    # From one that is gone: nothing is counted.
    void put_root "HAMT_PUT_ROOT"(Hamt snapshot, Node *root) noexcept
    bint GIL "HAMT_GIL"
    bint COLLECTS_AT_ALLOCATION "(PY_VERSION_HEX < 0x030C0000)"
    Py_hash_t NOWHERE "PY_SSIZE_T_MIN"
    bint has_room "HAMT_HAS_ROOM"(ThreadState state) noexcept
    bint is_topmost "HAMT_IS_TOPMOST"(ThreadState state, Context context) noexcept
    int exchange_entered "HAMT_EXCHANGE_ENTERED"(Context context, int entered) noexcept
    int raise_set "hamt_raise_set"() except -1
    void take_calls "HAMT_TAKE_CALLS"(_InNativeContext function) noexcept
    void fill_token "HAMT_FILL_TOKEN"(Token token, ContextVar var, PyObject *context) noexcept
    void fill_context "HAMT_FILL_CONTEXT"(Context context, object native, Hamt snapshot) noexcept
    bint next_item "PyDict_Next"(dict items, Py_ssize_t *position, PyObject **key, PyObject **value) noexcept
    PyObject **items_of "hamt_items_of"(list items) noexcept

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    ctypedef struct PyInterpreterState:
        pass
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
    Py_hash_t PyObject_HashNotImplemented(object value) except -1


@cython.final
cdef class ContextVar:
    """ContextVar(name, /, *, default=..., default_factory=None)\n--\n
    A variable of which every Context holds a value of its own (PEP 567).

    `name` is for people to read; `default` is what `get` returns where the current Context has no value. In its place
    `default_factory`, called without arguments at the first `get` in a Context, makes a value and sets it there: it
    is never shared with a Context that was there before. Create variables at the top level of a module: a Context
    keeps alive every variable that was set in it.

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
        self._seen_in = NOWHERE
        with cython.critical_section(ABSENT):
            self._hash = _serial
            _serial += 1

    @property
    def name(self):
        """The name that the variable was created with."""
        return self._name

    def get(self, default=..., /):
        """Return the variable's value in the current Context. O(log n) in the number of variables set there.

        Where there is none: the argument, else the variable's own default, or what its `default_factory` makes and
        this sets, else LookupError.

        >>> ContextVar("colour", default="blue").get()
        'blue'
        >>> ContextVar("colour", default="blue").get("red")
        'red'
        >>> seen = ContextVar("seen", default_factory=list)
        >>> seen.get().append("red")
        >>> seen.get(), Context().run(seen.get)
        (['red'], [])
        """
        # `_get_called` takes its place, which is called with the arguments as they come.

    def is_set(self):
        """Whether the current Context has a value for the variable; a default is none. O(log n).

        >>> colour = ContextVar("colour", default="blue")
        >>> with colour.set("red"):
        ...     colour.is_set()
        True
        >>> colour.is_set()
        False
        """
        cdef Hamt snapshot = _load()
        return _seen_or_found(snapshot, self) is not NULL

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

    def unset(self):
        """Take the variable's value out of the current Context and return a Token that undoes it. O(log n).

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
        """Give the variable back the value it had before the `set` that made the token. O(log n).

        TypeError for what is no Token, RuntimeError for a token that was used already, ValueError for one that was
        made by another variable or in another Context; after any of these nothing has changed. In debug mode, under
        `python -X dev` or with `CONTEXTVARS_CY_DEBUG=1`, the error says where the token was made.

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
        """As `reset`, but False, and nothing changed, where the token was made in another Context; else True. O(log n).

        For cleaning up what may be done by somebody else: the finaliser of an async generator, a callback, the end of a
        task that was cancelled. CPython issue 118944 tells of it.

        >>> colour = ContextVar("colour")
        >>> token = colour.set("blue")
        >>> copy_context().run(colour.try_reset, token)
        False
        >>> colour.try_reset(token)
        True
        """
        cdef Token made
        if is_type(<PyObject *>token, <PyTypeObject *>Token):
            made = token
            if made._var is self and not made._used and <PyObject *>made._context is not _here(<PyObject *>made._context):
                return False
        self.reset(token)
        return True

    def watch(self, callback, /):
        """Call `callback(event)` after each change of this variable's value, with a `WatchEvent`. O(1).

        Returns a `Watcher`, whose `cancel()`, or a `with` block, ends it. Of a Context that is entered, left or
        switched to it tells where the value changes. See `contextvars_cy.watch`, which tells of all variables.

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
        """Return an object that stands for the variable's value, whichever that is at the moment.

        Attributes, items, calls and operators of the `Proxy` are the value's; where there is none, they raise a
        LookupError that says so. After the LocalProxy of werkzeug.

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

    def __reduce__(self):
        refuse_to_pickle("ContextVar")

    __class_getitem__ = classmethod(GenericAlias)


@cython.nonecheck(False)
cdef object _get_called(PyObject *self, PyObject *const *args, Py_ssize_t count):
    # What is usual, apart from what is not, for which the compiler would save registers.
    cdef PyObject *snapshot = _snapshot_at_hand()
    cdef PyObject *value
    if snapshot is not NULL and count <= 1:
        value = _seen_or_found(<Hamt>snapshot, <ContextVar>self)
        if value is NULL:
            value = args[0] if count else <PyObject *>(<ContextVar>self)._default
            if value is <PyObject *>ABSENT:
                return _get_slowly(<ContextVar>self, args, count)
        return <object>value
    return _get_slowly(<ContextVar>self, args, count)


cdef object _get_slowly(ContextVar var, PyObject *const *args, Py_ssize_t count):
    if count > 1:
        raise TypeError(f"get expected at most 1 argument, got {count}")
    cdef Hamt snapshot = _load()
    cdef PyObject *value = _seen_or_found(snapshot, var)
    if value is NULL:
        value = args[0] if count else <PyObject *>ABSENT
        if value is <PyObject *>ABSENT:
            value = <PyObject *>var._default
        if value is <PyObject *>ABSENT:
            if var._default_factory is not None:
                return _make_default(var)
            raise noted(LookupError(var), UNSET)
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
    cdef PyObject *here = _here()
    # Held while memory is asked for, where that may run a finaliser, which leaves the Context.
    cdef object held = <object>here if COLLECTS_AT_ALLOCATION else None
    cdef PyObject *token = make(<PyTypeObject *>Token, &_free_tokens)
    cdef PyObject *old_value
    fill_token(<Token>token, var, here)
    if DEBUG:
        here = _note_origin(token)
    old_value = _exchange_in_place(here, var, <PyObject *>value)
    if old_value is not NULL:
        (<Token>token)._old_value = handed_over(old_value)
        if not TOLD:
            return as_token(token)
    owner = as_token(token)
    if old_value is NULL:
        (<Token>token)._old_value = _update(here, var, value)
    if TOLD:
        _tell_of_set(<Token>token, value)
    return owner


cdef PyObject *_note_origin(PyObject *token) except NULL:
    # Python code, which may leave the Context.
    cdef PyObject *here
    try:
        (<Token>token)._origin = origin()
        here = _here()
        (<Token>token)._context = <object>here
    except BaseException:
        decref(token)
        raise
    return here


cdef int contextvar_reset(ContextVar var, Token token) except -1:
    cdef PyObject *here = _here(<PyObject *>token._context)
    if token._used:
        raise RuntimeError(f"{token!r} has already been used once{_made_where(token._origin)}")
    if token._var is not var:
        raise ValueError(f"{token!r} was created by a different ContextVar{_made_where(token._origin)}")
    if <PyObject *>token._context is not here:
        raise noted(
            ValueError(f"{token!r} was created in a different Context{_made_where(token._origin)}"), ELSEWHERE
        )
    token._used = True
    cdef PyObject *old_value = _exchange_in_place(here, var, <PyObject *>token._old_value)
    if old_value is not NULL:
        before = handed_over(old_value)
        if TOLD:
            _tell_of_change("reset", var, before, token._old_value)
        return 0
    try:
        before = _update(here, var, token._old_value)
    except BaseException:
        token._used = False
        raise
    if TOLD:
        _tell_of_change("reset", var, before, token._old_value)
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

    # `_exit_called` takes its place.
    def __exit__(self, kind, error, traceback, /): pass

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
    keep(<PyObject *>token, &_free_tokens)


cdef object _exit_called(PyObject *self, PyObject *const *args, Py_ssize_t count):
    if count != 3:
        raise TypeError(f"__exit__() takes exactly 3 positional arguments ({count} given)")
    contextvar_reset((<Token>self)._var, <Token>self)


cdef object _refuse_token(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    raise RuntimeError("Tokens can only be created by ContextVars")


@cython.final
@cython.freelist(16)
cdef class Assignment:
    """What `assign` returns: it undoes that, by `undo` or at the end of a `with` block, once.

    >>> colour = ContextVar("colour", default="blue")
    >>> with assign({colour: "red"}):
    ...     colour.get()
    'red'
    >>> colour.get()
    'blue'
    """

    def undo(self):
        """Give every variable back the value it had before: all of them, or on an error none. O(m log n).

        RuntimeError where it was undone already, ValueError in another Context than that of the `assign`.

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
        return f"<Assignment{' undone' if self._used else ''} at {id(self):#x}>"

    __hash__ = None

    def __reduce__(self):
        refuse_to_pickle("Assignment")


cdef int _undo_assignment(Assignment assignment) except -1:
    cdef PyObject *here = _here(<PyObject *>assignment._context)
    if assignment._used:
        raise RuntimeError(f"{assignment!r} has already been undone{_made_where(assignment._origin)}")
    if <PyObject *>assignment._context is not here:
        raise ValueError(f"{assignment!r} was made in a different Context{_made_where(assignment._origin)}")
    assignment._used = True
    # The list may become one of what was before.
    changes = _as_dict(assignment._old_values) if TOLD else None
    try:
        before = _update(here, None, assignment._old_values)
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
    Set many variables in the current Context at once: all of them, or on an error none. O(m log n) for m of n.

    `values` is a mapping from ContextVar to value, or what `dict` takes. TypeError for a key that is no ContextVar.
    Returns an `Assignment`, which undoes all as one, by `undo` or at the end of a `with` block. Faster than as many
    calls of `ContextVar.set` from three variables on.

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
    # The interpreter may call this without asking for room on the stack, but not `__exit__`.
    Py_EnterRecursiveCall(" while calling a Python object")
    Py_LeaveRecursiveCall()
    if DEBUG:
        assignment._origin = origin()
    # A list of variables and values in turn: what is exchanged in it costs no count of references.
    with cython.critical_section(pairs):
        changes = PyList_New(2 * len(pairs))
        while next_item(pairs, &position, &key, &value):
            _checked(<object>key)
            xincref(key)
            xincref(value)
            items_of(changes)[index], items_of(changes)[index + 1] = key, value
            index += 2
    cdef PyObject *here = _here()
    assignment._context = <object>here
    told = _as_dict(changes) if TOLD else None
    assignment._old_values = _update(here, None, changes)
    if TOLD and told is not None:
        _tell_of_change("set", None, _as_dict(assignment._old_values), told)
    return assignment


cdef dict _pairs(object values):
    if type(values) is ContextVar or type(values) is tuple and values and type(values[0]) is ContextVar:
        raise TypeError(f"{ASSIGNS}, not a {type(values).__name__}")
    return dict(values)


@cython.final
cdef class Context:
    """Context()\n--\n
    A mapping from every ContextVar that was set in it to its value (PEP 567).

    `Context()` is empty; `copy_context()` copies the current one. Code runs in a Context by `run`, or in the body of
    `with context:`. A Context can be entered once at a time; what the code sets stays in it. The body of the `with`
    has to end before anything is awaited or yielded: what goes on then would find itself in this Context.

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
        _registered(self)
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
        # `_run_called` takes its place.

    def copy(self):
        """Return a Context with the same values. O(1).

        >>> Context().copy() == Context()
        True
        """
        return _with_native(native_copy(self._native)) if NATIVE else _with_snapshot(_snapshot_of(self))

    def get(self, key, default=None, /):
        """Return the value of the variable in this Context, or the default. O(log n). The variable's own default
        plays no part.

        >>> Context().get(ContextVar("colour", default="blue"))
        """
        return handed_over(_value_in(self, key, <PyObject *>default))

    def keys(self):
        """Return an iterator over the variables; O(n).

        >>> list(Context().keys())
        []
        """
        return iterate(_shown(self), KEYS)

    def values(self):
        """Return an iterator over the values; O(n).

        >>> list(Context().values())
        []
        """
        return iterate(_shown(self), VALUES)

    def items(self):
        """Return an iterator over the (variable, value) pairs; O(n).

        >>> list(Context().items())
        []
        """
        return iterate(_shown(self), ITEMS)

    def diff(self, other, /):
        """Return what turns this Context's values into the other's, as a `HamtDiff`: added, removed and changed.

        Values are compared by identity first, then by `==`. Of a Context and its copy it takes the time of their
        difference, else O(n). TypeError for what is no Context.

        >>> colour = ContextVar("colour", default="blue")
        >>> before = copy_context()
        >>> with colour.set("red"):
        ...     before.diff(current_context()).added == {colour: "red"}
        True
        """
        return _shown(self).diff(_shown(_checked_context(other)))

    def __getitem__(self, key):
        return handed_over(_value_in(self, key, NULL))

    def __contains__(self, key):
        if not is_type(<PyObject *>key, <PyTypeObject *>ContextVar):
            return handed_over(_native_value_in(self, key, <PyObject *>ABSENT)) is not ABSENT
        return _find(_snapshot_of(self), <ContextVar>key) is not NULL

    def __len__(self):
        return _shown(self)._count

    def __iter__(self):
        return iterate(_shown(self), KEYS)

    def __eq__(self, other):
        if type(other) is not Context:
            return NotImplemented
        if NATIVE and native_map(self._native) is native_map((<Context>other)._native):
            return True
        cdef Hamt snapshot = _shown(self), other_snapshot = _shown(other)
        return snapshot is other_snapshot or snapshot == other_snapshot

    __reversed__ = None

    def __enter__(self):
        context_enter(self)
        return self

    def __exit__(self, kind, error, traceback, /):
        context_exit(self)

    def __repr__(self):
        return f"<contextvars_cy.Context object at {id(self):#x}>"

    def __reduce__(self):
        refuse_to_pickle("Context")


cdef free_list _free_contexts


cdef void _free_context(void *context) noexcept:
    keep(<PyObject *>context, &_free_contexts)


cdef object _context_from_call(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    if <tuple>args or kwargs is not NULL and <dict>kwargs:
        raise TypeError("Context() does not accept any arguments")
    return _with_native(PyContext_New()) if NATIVE else _with_snapshot(EMPTY)


@cython.nonecheck(False)
cdef object _run_called(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    if count == 0:
        raise TypeError("run() missing 1 required positional argument")
    cdef PyObject *state = _state()
    _enter(<ThreadState>state, <Context>self)
    try:
        return call(args[0], args + 1, count - 1, names)
    finally:
        _leave(<ThreadState>state, <Context>self)


cdef inline PyObject *_value_in(Context context, object key, PyObject *default) except NULL:
    # Owned; without a default a KeyError.
    cdef PyObject *value
    cdef Hamt snapshot
    if not is_type(<PyObject *>key, <PyTypeObject *>ContextVar):
        return _native_value_in(context, key, default)
    if NATIVE or not GIL:
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


cdef PyObject *_native_value_in(Context context, object key, PyObject *default) except NULL:
    # The same for a native variable.
    cdef PyObject *value = NULL
    if not SHOWS_NATIVE_VARIABLES or type(key) is not type(_anchor):
        _checked(key)
    if key is not _anchor:
        value = native_value(context._native, key)
    if value is NULL:
        value = default
        if value is NULL:
            raise KeyError(key)
        xincref(value)
    return value


cdef inline Hamt _shown(Context context):
    return _with_native_variables(context) if SHOWS_NATIVE_VARIABLES else _snapshot_of(context)


cdef Hamt _with_native_variables(Context context):
    # A copy, because another thread may be setting variables in the Context.
    native = native_copy(context._native)
    cdef Hamt snapshot = native.get(_anchor, EMPTY)
    for variable, value in native.items():
        if variable is not _anchor:
            snapshot = snapshot.set(variable, value)
    return snapshot


cdef inline int _checked(object key) except -1:
    if not is_type(<PyObject *>key, <PyTypeObject *>ContextVar):
        raise TypeError(f"a ContextVar key was expected, got {key!r}{whose(key)}")
    return 0


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
        refuse_to_pickle("ThreadState")


cdef object _refuse_thread_state(PyTypeObject *cls, PyObject *args, PyObject *kwargs):
    raise RuntimeError("a thread has one ThreadState; ask thread_state() for it")


cdef Context _checked_context(object context):
    if type(context) is not Context:
        raise TypeError(f"an instance of Context was expected{whose(context)}")
    return context


def thread_state():
    """Return the calling thread's ThreadState; it is made at the first call and gone with its thread. O(1).

    >>> thread_state() is thread_state()
    True
    """
    return _thread_state()


# By the number of their thread: of those that run, and, if a finaliser asked for one, of those that have begun to end.
cdef dict _states = {}
cdef dict _states_at_end = {}


cdef class _ThreadEnd:
    # Freed when its thread begins to end: the interpreter's dictionary of a thread goes before all of its Contexts.
    cdef uint64_t _thread_id

    def __dealloc__(self):
        global known_thread_id, native_heard_thread_id
        if self._thread_id == 0:
            return
        if known_thread_id == self._thread_id:
            known_thread_id = 0
        if native_heard_thread_id == self._thread_id:
            native_heard_thread_id = 0
        _states_at_end[self._thread_id] = None
        _states.pop(self._thread_id, None)


# The type itself: of two copies of the package, each has its own.
cdef object _END_KEY = _ThreadEnd


cdef ThreadState _thread_state():
    return <ThreadState>_state()


cdef inline PyObject *_state() except NULL:
    # Borrowed.
    return known_thread_state if known_thread_id == native_thread_id() else _state_of_thread()


cdef PyObject *_state_of_thread() except NULL:
    global known_thread_id, known_thread_state
    cdef uint64_t thread_id = native_thread_id()
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
    # What a finaliser has made in the meantime stays. By no `setdefault`: CPython 3.13's goes on where memory lacks.
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
        state._base = state._current = _with_snapshot(EMPTY)
        state._base._home = ref(state)
    return state


cdef PyObject *_state_at_end(uint64_t thread_id) except NULL:
    # In the thread's dictionary, made anew, nobody would let go of it.
    if _states_at_end[thread_id] is None:
        state = _new_state()
        if _states_at_end[thread_id] is None:
            _states_at_end[thread_id] = state
    return PyDict_GetItemWithError(_states_at_end, thread_id)


cdef int _forget_threads() except -1:
    # Those that are gone. Without the GIL they cannot be counted.
    cdef PyThreadState *thread
    if not GIL:
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


cdef uint64_t _main_thread_id = 0
if get_ident() == main_thread().ident:
    _main_thread_id = native_thread_id()
    _state()


cdef void _listen() noexcept:
    # For the thread's end. If that has begun before anybody listened it is not heard: then nothing runs but finalisers,
    # and the first frame is not the one that a thread starts with.
    global native_heard_thread_id
    cdef uint64_t thread_id = native_thread_id()
    try:
        if thread_id in _states_at_end:
            return
        if thread_id == _main_thread_id or _began_in_threading():
            _state()
            native_heard_thread_id = thread_id
    except MemoryError:
        # The next look listens.
        pass


cdef bint _began_in_threading() except -1:
    frame = getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_name == "_bootstrap" and frame.f_globals.get("__name__") == "threading"


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
if NATIVE:
    native_look(_anchor, EMPTY, _listen)
cdef dict _wrappers = {}


@cython.final
cdef class _WrapperEnd:
    cdef object _address

    def __call__(self, reference):
        remove_dead_weakref(_wrappers, self._address)


cdef Context _wrap(object native):
    # A Context that this thread has entered need not be registered.
    cdef ThreadState state = _thread_state()
    cdef Context context = state._current
    cdef Py_ssize_t index = len(state._below)
    while context is not None:
        if context._native is native:
            return context
        index -= 1
        context = state._below[index] if index >= 0 else None
    known = _wrappers.get(id(native))
    context = None if known is None else known()
    return _registered(_with_native(native)) if context is None else context


cdef Context _registered(Context context):
    cdef _WrapperEnd end = _WrapperEnd.__new__(_WrapperEnd)
    end._address = id(context._native)
    reference = ref(context, end)
    while True:
        wrapper = _wrappers.setdefault(end._address, reference)()
        if wrapper is not None:
            return wrapper
        remove_dead_weakref(_wrappers, end._address)


cdef Context _with_native(object native):
    cdef PyObject *context = make(<PyTypeObject *>Context, &_free_contexts)
    fill_context(<Context>context, native, <Hamt>None)
    return as_context(context)


@cython.nonecheck(False)
cdef inline PyObject *_seen_or_found(Hamt snapshot, ContextVar var) noexcept:
    # Borrowed, NULL for none.
    return var._seen if var._seen_in == snapshot._hash else _found(snapshot, var)


@cython.nonecheck(False)
cdef PyObject *_found(Hamt snapshot, ContextVar var) noexcept:
    # And remembered: until the snapshot is changed in place, which is told to the variable, it has the same value.
    global _last_number
    cdef PyObject *value = _find(snapshot, var)
    if not GIL:
        return value
    if snapshot._hash == 0 and _last_number - 1 != NOWHERE:
        _last_number -= 1
        snapshot._hash = _last_number
    if snapshot._hash < 0:
        var._seen, var._seen_in = value, snapshot._hash
    return value


cdef inline PyObject *_find(Hamt snapshot, ContextVar var) noexcept:
    return find_identical(<Node *>snapshot._root, var._hash, <PyObject *>var)


@cython.nonecheck(False)
cdef inline PyObject *_snapshot_at_hand() noexcept:
    # Borrowed; NULL where that is not to be had at once.
    cdef PyObject *snapshot
    if not NATIVE:
        if known_thread_id != native_thread_id():
            return NULL
        return <PyObject *>(<ThreadState>known_thread_state)._current._snapshot
    snapshot = native_here()
    return snapshot if snapshot is not NULL and is_type(snapshot, <PyTypeObject *>Hamt) else NULL


cdef inline PyObject *_loaded(PyObject *here) except NULL:
    # Borrowed, for as long as nobody else runs.
    cdef PyObject *snapshot
    if not NATIVE:
        return <PyObject *>(<Context>here)._snapshot
    snapshot = native_here() if here is NULL or not native_is_known else native_glance(here)
    if snapshot is NULL:
        snapshot = native_current_value(_anchor)
        if snapshot is NULL:
            return <PyObject *>EMPTY
        decref_held(snapshot)
    # Because whoever lists the native Context can get hold of the anchor.
    if not is_type(snapshot, <PyTypeObject *>Hamt):
        raise TypeError(f"Expected Hamt, got {type(<object>snapshot).__name__}")
    return snapshot


cdef Hamt _load():
    return <Hamt>_loaded(NULL if NATIVE else <PyObject *>(<ThreadState>_state())._current)


cdef object _update(PyObject *here, ContextVar var, object value):
    # Returns the old value: nothing comes between that and the token's learning of it.
    cdef Hamt snapshot = EMPTY
    cdef Hamt changed = EMPTY
    cdef PyObject *loaded = _loaded(here)
    if var is None and _sole_snapshot(here, 1) is not NULL and _exchange_all(<Hamt>loaded, value):
        return value
    try:
        while True:
            snapshot = <Hamt>_loaded(here)
            old_value = _old_value(snapshot, var, value)
            changed = _with(snapshot, var, value)
            # The second is the Context's. What was allocated may have run a finaliser, which set a variable or copied it.
            if _sole_snapshot(here, 2) is <PyObject *>snapshot:
                snapshot._become(changed)
                break
            if _exchange(here, snapshot, changed):
                break
    except BaseException:
        if NATIVE and changed is not snapshot and _load() is changed:
            native_set(_anchor, _with_changes(snapshot, changed, _load()))
        raise
    # Not above: returning from a `try`, Cython writes the exception that a caller handles into the generator that runs,
    # which would keep it, and find it in `sys.exc_info()`.
    return old_value


cdef inline PyObject *_exchange_in_place(PyObject *here, ContextVar var, PyObject *value) noexcept:
    # The old value, owned, where the snapshot is nobody else's and that goes at once; else NULL, and nothing was done. No
    # code of the user's runs in here.
    cdef PyObject *snapshot = _sole_snapshot(here, 1)
    cdef PyObject **slot
    cdef PyObject *old_value = NULL
    if snapshot is NULL:
        return NULL
    if value is <PyObject *>ABSENT:
        old_value = _discard_in_place(<Hamt>snapshot, var)
    else:
        slot = sole_slot(<Node *>(<Hamt>snapshot)._root, var._hash, <PyObject *>var, value)
        if slot is NULL:
            old_value = _add_in_place(<Hamt>snapshot, var, value)
        else:
            xincref(value)
            old_value, slot[0] = slot[0], value
    if old_value is not NULL:
        _changed_in_place(<Hamt>snapshot, var, NULL if value is <PyObject *>ABSENT else value)
    return old_value


cdef inline void _changed_in_place(Hamt snapshot, ContextVar var, PyObject *value) noexcept:
    if var._seen_in == snapshot._hash:
        var._seen = value
    elif snapshot._hash > 0:
        # Somebody had the snapshot, and asked for its hash.
        snapshot._hash = 0


cdef PyObject *_add_in_place(Hamt snapshot, ContextVar var, PyObject *value) noexcept:
    cdef Node *root = sole_with_entry(<Node *>snapshot._root, var._hash, <PyObject *>var, value)
    if root is NULL:
        return NULL
    put_root(snapshot, root)
    snapshot._count += 1
    xincref(<PyObject *>ABSENT)
    return <PyObject *>ABSENT


cdef PyObject *_discard_in_place(Hamt snapshot, ContextVar var) noexcept:
    cdef PyObject *old_value = NULL
    cdef Node *root = sole_without_entry(<Node *>snapshot._root, var._hash, <PyObject *>var, &old_value)
    if root is not NULL:
        put_root(snapshot, root)
        snapshot._count -= 1
    return old_value


cdef bint _exchange_all(Hamt snapshot, list changes) noexcept:
    # In place, where that goes for every variable: the list has the old values then.
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
    slot = sole_slot(<Node *>snapshot._root, (<ContextVar>items[index])._hash, items[index], items[index + 1])
    if slot is NULL:
        return False
    items[index + 1], slot[0] = slot[0], items[index + 1]
    _changed_in_place(snapshot, <ContextVar>items[index], slot[0])
    return True


cdef inline PyObject *_sole_snapshot(PyObject *here, Py_ssize_t count) noexcept:
    # The Context's snapshot, borrowed, where only the Context holds it, and the caller: the references that there are then.
    # So it can be changed in place of making another one, and nobody sees. Else NULL.
    cdef PyObject *snapshot = NULL
    cdef bint alone = True
    if not NATIVE:
        snapshot = <PyObject *>(<Context>here)._snapshot
    elif native_is_known:
        snapshot = native_find(here, &alone)
    if snapshot is NULL or not alone or not is_type(snapshot, <PyTypeObject *>Hamt) or not is_sole(snapshot, count):
        return NULL
    return snapshot


cdef bint _exchange(PyObject *here, Hamt expected, Hamt changed) except -1:
    # No code of the user's runs between the look and the set.
    if NATIVE:
        if _loaded(here) is not <PyObject *>expected:
            return False
        native_set(_anchor, changed)
        return True
    with cython.critical_section(<Context>here):
        if (<Context>here)._snapshot is not expected:
            return False
        (<Context>here)._snapshot = changed
        return True


cdef PyObject *_here(PyObject *made_in=NULL) except NULL:
    # Borrowed from the thread. A token that was made elsewhere is refused for that.
    cdef PyObject *here
    cdef PyObject *state
    if not NATIVE:
        state = _state()
        if (<ThreadState>state)._current is (<ThreadState>state)._base:
            if made_in is NULL or made_in is <PyObject *>(<ThreadState>state)._current:
                _refuse_event_loop(<ThreadState>state)
        return <PyObject *>(<ThreadState>state)._current
    here = native_current()
    if here is not NULL:
        return here
    # A set makes one, or tells.
    return native_context_of(native_set(_anchor, _load()))


cdef Hamt _with_changes(Hamt snapshot, Hamt before, Hamt after):
    for var, value in iterate(after, ITEMS):
        if before._find(var, (<ContextVar>var)._hash) is not value:
            snapshot = _with(snapshot, var, value)
    for var in iterate(before, KEYS):
        if after._find(var, (<ContextVar>var)._hash) is ABSENT:
            snapshot = _with(snapshot, var, ABSENT)
    return snapshot


cdef Context context_current():
    return _wrap(<object>_here()) if NATIVE else _thread_state()._current


cdef Hamt _snapshot_of(Context context):
    # Without the GIL: another thread may be about to let go of the snapshot, in the middle of a set.
    cdef PyObject *snapshot
    if NATIVE:
        snapshot = native_glance(<PyObject *>context._native) if native_is_known else NULL
        if snapshot is not NULL:
            return <Hamt?><object>snapshot
        snapshot = native_value(context._native, _anchor)
        return EMPTY if snapshot is NULL else <Hamt?>handed_over(snapshot)
    with cython.critical_section(context):
        return context._snapshot


cdef Context context_copy_current():
    if NATIVE:
        return _with_native(native_copy_current())
    return _with_snapshot((<ThreadState>_state())._current._snapshot)


cdef int context_enter(Context context) except -1:
    cdef PyObject *state = _state()
    cdef const uint64_t *version = native_version_here()
    cdef bint quiet = version[0] == (<ThreadState>state)._quiet_version or _about_to_enter(context)
    _enter(<ThreadState>state, context)
    # What we have entered ourselves is no step of a loop.
    if quiet:
        (<ThreadState>state)._quiet_version = version[0]
    return 0


cdef int context_exit(Context context) except -1:
    cdef PyObject *state = _state()
    cdef const uint64_t *version = native_version_here()
    cdef bint quiet = version[0] == (<ThreadState>state)._quiet_version
    _leave(<ThreadState>state, context)
    if quiet:
        (<ThreadState>state)._quiet_version = version[0]
    return 0


cdef inline int _enter(ThreadState state, Context context) except -1:
    return 0 if _enters_quickly(state, context) else _enter_slowly(state, context)


cdef inline int _leave(ThreadState state, Context context) except -1:
    return 0 if _leaves_quickly(state, context) else _leave_slowly(state, context)


def enter_native(Context context):
    """For `entering`: what an event loop's C code does, and nobody is told."""
    if native_enter(context._native) < 0:
        raise_set()


def leave_native(Context context):
    """For `entering`: what an event loop's C code does, and nobody is told."""
    if native_exit(context._native) < 0:
        raise_set()


@cython.nonecheck(False)
cdef inline bint _enters_quickly(ThreadState state, Context context) noexcept:
    # False where something is in the way, and nothing was done.
    if WATCHED or not has_room(state):
        return False
    if not NATIVE:
        if context._home is not None or exchange_entered(context, True):
            return False
    elif native_enter(context._native) < 0:
        PyErr_Clear()
        return False
    push(state, context)
    return True


@cython.nonecheck(False)
cdef inline bint _leaves_quickly(ThreadState state, Context context) noexcept:
    if WATCHED or not is_topmost(state, context):
        return False
    if NATIVE and native_exit(context._native) < 0:
        PyErr_Clear()
        return False
    pop(state)
    exchange_entered(context, False)
    return True


cdef int _enter_slowly(ThreadState state, Context context) except -1:
    cdef Context left
    if WATCHED:
        left = context_current()
        _enter_unwatched(state, context)
        _tell("enter", None, left, context)
        return 0
    return _enter_unwatched(state, context)


cdef int _enter_unwatched(ThreadState state, Context context) except -1:
    global native_moves
    if NATIVE:
        native_moves += 1
        try:
            return _enter_native(state, context)
        finally:
            native_moves -= 1
    if context._home is not None:
        _check_home(context, state)
    if exchange_entered(context, True):
        raise RuntimeError(_ENTERED.format(context))
    if push(state, context) < 0:
        exchange_entered(context, False)
        return raise_set()
    return 0


cdef int _leave_slowly(ThreadState state, Context context) except -1:
    cdef int left
    cdef bint topmost = is_topmost(state, context)
    global native_moves
    if NATIVE:
        native_moves += 1
        left = native_exit(context._native)
        native_moves -= 1
        if left < 0:
            return _refuse_to_leave(context)
    elif not topmost:
        return _refuse_to_leave(context)
    if topmost:
        pop(state)
        exchange_entered(context, False)
    else:
        _forget_entered(state, context)
    if WATCHED:
        _tell("exit", None, context, None)
    return 0


cdef int _enter_native(ThreadState state, Context context) except -1:
    if native_enter(context._native) < 0:
        return _refuse(context)
    if push(state, context) < 0:
        native_exit(context._native)
        return raise_set()
    return 0


cdef int _forget_entered(ThreadState state, Context context) except -1:
    # Not the current one: greenlets leave theirs in any order.
    cdef Py_ssize_t index = len(state._below)
    while index > 0:
        index -= 1
        if state._below[index] is context:
            del state._below[index]
            break
    return 0


cdef int _refuse_to_leave(Context context) except -1:
    try:
        if NATIVE:
            return _refuse(context)
        raise RuntimeError(_DIFFERENT if context._entered else _NOT_ENTERED.format(context))
    except RuntimeError as refusal:
        if _entering is not None:
            _entering.refuse_to_leave(context, refusal)
        raise


cdef int _refuse(Context context) except -1:
    # The native Context has set its error, which names it.
    try:
        return raise_set()
    except RuntimeError as error:
        for text in (_ENTERED, _NOT_ENTERED):
            if error.args == (text.format(context._native),):
                error.args = (text.format(context),)
        raise


cdef int _refuse_event_loop(ThreadState state) except -1:
    # A loop enters a native Context for each task's step and each callback: while the version stays, none has begun.
    cdef uint64_t version = native_version()
    if version == state._quiet_version:
        return 0
    if _running_loop() is not None:
        raise RuntimeError(_LEAK)
    state._quiet_version = version
    return 0


cdef Context _with_snapshot(Hamt snapshot):
    cdef PyObject *context = make(<PyTypeObject *>Context, &_free_contexts)
    fill_context(<Context>context, None, snapshot)
    return as_context(context)


cdef int _check_home(Context context, ThreadState state) except -1:
    home = context._home()
    if home is not None and home is not state:
        raise RuntimeError(_ENTERED.format(context))
    return 0


cdef object _old_value(Hamt snapshot, ContextVar var, object value):
    if var is not None:
        return snapshot._find(var, var._hash)
    cdef list changes = value, old_values = []
    cdef Py_ssize_t index
    for index in range(0, len(changes), 2):
        old_values.append(changes[index])
        old_values.append(snapshot._find(changes[index], (<ContextVar>changes[index])._hash))
    return old_values


cdef Hamt _with(Hamt snapshot, ContextVar var, object value):
    cdef list changes
    cdef Py_ssize_t index
    if var is None:
        changes = value
        for index in range(0, len(changes), 2):
            snapshot = _with(snapshot, changes[index], changes[index + 1])
        return snapshot
    if value is ABSENT:
        return snapshot._discard(var, var._hash)
    return snapshot._set(var, var._hash, value)


cdef object _running_loop():
    events = modules.get("asyncio.events")
    running_loop = getattr(events, "_get_running_loop", None)
    return None if running_loop is None else running_loop()


cdef bint _about_to_enter(Context context) except -1:
    # Whether no loop can be running; before, because an interrupt after it would leave the Context entered.
    global _entering
    loop = _running_loop()
    # An asynchronous test does without a loop what it would do in one.
    if loop is None and "unittest.async_case" not in modules:
        return True
    if _entering is None:
        _entering = import_module(ENTERING)
    _entering.about_to_enter(context, loop)
    return False


def implement(method, function):
    """For capabilities: what `ContextVar.watch` or `ContextVar.proxy` calls. To import that would fail when the
    interpreter ends."""
    _implementations[method] = function


def tell_changes_to(tell):
    """For `watch`: have `tell(kind, variable, old, new)` called after each change from now on; None ends that."""
    global WATCHED, TOLD, _tell_watchers
    if NATIVE:
        native_watch(_tell_of_switch if tell is not None else <void (*)() noexcept>NULL)
    _tell_watchers = tell
    WATCHED = tell is not None
    TOLD = WATCHED or _note is not None


def note_changes_by(note, look):
    """For debug mode: have `note(kind, variable, old, new)` called after each change of values, and `look(variable)`
    before each `get`."""
    global TOLD, _note, _look
    _note, _look, TOLD = note, look, True
    take_arguments(ContextVar, "get", <void *>_get_after_look, METH_FASTCALL)


cdef object _get_after_look(PyObject *self, PyObject *const *args, Py_ssize_t count):
    _look(<object>self)
    return _get_called(self, args, count)


def show_native_variables(shown):
    """For `install`, on the native host: have every Context show the native variables that are set in it, or not."""
    global SHOWS_NATIVE_VARIABLES
    SHOWS_NATIVE_VARIABLES = shown


@cython.final
cdef class _InNativeContext:
    # A function that binds as a method does, and is called with the arguments as they come.
    cdef readonly object __wrapped__
    cdef void *_vectorcall

    def __cinit__(self, function):
        self.__wrapped__ = function
        self._vectorcall = <void *>_call_in_native_context
        take_calls(self)

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
    return call(function, args, positional, names)


def in_native_context(function):
    """For event loops: the function, given the native Context for one of ours that is its argument `context`."""
    return _InNativeContext(function)


cdef int _init_task_with_native_context(object self, object args, PyObject *options) except -1:
    if options is not NULL:
        context = (<dict>options).get("context")
        if type(context) is Context and (TASKS_ARE_NATIVE or (<dict>options).get("eager_start")):
            native_options = {**<dict>options, "context": context.native}
            return _init_task(self, args, <PyObject *>native_options)
    return _init_task(self, args, options)


def give_tasks_native_contexts(cls):
    """For event loops: the same for this class of asyncio's tasks, if it takes native Contexts alone."""
    init = cls.__init__
    if type(init) is WrapperDescriptorType:
        replace_slot_init(<PyTypeObject *>cls, init, <initproc>_init_task_with_native_context, &_init_task)
    else:
        replace_init(<PyTypeObject *>cls, in_native_context(init))


cdef void _tell(str kind, ContextVar var, object old, object new) noexcept:
    # It may have been taken away by another thread. Its own errors, an interrupt or a lack of room on the stack, go to
    # `sys.unraisablehook`: the change is done, and a Context that was entered would have nobody to leave it. By
    # Cython's default, `unraisable_tracebacks`, they would first go to `sys.excepthook`, a SystemExit would end the
    # process, and at the end of the stack CPython 3.11 would print them, and allow for a level more each time.
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


cdef str _ENTERED = "cannot enter context: {} is already entered"
cdef str _NOT_ENTERED = "cannot exit context: {} has not been entered"
cdef str _DIFFERENT = "cannot exit context: thread state references a different context object"
cdef str _LEAK = (
    "a context variable was set under a running asyncio event loop, in the thread's base Context: on the thread host "
    "every task would see it. Use the native host, which follows event loops (CONTEXTVARS_CY_HOST=native), or set it "
    "in a Context of your own (Context.run)"
)

# ---- end of the hosts ----

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
take_arguments(ContextVar, "get", <void *>_get_called, METH_FASTCALL)
take_arguments(Token, "__exit__", <void *>_exit_called, METH_FASTCALL)
take_arguments(Context, "run", <void *>_run_called, METH_FASTCALL | METH_KEYWORDS)

# For the slot: the name in the class body is only what Python code reads.
(<PyTypeObject *>Token).tp_hash = <hashfunc>PyObject_HashNotImplemented
(<PyTypeObject *>Assignment).tp_hash = <hashfunc>PyObject_HashNotImplemented
