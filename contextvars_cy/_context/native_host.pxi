# The native host: a snapshot rides inside Python's own context, as the value of one native variable, the anchor.
# `native_host_py` explains. Part of `context_cy`, because a call between modules costs 2 to 3 ns and an inlined one 1.

cdef object _anchor = PyContextVar_New("contextvars_cy", NULL)
cdef bint SHOWS_NATIVE_VARIABLES = False
if NATIVE:
    probe_layout(_anchor, EMPTY)


# ---- snapshots ----


cdef inline PyObject *native_snapshot_at_hand() noexcept:
    cdef PyObject *snapshot = anchor_value_here()
    return snapshot if snapshot is not NULL and is_type(snapshot, <PyTypeObject *>Hamt) else NULL


cdef inline PyObject *native_loaded(PyObject *place) except NULL:
    cdef PyObject *snapshot = anchor_value_here() if place is NULL or not layout_is_known else anchor_value_in(place)
    if snapshot is NULL:
        snapshot = current_native_value(_anchor)
        if snapshot is NULL:
            return <PyObject *>EMPTY
        # The Context holds it.
        decref(snapshot)
    # Code that lists the native Context can get the anchor, and set it.
    if not is_type(snapshot, <PyTypeObject *>Hamt):
        raise TypeError(f"Expected Hamt, got {type(<object>snapshot).__name__}")
    return snapshot


cdef Hamt native_snapshot_of(Context context):
    cdef PyObject *snapshot = anchor_value_in(<PyObject *>context._native) if layout_is_known else NULL
    if snapshot is not NULL:
        return <Hamt?><object>snapshot
    snapshot = value_in_native(context._native, _anchor)
    return EMPTY if snapshot is NULL else <Hamt?>owned(snapshot)


cdef inline PyObject *native_snapshot_held_by(PyObject *place, bint *alone) noexcept:
    return find_anchor(place, alone) if layout_is_known else NULL


cdef bint native_exchange(PyObject *place, Hamt expected, Hamt changed) except -1:
    # No user code runs between the test and the set.
    if native_loaded(place) is not <PyObject *>expected:
        return False
    set_native(_anchor, changed)
    return True


cdef int native_take_back(Hamt snapshot, Hamt changed) except -1:
    # A set may fail after it took effect.
    if native_loaded(NULL) is <PyObject *>changed:
        set_native(_anchor, snapshot)
    return 0


cdef PyObject *native_place_of_set() except NULL:
    cdef PyObject *place = current_native_context()
    if place is not NULL:
        return place
    # A set makes and reveals a native Context.
    return context_of_token(set_native(_anchor, <Hamt>native_loaded(NULL)))


# ---- Contexts ----

# As in the reference, except for the wrapper registered last: a weak reference without a callback costs a third.
cdef dict _wrappers = {}
cdef object _latest = None


@cython.final
cdef class _WrapperEnd:
    cdef object _address

    def __call__(self, reference):
        remove_dead_weakref(_wrappers, self._address)


cdef Context native_wrap(object native):
    # A Context that this thread has entered need not be registered.
    cdef ThreadState state = _thread_state()
    cdef Context context = state._current
    cdef Py_ssize_t index = len(state._below)
    while context is not None:
        if context._native is native:
            return context
        index -= 1
        context = state._below[index] if index >= 0 else None
    context = _registered_for(native)
    return native_registered(native_context_with(native)) if context is None else context


cdef Context _registered_for(object native):
    cdef Context context = _latest_registered()
    if context is not None and context._native is native:
        return context
    known = _wrappers.get(id(native)) if _wrappers else None
    return None if known is None else known()


cdef inline Context _latest_registered():
    cdef PyObject *context = NULL if _latest is None else referent_of(<PyObject *>_latest)
    return None if context is NULL else as_context(context)


