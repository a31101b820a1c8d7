# The thread host: every thread has a stack of our own Contexts, in its ThreadState. `thread_host_py` explains.


# ---- snapshots ----


@cython.nonecheck(False)
cdef inline PyObject *thread_snapshot_at_hand() noexcept:
    if known_thread_id != thread_id_here():
        return NULL
    return <PyObject *>(<ThreadState>known_thread_state)._current._snapshot


cdef Hamt thread_snapshot_of(Context context):
    # Without the GIL, another thread may be about to free the snapshot, in the middle of a set.
    with cython.critical_section(context):
        return context._snapshot


cdef bint thread_exchange(Context context, Hamt expected, Hamt changed) except -1:
    with cython.critical_section(context):
        if context._snapshot is not expected:
            return False
        context._snapshot = changed
        return True


cdef inline PyObject *thread_place_of_set(PyObject *made_in) except NULL:
    cdef PyObject *state = _state()
    if (<ThreadState>state)._current is (<ThreadState>state)._base:
        if made_in is NULL or made_in is <PyObject *>(<ThreadState>state)._current:
            _refuse_event_loop(<ThreadState>state)
    return <PyObject *>(<ThreadState>state)._current


cdef int _refuse_event_loop(ThreadState state) except -1:
    # A loop enters a native Context for each task step and callback: while the version stays, none has begun.
    cdef uint64_t version = context_version()
    if version == state._loopless_version:
        return 0
    if _running_loop() is not None:
        raise RuntimeError(LEAK)
    state._loopless_version = version
    return 0


# ---- Contexts ----


cdef Context thread_context_with(Hamt snapshot):
    cdef PyObject *context = allocate(<PyTypeObject *>Context, &_free_contexts)
    fill_context(<Context>context, None, snapshot)
    return as_context(context)


cdef int thread_prepare(ThreadState state) except -1:
    state._base = state._current = thread_context_with(EMPTY)
    state._base._home = ref(state)
    return 0


@cython.nonecheck(False)
cdef inline bint thread_enters_quickly(ThreadState state, Context context) noexcept:
    if context._home is not None or exchange_entered(context, True):
        return False
    push(state, context)
    return True


@cython.nonecheck(False)
cdef inline bint thread_leaves_quickly(ThreadState state, Context context) noexcept:
    pop(state)
    exchange_entered(context, False)
    return True


cdef int thread_enter(ThreadState state, Context context) except -1:
    if context._home is not None:
        _check_home(context, state)
    if exchange_entered(context, True):
        raise RuntimeError(ENTERED.format(CONTEXT.format(id(context))))
    if push(state, context) < 0:
        exchange_entered(context, False)
        return raise_pending()
    return 0


cdef int thread_leave(ThreadState state, Context context) except -1:
    if not is_topmost(state, context):
        raise RuntimeError(DIFFERENT if context._entered else NOT_ENTERED.format(CONTEXT.format(id(context))))
    pop(state)
    exchange_entered(context, False)
    return 0


cdef int _check_home(Context context, ThreadState state) except -1:
    home = context._home()
    if home is not None and home is not state:
        raise RuntimeError(ENTERED.format(CONTEXT.format(id(context))))
    return 0
