# The interpreter's own contexts, as far as C can reach them: the compiled counterpart of `_native`, for one module.

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* The fields that are read here are in a public struct, which a later Python may change: there the slower ways
       that need none of them are taken. */
    #define NATIVE_FIELDS_ARE_KNOWN (PY_VERSION_HEX < 0x03100000)

    /* No two thread states have the same. */
    static inline uint64_t native_thread_id(void) {
    #if NATIVE_FIELDS_ARE_KNOWN
        return PyThreadState_Get()->id;
    #else
        return PyThreadState_GetID(PyThreadState_Get());
    #endif
    }

    /* Moves whenever this thread enters or leaves a native Context. */
    static inline uint64_t native_version(void) {
    #if NATIVE_FIELDS_ARE_KNOWN
        return PyThreadState_Get()->context_ver;
    #else
        static uint64_t version = 0;
        return ++version;
    #endif
    }

    /* The thread's native Context, borrowed; NULL where it has none yet, or where this Python does not tell. */
    static inline PyObject *native_current(void) {
    #if NATIVE_FIELDS_ARE_KNOWN
        return PyThreadState_Get()->context;
    #else
        return NULL;
    #endif
    }

    static int native_visit_context(PyObject *referent, void *found) {
        if (!PyContext_CheckExact(referent)) return 0;
        *(PyObject **)found = referent;
        return 1;
    }

    /* A token keeps its Context private, but shows it to the garbage collector; borrowed. */
    static PyObject *native_context_of(PyObject *token) {
        PyObject *context = NULL;
        Py_TYPE(token)->tp_traverse(token, native_visit_context, &context);
        return context;
    }

    /* Before 3.12 any allocation may run the collector, also those in the middle of CPython's set, and what a finaliser
       set there would be lost (its issue 148891). So it waits. Nothing that has code of the user's is freed meanwhile:
       the caller holds the old value. */
    #if PY_VERSION_HEX >= 0x030C0000
    #define native_stop_collector() 0
    #define native_resume_collector(stopped) ((void)(stopped))
    #elif PY_VERSION_HEX >= 0x030A0000
    #define native_stop_collector() PyGC_Disable()
    #define native_resume_collector(stopped) ((stopped) ? PyGC_Enable() : 0)
    #else
    /* Looked up before they are needed, so that a lack of memory cannot leave the collector stopped. */
    static PyObject *native_gc_isenabled, *native_gc_disable, *native_gc_enable;
    static int native_call(PyObject *function) {
        PyObject *error, *value, *traceback, *answer;
        PyErr_Fetch(&error, &value, &traceback);
        answer = PyObject_CallObject(function, NULL);
        int is_true = answer == Py_True;
        Py_XDECREF(answer);
        PyErr_Restore(error, value, traceback);
        return is_true;
    }
    static int native_stop_collector(void) {
        if (native_gc_enable == NULL) {
            PyObject *module = PyImport_ImportModule("gc");
            if (module != NULL) {
                Py_XSETREF(native_gc_isenabled, PyObject_GetAttrString(module, "isenabled"));
                Py_XSETREF(native_gc_disable, PyObject_GetAttrString(module, "disable"));
                if (native_gc_isenabled && native_gc_disable) {
                    native_gc_enable = PyObject_GetAttrString(module, "enable");
                }
                Py_DECREF(module);
            }
            PyErr_Clear();
        }
        if (native_gc_enable == NULL || !native_call(native_gc_isenabled)) return 0;
        native_call(native_gc_disable);
        return 1;
    }
    #define native_resume_collector(stopped) ((stopped) ? native_call(native_gc_enable) : 0)
    #endif

    /* CPython reads and changes a Context without a lock, also where there is no GIL (its issue 155519). So whatever
       here touches a native Context that another thread can see does it in a critical section of that Context. */
    static PyObject *native_set(PyObject *variable, PyObject *value) {
        PyObject *token;
    #ifdef Py_GIL_DISABLED
        PyObject *context = PyThreadState_Get()->context;
        if (context != NULL) {
            Py_BEGIN_CRITICAL_SECTION(context);
            token = PyContextVar_Set(variable, value);
            Py_END_CRITICAL_SECTION();
            return token;
        }
    #endif
        int stopped = native_stop_collector();
        token = PyContextVar_Set(variable, value);
        native_resume_collector(stopped);
        return token;
    }

    /* Where a ContextVar keeps the value that it was last found to have, borrowed, and in which thread and at which version
       of its Context that was. CPython's own struct: `native_see_cache` looks whether it is like this. */
    typedef struct {
        PyObject_HEAD
        PyObject *name;
        PyObject *default_value;
        PyObject *value;
        uint64_t thread_id;
        uint64_t version;
    } native_variable;

    static int native_cache_is_seen = 0;

    /* The variable's value in the current Context, borrowed, where the variable itself knows it; else NULL. */
    static inline PyObject *native_cached(PyObject *variable) {
    #if NATIVE_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
        native_variable *seen = (native_variable *)variable;
        PyThreadState *thread = PyThreadState_Get();
        if (native_cache_is_seen && seen->version == thread->context_ver && seen->thread_id == thread->id) {
            return seen->value;
        }
    #endif
        return NULL;
    }

    static int native_see_cache(PyObject *value) {
    #if NATIVE_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
        PyThreadState *thread = PyThreadState_Get();
        PyObject *variable = PyContextVar_New("contextvars_cy probe", value), *context = PyContext_New(), *token = NULL;
        native_variable *seen = (native_variable *)variable;
        if (variable && context && PyContext_Enter(context) == 0) {
            if (Py_TYPE(variable)->tp_basicsize >= (Py_ssize_t)sizeof(native_variable)) {
                token = PyContextVar_Set(variable, value);
                native_cache_is_seen = token != NULL && PyUnicode_Check(seen->name) && seen->default_value == value
                    && seen->value == value && seen->thread_id == thread->id && seen->version == thread->context_ver;
            }
            PyContext_Exit(context);
        }
        Py_XDECREF(token);
        Py_XDECREF(context);
        Py_XDECREF(variable);
        if (PyErr_Occurred()) return -1;
    #endif
        return 0;
    }

    /* The value in that Context, owned, or NULL; only a failure sets an exception. */
    static PyObject *native_value(PyObject *context, PyObject *variable) {
        PyObject *value = Py_TYPE(context)->tp_as_mapping->mp_subscript(context, variable);
        if (value == NULL && PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Clear();
        return value;
    }

    static int native_visit_map(PyObject *referent, void *found) {
        if (strcmp(Py_TYPE(referent)->tp_name, "hamt") != 0) return 0;
        *(PyObject **)found = referent;
        return 1;
    }

    static int native_visit_first(PyObject *referent, void *found) {
        *(PyObject **)found = referent;
        return 1;
    }

    /* The map of a Context's variables, borrowed. Contexts that have the same map have the same values. */
    static PyObject *native_map(PyObject *context) {
        PyObject *map = NULL;
        Py_TYPE(context)->tp_traverse(context, native_visit_map, &map);
        return map;
    }

    typedef struct {
        PyObject *wanted;
        int patience;
    } native_search;

    /* Looks for what is wanted in nodes that have one reference. */
    static int native_visit_node(PyObject *referent, void *argument) {
        native_search *search = argument;
        if (referent == search->wanted) return 1;
        if (--search->patience < 0 || Py_REFCNT(referent) != 1) return 0;
        if (strncmp(Py_TYPE(referent)->tp_name, "hamt_", 5) != 0) return 0;
        return Py_TYPE(referent)->tp_traverse(referent, native_visit_node, search);
    }

    /* Whether the Context is the only one to hold the value. A copy of a Context shares its map, one that differs from
       it shares nodes of the map, and all count their references: a count of one, from the map to the value, is nobody
       else's. False where that cannot be seen: without the GIL, in a Python that nobody has tried it on, and where the
       search takes longer than a set. */
    static int native_holds_alone(PyObject *context, PyObject *value) {
    #if NATIVE_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
        PyObject *map = native_map(context), *root = NULL;
        native_search search = {value, 100};
        if (map == NULL || Py_REFCNT(map) != 1) return 0;
        Py_TYPE(map)->tp_traverse(map, native_visit_first, &root);
        return root != NULL && native_visit_node(root, &search);
    #else
        return 0;
    #endif
    }
    """
    uint64_t native_thread_id() noexcept
    uint64_t native_version() noexcept
    PyObject *native_current() noexcept
    # With an exception set where they return -1.
    int native_enter "PyContext_Enter"(object context) noexcept
    int native_exit "PyContext_Exit"(object context) noexcept
    PyObject *native_context_of(object token) noexcept
    object native_set(object variable, object value)
    PyObject *native_cached(object variable) noexcept
    int native_see_cache(object value) except -1
    PyObject *native_value(object context, object variable) except? NULL
    PyObject *native_map(object context) noexcept
    bint native_holds_alone(PyObject *context, PyObject *value) noexcept
