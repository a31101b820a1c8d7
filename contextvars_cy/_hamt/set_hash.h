/* The hash of a frozenset of pairs, step by step, as CPython's `Objects/setobject.c` and `Objects/tupleobject.c` have it. */
#ifndef CONTEXTVARS_CY_SET_HASH_H
#define CONTEXTVARS_CY_SET_HASH_H

#include <Python.h>

#if SIZEOF_SIZE_T > 4
#define HAMT_PRIME_1 ((size_t)11400714785074694791u)
#define HAMT_PRIME_2 ((size_t)14029467366897019727u)
#define HAMT_PRIME_5 ((size_t)2870177450012600261u)
#define HAMT_TURN 31
#else
#define HAMT_PRIME_1 ((size_t)2654435761u)
#define HAMT_PRIME_2 ((size_t)2246822519u)
#define HAMT_PRIME_5 ((size_t)374761393u)
#define HAMT_TURN 13
#endif

static inline size_t hamt_mix_lane(size_t mixed, size_t hash) {
    mixed += hash * HAMT_PRIME_2;
    mixed = mixed << HAMT_TURN | mixed >> (8 * sizeof(size_t) - HAMT_TURN);
    return mixed * HAMT_PRIME_1;
}

/* What a pair of these hashes adds, by exclusive or, to the hash of a set. */
static inline size_t hamt_mixed_pair(size_t key_hash, size_t value_hash) {
    size_t hash = hamt_mix_lane(hamt_mix_lane(HAMT_PRIME_5, key_hash), value_hash) + (2 ^ (HAMT_PRIME_5 ^ 3527539u));
    if (hash == (size_t)-1) hash = 1546275796u;
    return ((hash ^ 89869747u) ^ (hash << 16)) * 3644798167u;
}

static inline Py_hash_t hamt_mixed_set(size_t mixed, Py_ssize_t count) {
    mixed ^= ((size_t)count + 1) * 1927868237u;
    mixed ^= (mixed >> 11) ^ (mixed >> 25);
    mixed = mixed * 69069u + 907133923u;
    return mixed == (size_t)-1 ? 590923713 : (Py_hash_t)mixed;
}

#endif
