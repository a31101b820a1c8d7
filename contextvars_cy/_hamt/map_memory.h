/* The struct that Cython makes of `Hamt`. */
#ifndef CONTEXTVARS_CY_MAP_MEMORY_H
#define CONTEXTVARS_CY_MAP_MEMORY_H

#define HAMT_HAS_WEAK_REFERENCES(hamt) ((hamt)->__weakref__ != NULL)
#define HAMT_ROOT(hamt) (&(hamt)->_root)

#endif
