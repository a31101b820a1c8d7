# What Cython has no words for, in C: to make objects without its calls in between, to count references to them as the
# processor likes it, and to call and be called with arguments as they come.

from cpython.object cimport PyObject, PyTypeObject

cdef extern from *:
    """
    /* Objects of one type that were freed, to be made anew. */
    typedef struct {
        Py_ssize_t count;
        PyObject *freed[64];
    } hamt_free_list;

    /* An instance whose fields are NULL, or 0; Cython's own way there takes three calls. */
    static inline PyObject *hamt_make(PyTypeObject *type, hamt_free_list *list) {
        PyObject *made;
        if (list->count == 0) return PyType_GenericAlloc(type, 0);
        made = list->freed[--list->count];
        _Py_NewReference(made);
        PyObject_GC_Track(made);
        return made;
    }

    /* For a type's `tp_free`, after its `tp_dealloc` has let go of the fields. */
    static inline void hamt_keep(PyObject *freed, hamt_free_list *list) {
    #if CYTHON_USE_FREELISTS  /* With the GIL, and where whoever builds this has not said 0. */
        if (list->count < 64) {
            list->freed[list->count++] = freed;
            return;
        }
    #endif
        PyObject_GC_Del(freed);
    }

    /* As PyObject_Vectorcall, but for its look at the result and the exception, of which C code owes one. */
    static inline PyObject *hamt_call(PyObject *callable, PyObject *const *args, size_t count, PyObject *names) {
        PyTypeObject *type = Py_TYPE(callable);
        if (type->tp_flags & Py_TPFLAGS_HAVE_VECTORCALL) {
            vectorcallfunc function = *(vectorcallfunc *)((char *)callable + type->tp_vectorcall_offset);
            if (function != NULL) return function(callable, args, count, names);
        }
        return PyObject_Vectorcall(callable, args, count, names);
    }

    /* Without the GIL a count shows nothing. */
    static inline int hamt_is_sole(PyObject *thing, Py_ssize_t count) {
    #ifndef Py_GIL_DISABLED
        return Py_REFCNT(thing) == count;
    #else
        return 0;
    #endif
    }

    /* For what somebody else holds. From 3.12 to 3.13 counts go up by 32 bits and down by 64, and reading more bits than
       were just written is what the processor is slow at: so by 32. */
    static inline void hamt_decref_held(PyObject *thing) {
    #if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000 && SIZEOF_VOID_P > 4 && !defined(Py_GIL_DISABLED) \
        && !defined(Py_REF_DEBUG)
        if (!_Py_IsImmortal(thing)) thing->ob_refcnt_split[PY_BIG_ENDIAN]--;
    #else
        Py_DECREF(thing);
    #endif
    }

    /* Have a method of the type take its arguments as they come. */
    static int hamt_take_arguments(PyObject *type, const char *name, void *function, int flags) {
        PyObject *names = ((PyTypeObject *)type)->tp_dict, *key = PyUnicode_FromString(name), *method;
        PyMethodDef *definition;
        if (key == NULL) return -1;
        method = PyDict_GetItemWithError(names, key);
        Py_DECREF(key);
        if (method == NULL) return -1;
        definition = ((PyMethodDescrObject *)method)->d_method;
        definition->ml_meth = (PyCFunction)function;
        definition->ml_flags = flags;
        method = PyDescr_NewMethod((PyTypeObject *)type, definition);
        if (method == NULL) return -1;
        int result = PyDict_SetItemString(names, name, method);
        Py_DECREF(method);
        PyType_Modified((PyTypeObject *)type);
        return result;
    }

    /* Set the `__init__` of a class, also of one in C, which Python allows while a flag is not set. */
    static int hamt_replace_init(PyTypeObject *type, PyObject *init) {
        unsigned long immutable = type->tp_flags & Py_TPFLAGS_IMMUTABLETYPE;
        int result;
        type->tp_flags &= ~immutable;
        result = PyObject_SetAttrString((PyObject *)type, "__init__", init);
        type->tp_flags |= immutable;
        return result;
    }

    /* The same where it is C code, by C code, which is called with what it replaces in `before`. */
    static int hamt_replace_slot_init(PyTypeObject *type, PyObject *replaced, initproc init, initproc *before) {
        PyWrapperDescrObject *descriptor = (PyWrapperDescrObject *)replaced;
        PyObject *replacing;
        int result;
        if ((void *)init == descriptor->d_wrapped) return 0;
        replacing = PyDescr_NewWrapper(type, descriptor->d_base, (void *)init);
        if (replacing == NULL) return -1;
        *before = (initproc)descriptor->d_wrapped;
        result = hamt_replace_init(type, replacing);
        Py_DECREF(replacing);
        return result;
    }
    """
    int METH_FASTCALL
    int METH_KEYWORDS
    ctypedef struct free_list "hamt_free_list":
        pass
    ctypedef int (*initproc)(object, object, PyObject *) except -1
    PyObject *make "hamt_make"(PyTypeObject *kind, free_list *freed) except NULL
    void keep "hamt_keep"(PyObject *freed, free_list *kept) noexcept
    object call "hamt_call"(PyObject *callable, PyObject *const *args, size_t count, PyObject *names)
    bint is_sole "hamt_is_sole"(PyObject *thing, Py_ssize_t count) noexcept
    void decref_held "hamt_decref_held"(PyObject *thing) noexcept
    int replace_init "hamt_replace_init"(PyTypeObject *kind, object init) except -1
    int replace_slot_init "hamt_replace_slot_init"(
        PyTypeObject *kind, object replaced, initproc init, initproc *before
    ) except -1
    int take_arguments "hamt_take_arguments"(object kind, const char *name, void *function, int flags) except -1
