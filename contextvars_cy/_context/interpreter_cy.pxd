# The interpreter's own contexts, as far as C can reach them: the compiled counterpart of `interpreter`, for one module.

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

# For its C code, of which there is some use below.
from .._hamt.trie_cy cimport popcount

cdef extern from *:
    """
    #include <stdint.h>
    #include <stddef.h>
    #include <string.h>

    /* The fields that are read here are in a public struct, which a later Python may change: there the slower ways
       that need none of them are taken. */
    #ifndef NATIVE_FIELDS_ARE_KNOWN
    #define NATIVE_FIELDS_ARE_KNOWN (PY_VERSION_HEX < 0x03100000)
    #endif

    #if PY_VERSION_HEX >= 0x030D0000
    #define native_thread() PyThreadState_GetUnchecked()
    #else
    #define native_thread() _PyThreadState_UncheckedGet()
    #endif

    /* No two thread states have the same. */
    static inline uint64_t native_thread_id(void) {
    #if NATIVE_FIELDS_ARE_KNOWN
        return native_thread()->id;
    #else
        return PyThreadState_GetID(native_thread());
    #endif
    }

    #ifndef Py_GIL_DISABLED
    #define HAMT_THREAD_LOCAL
    #elif defined(_MSC_VER)
    #define HAMT_THREAD_LOCAL __declspec(thread)
    #else
    #define HAMT_THREAD_LOCAL __thread
    #endif

    /* The thread that asked last for its ThreadState. */
    static HAMT_THREAD_LOCAL uint64_t known_thread_id;

    /* Moves whenever this thread enters or leaves a native Context: here it is, for more than one look. */
    static inline const uint64_t *native_version_here(void) {
    #if NATIVE_FIELDS_ARE_KNOWN
        return &native_thread()->context_ver;
    #else
        static uint64_t version = 0;
        ++version;
        return &version;
    #endif
    }

    static inline uint64_t native_version(void) {
        return *native_version_here();
    }

    /* The thread's native Context, borrowed; NULL where it has none yet, or where this Python does not tell. */
    static inline PyObject *native_current(void) {
    #if NATIVE_FIELDS_ARE_KNOWN
        return native_thread()->context;
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

    /* Before 3.12 any allocation may run the collector, also those in the middle of CPython's set or copy. What a
       finaliser sets there is lost (its issue 148891), and frees the map that CPython is reading. So the collector
       waits. Nothing that has code of the user's is freed meanwhile: the caller holds the old value. */
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
    #ifdef Py_GIL_DISABLED
    #define NATIVE_LOCKED(context, statement) Py_BEGIN_CRITICAL_SECTION(context); statement; Py_END_CRITICAL_SECTION()
    #else
    #define NATIVE_LOCKED(context, statement) statement
    #endif

    /* With an exception set where they return -1. */
    static inline int native_enter(PyObject *context) {
        int status;
        NATIVE_LOCKED(context, status = PyContext_Enter(context));
        return status;
    }

    static inline int native_exit(PyObject *context) {
        int status;
        NATIVE_LOCKED(context, status = PyContext_Exit(context));
        return status;
    }

    static inline PyObject *native_copy(PyObject *context) {
        PyObject *copy;
        int stopped = native_stop_collector();
        NATIVE_LOCKED(context, copy = PyContext_Copy(context));
        native_resume_collector(stopped);
        return copy;
    }

    static inline PyObject *native_copy_current(void) {
        int stopped = native_stop_collector();
        PyObject *copy = PyContext_CopyCurrent();
        native_resume_collector(stopped);
        return copy;
    }

    static PyObject *native_set(PyObject *variable, PyObject *value) {
        PyObject *token;
    #ifdef Py_GIL_DISABLED
        PyObject *context = native_current();
        if (context != NULL) {
            NATIVE_LOCKED(context, token = PyContextVar_Set(variable, value));
            return token;
        }
    #endif
        int stopped = native_stop_collector();
        token = PyContextVar_Set(variable, value);
        native_resume_collector(stopped);
        return token;
    }

    /* The value in that Context, owned, or NULL; only a failure sets an exception. */
    static PyObject *native_value(PyObject *context, PyObject *variable) {
        PyObject *value;
        NATIVE_LOCKED(context, value = Py_TYPE(context)->tp_as_mapping->mp_subscript(context, variable));
        if (value == NULL && PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Clear();
        return value;
    }

    /* The value in the current Context, owned, or NULL: as PyContextVar_Get finds it, but in the Context itself. */
    static PyObject *native_current_value(PyObject *variable) {
        PyObject *context = native_copy_current(), *value;
        if (context == NULL) return NULL;
        value = native_value(context, variable);
        Py_DECREF(context);
        return value;
    }

    static int native_visit_map(PyObject *referent, void *found) {
        if (strcmp(Py_TYPE(referent)->tp_name, "hamt") != 0) return 0;
        *(PyObject **)found = referent;
        return 1;
    }

    /* The map of a Context's variables, borrowed. Contexts that have the same map have the same values. */
    static PyObject *native_map(PyObject *context) {
        PyObject *map = NULL;
        Py_TYPE(context)->tp_traverse(context, native_visit_map, &map);
        return map;
    }

    /* The structs behind a variable, a Context and its map, as far as they are read here. Nobody promises them:
       `native_look` sees whether they are like this. Without the GIL there is no lock to read them under. */
    typedef struct {
        PyObject_HEAD
        PyObject *name;
        PyObject *default_value;
        /* What the variable was last found to have, borrowed, and in which thread and at which version of its Context. */
        PyObject *value;
        uint64_t thread_id;
        uint64_t version;
    } native_variable;

    typedef struct {
        PyObject_HEAD
        PyObject *previous;
        PyObject *map;
    } native_context;

    typedef struct {
        PyObject_HEAD
        PyObject *root;
    } native_tree;

    typedef struct {
        PyObject_VAR_HEAD
        uint32_t bitmap;
        PyObject *slots[];
    } native_bitmap_node;

    typedef struct {
        PyObject_HEAD
        PyObject *children[32];
    } native_array_node;

    static PyObject *native_anchor;
    static uint32_t native_anchor_hash;
    static PyTypeObject *native_bitmap_type, *native_array_type;
    static int native_is_known = 0;

    #if PY_VERSION_HEX < 0x030A0000
    #define Py_NewRef(thing) (Py_INCREF(thing), (thing))
    #endif

    /* The anchor's value in the Context, borrowed. NULL where it has none, or where CPython has to be asked: among variables
       whose hashes are all the same. And whether nobody but the Context holds the value, if nobody holds it in another
       way: a copy of a Context shares its map, one that differs from it shares nodes of the map, and all count their
       references, so a count of one, from the map to the value, is nobody else's. */
    static inline PyObject *native_find(PyObject *context, int *alone) {
        PyObject *map = ((native_context *)context)->map, *node = ((native_tree *)map)->root;
        uint32_t hash = native_anchor_hash;
        *alone = Py_REFCNT(map) == 1;
        while (node != NULL) {
            *alone &= Py_REFCNT(node) == 1;
            if (Py_IS_TYPE(node, native_bitmap_type)) {
                native_bitmap_node *entries = (native_bitmap_node *)node;
                uint32_t bit = (uint32_t)1 << (hash & 31);
                if (!(entries->bitmap & bit)) return NULL;
                PyObject **slot = entries->slots + 2 * hamt_popcount(entries->bitmap & (bit - 1));
                if (slot[0] != NULL) return slot[0] == native_anchor ? slot[1] : NULL;
                node = slot[1];
            }
            else if (Py_IS_TYPE(node, native_array_type)) {
                node = ((native_array_node *)node)->children[hash & 31];
            }
            else {
                return NULL;
            }
            hash >>= 5;
        }
        return NULL;
    }

    /* The same for who only reads, and where the anchor is the first of few variables at once. */
    static inline PyObject *native_glance(PyObject *context) {
        native_bitmap_node *root = (native_bitmap_node *)((native_tree *)((native_context *)context)->map)->root;
        int alone;
        if (Py_IS_TYPE((PyObject *)root, native_bitmap_type) && root->bitmap && root->slots[0] == native_anchor) {
            return root->slots[1];
        }
        return native_find(context, &alone);
    }

    #if NATIVE_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
    /* A thread that ends lets go of its first Context and leaves the version as it is. What a finaliser sets from then on
       makes another first Context of the same version, and what the anchor keeps of the old one is freed memory. So it is
       believed in a Context that was entered, which moved the version, and in the thread that will be heard to end. */
    static uint64_t native_heard_thread_id;
    static void (*native_listen)(void);

    static inline int native_is_believed(PyThreadState *thread) {
        return native_heard_thread_id == thread->id || ((native_context *)thread->context)->previous != NULL;
    }

    /* At the second look at one version CPython's own function is asked, which has the variable keep the value. */
    static PyObject *native_look_up(PyThreadState *thread) {
        static uint64_t version = 0;
        PyObject *value = NULL;
        if (version == thread->context_ver) {
            if (!native_is_believed(thread)) native_listen();
            if (native_is_believed(thread)) {
                PyContextVar_Get(native_anchor, NULL, &value);
                Py_XDECREF(value);
                return value;
            }
        }
        version = thread->context_ver;
        return native_glance(thread->context);
    }
    #else
    static uint64_t native_heard_thread_id;
    #endif

    /* The anchor's value in the current Context, borrowed; NULL where there is none, or CPython has to be asked. */
    static inline PyObject *native_here(void) {
    #if NATIVE_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
        native_variable *anchor = (native_variable *)native_anchor;
        PyThreadState *thread = native_thread();
        if (native_is_known && thread->context != NULL) {
            if (anchor->version == thread->context_ver && anchor->thread_id == thread->id && native_is_believed(thread)) {
                return anchor->value;
            }
            return native_look_up(thread);
        }
    #endif
        return NULL;
    }

    #if NATIVE_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
    static int native_visit_first(PyObject *referent, void *found) {
        *(PyObject **)found = referent;
        return 1;
    }

    static int native_keeps(PyObject *value) {
        native_variable *anchor = (native_variable *)native_anchor;
        PyThreadState *thread = native_thread();
        return Py_TYPE(anchor)->tp_basicsize >= (Py_ssize_t)sizeof(native_variable) && PyUnicode_Check(anchor->name)
            && anchor->default_value == NULL && anchor->value == value && anchor->thread_id == thread->id
            && anchor->version == thread->context_ver;
    }

    /* Whether a Context's map is as described above, in the eyes of its own functions. */
    static int native_is_as_described(PyObject *context, PyObject *value, int shared) {
        PyObject *map = native_map(context), *root = NULL;
        int alone;
        if (map == NULL || ((native_context *)context)->map != map) return 0;
        Py_TYPE(map)->tp_traverse(map, native_visit_first, &root);
        if (root == NULL || ((native_tree *)map)->root != root) return 0;
        PyTypeObject *type = Py_TYPE(root);
        if (strcmp(type->tp_name, "hamt_bitmap_node") == 0) {
            if (type->tp_basicsize != offsetof(native_bitmap_node, slots)) return 0;
            native_bitmap_type = type;
        }
        else if (strcmp(type->tp_name, "hamt_array_node") == 0) {
            if (type->tp_basicsize < (Py_ssize_t)sizeof(native_array_node)) return 0;
            native_array_type = type;
        }
        return native_find(context, &alone) == value && alone == !shared;
    }

    /* In a Context of one variable, in those of many more, and in a copy. */
    static int native_try(PyObject *context, PyObject *value) {
        int count, as_described = 1;
        for (count = 0; count < 40 && as_described; count++) {
            PyObject *variable = count ? PyContextVar_New("filler", NULL) : Py_NewRef(native_anchor);
            PyObject *token = variable ? PyContextVar_Set(variable, value) : NULL;
            Py_XDECREF(variable);
            if (token == NULL) return -1;
            Py_DECREF(token);
            as_described = native_is_as_described(context, value, 0) && (count || native_keeps(value));
        }
        PyObject *copy = PyContext_Copy(context);
        if (copy == NULL) return -1;
        as_described = as_described && native_is_as_described(context, value, 1);
        int failed = PyContext_Enter(copy) < 0;
        as_described = as_described && ((native_context *)copy)->previous == context;
        failed = failed || PyContext_Exit(copy) < 0;
        Py_DECREF(copy);
        if (failed) return -1;
        return as_described && native_bitmap_type != NULL && native_array_type != NULL;
    }

    #endif

    /* To be called once, with the variable that is looked for from then on. */
    static int native_look(PyObject *anchor, PyObject *value, void (*listen)(void)) {
        native_anchor = anchor;
    #if NATIVE_FIELDS_ARE_KNOWN && !defined(Py_GIL_DISABLED)
        native_listen = listen;
        PyObject *context = PyContext_New();
        Py_hash_t hash = PyObject_Hash(anchor);
        int answer = -1;
        /* Folded as CPython's `hamt_hash` does it. */
        native_anchor_hash = (uint32_t)hash;
    #if SIZEOF_VOID_P > 4
        native_anchor_hash ^= (uint32_t)((uint64_t)hash >> 32);
    #endif
        if (native_anchor_hash == (uint32_t)-1) native_anchor_hash = (uint32_t)-2;
        if (context != NULL && hash != -1 && PyContext_Enter(context) == 0) {
            answer = native_try(context, value);
            if (PyContext_Exit(context) < 0) answer = -1;
        }
        Py_XDECREF(context);
        native_is_known = answer == 1;
        return answer < 0 ? -1 : 0;
    #else
        return 0;
    #endif
    }

    /* Have `told` called after each switch of Contexts in any thread, but for those that count as a move of our own; NULL:
       no more. CPython tells from 3.14 on. */
    #if PY_VERSION_HEX >= 0x030E0000
    #ifdef _MSC_VER
    static __declspec(thread) int native_moves;
    #else
    static __thread int native_moves;
    #endif
    static void (*native_told)(void);
    static int native_watcher = -1;

    static int native_switched(PyContextEvent event, PyObject *Py_UNUSED(context)) {
        if (event == Py_CONTEXT_SWITCHED && !native_moves && !Py_IsFinalizing()) {
            PyObject *pending = PyErr_GetRaisedException();
            native_told();
            PyErr_SetRaisedException(pending);
        }
        return 0;
    }

    static int native_watch(void (*told)(void)) {
        int watcher = native_watcher;
        if (told != NULL) {
            native_told = told;
            if (watcher < 0) native_watcher = PyContext_AddWatcher(native_switched);
            return native_watcher < 0 ? -1 : 0;
        }
        native_watcher = -1;
        return watcher < 0 ? 0 : PyContext_ClearWatcher(watcher);
    }
    #else
    static int native_moves;

    static int native_watch(void (*told)(void)) {
        (void)told;
        return 0;
    }
    #endif
    """
    uint64_t known_thread_id
    uint64_t native_heard_thread_id
    uint64_t native_thread_id() noexcept
    uint64_t native_version() noexcept
    const uint64_t *native_version_here() noexcept
    PyObject *native_current() noexcept
    int native_enter(object context) noexcept
    int native_exit(object context) noexcept
    object native_copy(object context)
    object native_copy_current()
    PyObject *native_context_of(object token) noexcept
    object native_set(object variable, object value)
    PyObject *native_value(object context, object variable) except? NULL
    PyObject *native_current_value(object variable) except? NULL
    PyObject *native_map(object context) noexcept
    bint native_is_known
    PyObject *native_find(PyObject *context, bint *alone) noexcept
    PyObject *native_glance(PyObject *context) noexcept
    PyObject *native_here() noexcept
    int native_look(object anchor, object value, void (*listen)() noexcept) except -1
    int native_moves
    int native_watch(void (*told)() noexcept) except -1