cdef Context native_registered(Context context):
    global _latest
    cdef Context latest
    if context._is_registered:
        return context
    while HAS_GIL:
        found = _registered_for(context._native)
        if found is not None:
            return found
        latest = _latest_registered()
        if latest is None:
            reference = PyWeakref_NewRef(context, None)
            # Making it may have run a finaliser that registered another.
            if _latest_registered() is None and _registered_for(context._native) is None:
                _latest, context._is_registered = reference, True
                return context
        else:
            _register_in_dict(latest)
            if _latest_registered() is latest:
                _latest = None
    return _register_in_dict(context)


cdef Context _register_in_dict(Context context):
    cdef _WrapperEnd end = _WrapperEnd.__new__(_WrapperEnd)
    end._address = id(context._native)
    reference = ref(context, end)
    while True:
        wrapper = _wrappers.setdefault(end._address, reference)()
        if wrapper is not None:
            (<Context>wrapper)._is_registered = True
            return wrapper
        remove_dead_weakref(_wrappers, end._address)


cdef Context native_context_with(object native):
    cdef PyObject *context = allocate(<PyTypeObject *>Context, &_free_contexts)
    fill_context(<Context>context, native, <Hamt>None)
    return as_context(context)


@cython.nonecheck(False)
cdef inline bint native_enters_quickly(ThreadState state, Context context) noexcept:
    if enter_native(context._native) < 0:
        PyErr_Clear()
        return False
    push(state, context)
    return True


@cython.nonecheck(False)
cdef inline bint native_leaves_quickly(ThreadState state, Context context) noexcept:
    if exit_native(context._native) < 0:
        PyErr_Clear()
        return False
    pop(state)
    return True


cdef int native_enter(ThreadState state, Context context) except -1:
    global own_moves
    cdef int entered
    own_moves += 1
    entered = enter_native(context._native)
    if entered == 0 and push(state, context) < 0:
        exit_native(context._native)
        own_moves -= 1
        return raise_pending()
    own_moves -= 1
    return _name_our_context(context) if entered < 0 else 0


cdef int native_leave(ThreadState state, Context context) except -1:
    global own_moves
    cdef bint topmost = is_topmost(state, context)
    cdef int left
    own_moves += 1
    left = exit_native(context._native)
    own_moves -= 1
    if left < 0:
        return _name_our_context(context)
    if topmost:
        pop(state)
    else:
        _forget_entered(state, context)
    return 0


cdef int _forget_entered(ThreadState state, Context context) except -1:
    # Not always the current one: greenlets leave theirs in any order.
    cdef Py_ssize_t index = len(state._below)
    while index > 0:
        index -= 1
        if state._below[index] is context:
            del state._below[index]
            break
    return 0


cdef int _name_our_context(Context context) except -1:
    # The native Context has set an error that names the native one.
    try:
        return raise_pending()
    except RuntimeError as error:
        for text in (ENTERED, NOT_ENTERED):
            if error.args == (text.format(context._native),):
                error.args = (text.format(CONTEXT.format(id(context))),)
        raise


# ---- what a Context shows ----


def show_native_variables(shown):
    """For `install`, on the native host: make every Context show the native variables set in it, or hide them."""
    global SHOWS_NATIVE_VARIABLES
    SHOWS_NATIVE_VARIABLES = shown


cdef Hamt native_shown_values(Context context):
    # A copy, because another thread may set variables in the Context.
    native = copy_native(context._native)
    cdef Hamt snapshot = native.get(_anchor, EMPTY)
    for variable, value in native.items():
        if variable is not _anchor:
            snapshot = snapshot.set(variable, value)
    return snapshot


cdef PyObject *_native_value_in(Context context, object key, PyObject *default) except NULL:
    # As `_value_in`, for a native variable.
    cdef PyObject *value = NULL
    if not SHOWS_NATIVE_VARIABLES or type(key) is not type(_anchor):
        _checked_variable(key)
    if key is not _anchor:
        value = value_in_native(context._native, key)
    if value is NULL:
        value = default
        if value is NULL:
            raise KeyError(key)
        xincref(value)
    return value


# ---- what an event loop's C code does; no watcher is told ----


def enter_untold(Context context):
    """For `entering`."""
    if enter_native(context._native) < 0:
        raise_pending()


def leave_untold(Context context):
    """For `entering`."""
    if exit_native(context._native) < 0:
        raise_pending()
