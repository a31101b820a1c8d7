# cython: language_level=3, binding=False, auto_pickle=False
# cython: wraparound=False, boundscheck=False, initializedcheck=False, freethreading_compatible=True
"""The compiled twin of `trie_py`, which explains what both do.

Nodes are objects of a type of their own, made in C, with their slots inline: one allocation each. Pointers to them are
borrowed from the root that the caller holds; a function that makes a node returns it as an object, owned.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint32_t

from importlib import import_module

# Not `from .. import`: Cython would import the name that it compiled, and in a copy of this package under another name
# that is another copy's module.
cdef object ABSENT = import_module(".._sentinels", __package__).ABSENT

cdef extern from "interpreter_end.h":
    void interpreter_ends() noexcept
    int Py_AtExit(void (*function)() noexcept) noexcept

Py_AtExit(interpreter_ends)

cdef extern from "set_hash.h":
    size_t mixed_pair "hamt_mixed_pair"(size_t key_hash, size_t value_hash) noexcept

cdef extern from "node_memory.h":
    void free_shell "hamt_free_shell"(Node *node) noexcept
    Node *moved "hamt_node_from"(
        Node *node, uint32_t entries, Py_ssize_t at, Py_ssize_t drop, Py_ssize_t gain
    ) noexcept
    int node_type_ready "hamt_node_type_ready"() except -1
    Node *new_node "hamt_new_node"(uint32_t entries, uint32_t children, Py_ssize_t size) except NULL
    Node *new_node_or_null "hamt_new_node"(uint32_t entries, uint32_t children, Py_ssize_t size) noexcept
    Node *spliced "hamt_spliced"(
        Node *node, uint32_t entries, uint32_t children, Py_ssize_t at, Py_ssize_t drop, Py_ssize_t gain
    ) except NULL
    void copy_slots "hamt_copy_slots"(PyObject **to, PyObject **source, Py_ssize_t count) noexcept
    bint can_change "hamt_can_change"(Node *node, PyObject *slot) noexcept
    bint is_followed "hamt_is_followed"(PyObject *thing) noexcept
    bint is_tracked "PyObject_GC_IsTracked"(PyObject *thing) noexcept
    void track "PyObject_GC_Track"(PyObject *thing) noexcept
    void move_slots "hamt_move_slots"(
        Node *to, Node *source, Py_ssize_t at, Py_ssize_t drop, Py_ssize_t gain
    ) noexcept
    bint shrinks "hamt_shrinks"(Py_ssize_t size) noexcept
    void shrink "hamt_shrink"(Node *node, uint32_t bit, Py_ssize_t at) noexcept
    PyObject *made_of "hamt_finished"(Node *node, Node *source, Py_ssize_t at, Py_ssize_t gain) noexcept
    # Declared with pointers, so that passing them counts no references.
    void free_node "hamt_free_node"(Node *node) noexcept
    PyObject *own "hamt_new_reference"(PyObject *thing) noexcept
    void xdecref "Py_XDECREF"(PyObject *thing) noexcept
    int compare_objects "PyObject_RichCompareBool"(PyObject *value, PyObject *other, int operator) except -1
    bint next_item "PyDict_Next"(dict items, Py_ssize_t *position, PyObject **key, PyObject **value) noexcept


cdef inline uint32_t rest_of(uint32_t folded, int shift) noexcept:
    # In C a shift by the width of a number is undefined.
    return folded >> shift if shift <= LAST_SHIFT else 0


cdef inline uint32_t position_bit(uint32_t folded, int shift) noexcept:
    return <uint32_t>1 << (folded >> shift & POSITIONS)


cdef inline bint same_keys(PyObject *key, PyObject *other) except -1:
    return key is other or equal_keys(key, other, hash_of(other))


cdef inline int locate(
    Change *change, Node *root, uint32_t folded, PyObject *key, Py_hash_t key_hash, bint in_place, int shift
) except -1:
    cdef int depth = descend(root, rest_of(folded, shift), change.nodes, change.indexes)
    cdef Node *node = change.nodes[depth]
    cdef Py_ssize_t index
    change.depth = change.level = depth
    change.made, change.drop, change.gain = NULL, 0, 0
    change.shift = shift = shift + BITS * depth
    if shift > LAST_SHIFT:
        change.bit = 0
        index = index_in_collision(node, key, key_hash)
        change.found = FREE if index < 0 else THERE
        change.indexes[depth] = size_of(node) if index < 0 else index
    else:
        change.bit = position_bit(folded, shift)
        change.indexes[depth] = index = 2 * popcount(node.entries & (change.bit - 1))
        if not node.entries & change.bit:
            change.found = FREE
        else:
            change.found = THERE if same_key(node.slots[index], key, key_hash) else TAKEN
    change.sole = sole_nodes(change) if in_place else 0
    return 0


cdef inline int sole_nodes(Change *change) noexcept:
    cdef int sole = 0
    while sole <= change.depth and has_references(change.nodes[sole], 1):
        sole += 1
    return sole


cdef int prepare_assoc(
    Change *change, Node *root, uint32_t folded, PyObject *key, PyObject *value, Py_hash_t key_hash, bint in_place,
    int shift=0
) except -1:
    locate(change, root, folded, key, key_hash, in_place, shift)
    cdef Node *node = change.nodes[change.depth]
    cdef Py_ssize_t index = change.indexes[change.depth]
    if change.found == TAKEN:
        changed = join(
            change.shift + BITS, fold(hash_of(node.slots[index])), node.slots[index], node.slots[index + 1],
            folded, key, value,
        )
        changed = with_child_for_entry(node, change.bit, <PyObject *>changed)
    elif change.sole > change.depth:
        if change.found == FREE:
            change.made = new_node(node.entries | change.bit, node.children, size_of(node) + 2)
            change.gain = 2
        return 0
    elif change.found == FREE:
        changed = with_entry(node, node.entries | change.bit, index, key, value)
    elif node.slots[index + 1] is value:
        return 0
    else:
        changed = with_slot(node, index + 1, value)
    return rebuild(change, changed)


cdef int prepare_dissoc(
    Change *change, Node *root, uint32_t folded, PyObject *key, Py_hash_t key_hash, bint in_place
) except -1:
    locate(change, root, folded, key, key_hash, in_place, 0)
    if change.found != THERE:
        return 0
    cdef int depth = change.depth
    cdef Node *node = change.nodes[depth]
    cdef Node *made
    cdef Py_ssize_t index = change.indexes[depth]
    if depth == 0 or node.children or size_of(node) > 4:
        if change.sole > depth:
            if not shrinks(size_of(node)):
                change.made = new_node(node.entries ^ change.bit, node.children, size_of(node) - 2)
            change.drop = 2
            return 0
        made = spliced(node, node.entries ^ change.bit, node.children, index, 2, 0)
        return rebuild(change, owned(made_of(made, node, 0, 0)))
    # A lone entry is left: it moves up to the first ancestor that has more than this one child.
    depth -= 1
    while depth and size_of(change.nodes[depth]) == 1:
        depth -= 1
    change.level = depth
    changed = with_entry_for_child(
        change.nodes[depth], position_bit(folded, BITS * depth), node.slots[2 - index], node.slots[3 - index]
    )
    return rebuild(change, changed)


cdef int rebuild(Change *change, object changed) except -1:
    while change.level > change.sole:
        change.level -= 1
        changed = with_slot(change.nodes[change.level], change.indexes[change.level], <PyObject *>changed)
    change.made = <Node *>own(<PyObject *>changed)
    return 0


cdef bint make_change(Change *change, PyObject **root, PyObject *key, PyObject *value) noexcept:
    cdef int level = change.level
    cdef Node *node = change.nodes[level]
    cdef Node *made = change.made
    cdef Py_ssize_t index = change.indexes[level]
    cdef PyObject **holder = &change.nodes[level - 1].slots[change.indexes[level - 1]] if level else root
    cdef PyObject *old
    if sole_nodes(change) != change.sole:
        drop_change(change)
        return False
    if made is NULL and not change.drop:
        old, node.slots[index + 1] = node.slots[index + 1], own(value)
        if is_followed(value):
            track_upwards(change, level)
        decref(old)
        return True
    if made is NULL:
        key, value = node.slots[index], node.slots[index + 1]
        shrink(node, change.bit, index)
        decref(key)
        decref(value)
        return True
    # Filled before it stands in the tree.
    if change.gain or change.drop:
        move_slots(made, node, index, change.drop, change.gain)
        if change.gain:
            made.slots[index], made.slots[index + 1] = own(key), own(value)
        made_of(made, node, index, change.gain)
    holder[0] = <PyObject *>made
    if is_tracked(<PyObject *>made):
        track_upwards(change, level - 1)
    if change.gain:
        free_shell(node)
    elif change.drop:
        key, value = node.slots[index], node.slots[index + 1]
        free_shell(node)
        decref(key)
        decref(value)
    else:
        decref(<PyObject *>node)
    return True


cdef int track_upwards(Change *change, int level) noexcept:
    # A node that is tracked tells that those above it are.
    while level >= 0 and not is_tracked(<PyObject *>change.nodes[level]):
        track(<PyObject *>change.nodes[level])
        level -= 1
    return 0


cdef int drop_change(Change *change) noexcept:
    if change.made is NULL:
        return 0
    if change.gain or change.drop:
        free_shell(change.made)
    else:
        decref(<PyObject *>change.made)
    return 0


cdef object assoc(
    Node *root, uint32_t folded, PyObject *key, PyObject *value, Py_hash_t key_hash, Py_ssize_t *added, int shift=0
):
    cdef Change change
    prepare_assoc(&change, root, folded, key, value, key_hash, False, shift)
    added[0] += change.found != THERE
    return <object>root if change.made is NULL else owned(<PyObject *>change.made)


cdef PyObject **sole_slot(Node *node, uint32_t folded, PyObject *key, PyObject *value) noexcept:
    cdef uint32_t bit
    cdef Py_ssize_t index
    while can_change(node, value):
        bit = <uint32_t>1 << (folded & POSITIONS)
        index = 2 * popcount(node.entries & (bit - 1))
        if node.entries & bit and node.slots[index] is key:
            return &node.slots[index + 1]
        if not node.children & bit:
            return NULL
        node = <Node *>node.slots[size_of(node) - 1 - popcount(node.children & (bit - 1))]
        folded >>= BITS
    return NULL


cdef Node *sole_with_entry(Node *root, uint32_t folded, PyObject *key, PyObject *value) noexcept:
    cdef uint32_t bit = position_bit(folded, 0)
    cdef Py_ssize_t index = 2 * popcount(root.entries & (bit - 1))
    cdef Node *made
    if (root.entries | root.children) & bit:
        return NULL
    made = moved(root, root.entries | bit, index, 0, 2)
    if made is not NULL:
        made.slots[index], made.slots[index + 1] = own(key), own(value)
        made_of(made, root, index, 2)
        free_shell(root)
    return made


cdef Node *sole_without_entry(Node *root, uint32_t folded, PyObject *key, PyObject **value) noexcept:
    cdef uint32_t bit = position_bit(folded, 0)
    cdef Py_ssize_t index = 2 * popcount(root.entries & (bit - 1))
    cdef Node *made
    if not root.entries & bit or root.slots[index] is not key:
        return NULL
    made = moved(root, root.entries ^ bit, index, 2, 0)
    if made is not NULL:
        value[0] = root.slots[index + 1]
        made_of(made, root, 0, 0)
        free_shell(root)
        decref(key)
    return made


cdef object dissoc(Node *root, uint32_t folded, PyObject *key, Py_hash_t key_hash):
    cdef Change change
    prepare_dissoc(&change, root, folded, key, key_hash, False)
    return None if change.made is NULL else owned(<PyObject *>change.made)


cdef struct Item:
    PyObject *key
    PyObject *value
    Py_hash_t key_hash
    uint32_t folded


cdef object update(Node *root, dict changes, Py_ssize_t *added):
    # An item owns its key and value before any user code runs; functions that take items move these references into the
    # tree, or drop them.
    cdef Py_ssize_t room = len(changes), count = 0, index, position = 0
    cdef PyObject *key
    cdef PyObject *value
    cdef Node *made
    if room == 0:
        return <object>root
    cdef Item few[16]
    cdef Item *items = few
    if 2 * room > 16:
        items = <Item *>PyMem_Malloc(2 * room * sizeof(Item))
        if items is NULL:
            raise MemoryError
    try:
        # The dict may be the caller's, and another thread may change it.
        with cython.critical_section(changes):
            while count < room and next_item(changes, &position, &key, &value):
                items[count].key, items[count].value = own(key), own(value)
                count += 1
        for index in range(count):
            items[index].key_hash = hash_of(items[index].key)
            items[index].folded = fold(items[index].key_hash)
        room, count = count, 0
        if size_of(root) or not room:
            return subtree_with(root, items, items + room, room, 0, added) if room else <object>root
        made = subtree_of(items, items + room, room, 0)
        if made is NULL:
            raise MemoryError
        added[0] += room
        return owned(<PyObject *>made)
    finally:
        let_go(items, count)
        if items is not few:
            PyMem_Free(items)


cdef bint equal(Node *node, Node *other) except -1:
    cdef Py_ssize_t size = size_of(node), edge, index
    if node is other:
        return True
    if node.entries != other.entries or node.children != other.children or size != size_of(other):
        return False
    if is_collision(node):
        return equal_collisions(node, other)
    edge = 2 * popcount(node.entries)
    for index in range(0, edge, 2):
        if not same_keys(node.slots[index], other.slots[index]):
            return False
        if not same_value(node.slots[index + 1], other.slots[index + 1]):
            return False
    for index in range(edge, size):
        if not equal(<Node *>node.slots[index], <Node *>other.slots[index]):
            return False
    return True


# Goes through a node's parts in the order of their positions.
cdef struct Cursor:
    Node *node
    Py_ssize_t entry
    Py_ssize_t child


cdef inline Cursor cursor_of(Node *node) noexcept:
    cdef Cursor cursor
    cursor.node, cursor.entry, cursor.child = node, 0, size_of(node)
    return cursor


cdef inline PyObject *next_part(Cursor *cursor, uint32_t bit, PyObject **key) noexcept:
    # The child at the position, or the value of the entry there and its key, or NULL.
    key[0] = NULL
    if cursor.node.entries & bit:
        key[0] = cursor.node.slots[cursor.entry]
        cursor.entry += 2
        return cursor.node.slots[cursor.entry - 1]
    if cursor.node.children & bit:
        cursor.child -= 1
        return cursor.node.slots[cursor.child]
    return NULL


cdef int compare(Node *node, Node *other, int shift, dict added, dict removed, dict changed) except -1:
    if node is other:
        return 0
    if shift > LAST_SHIFT:
        return compare_collisions(node, other, added, removed, changed)
    cdef uint32_t rest = node.entries | node.children | other.entries | other.children, bit
    cdef Cursor cursor = cursor_of(node), other_cursor = cursor_of(other)
    cdef PyObject *key
    cdef PyObject *part
    cdef PyObject *other_key
    cdef PyObject *other_part
    cdef object mine, theirs
    while rest:
        bit = rest & -rest
        rest ^= bit
        part, other_part = next_part(&cursor, bit, &key), next_part(&other_cursor, bit, &other_key)
        if part is other_part and key is other_key:
            continue
        if part is NULL:
            note_all(added, other_key, other_part)
        elif other_part is NULL:
            note_all(removed, key, part)
        elif key is not NULL and other_key is not NULL and same_keys(key, other_key):
            if not same_value(part, other_part):
                changed[<object>key] = <object>part, <object>other_part
        else:
            mine = as_subtree(key, part, shift + BITS)
            theirs = as_subtree(other_key, other_part, shift + BITS)
            compare(<Node *>mine, <Node *>theirs, shift + BITS, added, removed, changed)
    return 0


@cython.final
cdef class Tally:
    def __cinit__(self):
        self.shared_below, self.alone_below = [], []

    cdef Py_ssize_t total_shared(self, Py_ssize_t count) except -1:
        cdef Py_ssize_t counts[2]
        cdef list stack
        cdef Node *node
        cdef Py_ssize_t index, edge
        cdef int counted
        counts[0], counts[1] = self.shared, self.alone
        while True:
            for counted in range(2):
                stack = self.alone_below if counted else self.shared_below
                if not stack:
                    return count - counts[1] if counted else counts[0]
                part = stack.pop()
                node = <Node *>part
                edge = size_of(node) - popcount(node.children)
                counts[counted] += edge // 2
                for index in range(edge, size_of(node)):
                    stack.append(<object>node.slots[index])


# What is left of a place in a tree: an entry, a child (without a key) or nothing. It owns its references.
cdef struct Part:
    PyObject *key
    PyObject *part


cdef object combined(Node *root, Node *other, int kept, Tally tally):
    cdef Part result
    combine(root, other, 0, kept, tally, &result)
    return None if result.part is NULL else owned(result.part)


cdef int combine(Node *node, Node *other, int shift, int kept, Tally tally, Part *result) except -1:
    cdef Replacement new
    cdef Part kept_part
    cdef uint32_t rest = node.entries | node.children | other.entries | other.children, bit
    cdef Cursor cursor = cursor_of(node), other_cursor = cursor_of(other)
    cdef PyObject *key
    cdef PyObject *part
    cdef PyObject *other_key
    cdef PyObject *other_part
    cdef bint is_same = True
    cdef object mine, theirs
    result.key = result.part = NULL
    if node is other:
        tally.shared_below.append(<object>node)
        if kept & BOTH:
            result.part = own(<PyObject *>node)
        return 0
    if shift > LAST_SHIFT:
        return combine_collisions(node, other, kept, tally, result)
    new.entries, new.children, new.changed, new.count = 0, 0, 0, 0
    try:
        while rest:
            bit = rest & -rest
            rest ^= bit
            part, other_part = next_part(&cursor, bit, &key), next_part(&other_cursor, bit, &other_key)
            if part is NULL:
                keep_part(&kept_part, kept & THEIRS, other_key, other_part)
            elif other_part is NULL:
                keep_part(&kept_part, kept & MINE, key, part)
                if key is NULL:
                    tally.alone_below.append(<object>part)
                else:
                    tally.alone += 1
            elif key is not NULL and other_key is not NULL and same_keys(key, other_key):
                tally.shared += 1
                keep_part(&kept_part, kept & BOTH, key, other_part)
            else:
                mine = as_subtree(key, part, shift + BITS)
                theirs = as_subtree(other_key, other_part, shift + BITS)
                combine(<Node *>mine, <Node *>theirs, shift + BITS, kept, tally, &kept_part)
                if key is not NULL and kept_part.part is <PyObject *>mine:
                    decref(kept_part.part)
                    keep_part(&kept_part, True, key, part)
            is_same = is_same and kept_part.key is key and kept_part.part is part
            if kept_part.part is NULL:
                continue
            if kept_part.key is NULL:
                replace_by_child(&new, bit, kept_part.part)
            else:
                replace_by_entry(&new, bit, kept_part.key, kept_part.part)
        if is_same:
            result.part = own(<PyObject *>node)
        elif shift and new.count == 1 and new.entries:
            result.key, result.part = new.keys[0], new.parts[0]
            new.count = 0
        elif new.count:
            made = assembled(&new)
            result.part = own(<PyObject *>made)
    finally:
        release(&new)
    return 0


cdef int keep_part(Part *kept, bint is_kept, PyObject *key, PyObject *part) noexcept:
    kept.key = kept.part = NULL
    if is_kept:
        xincref(key)
        xincref(part)
        kept.key, kept.part = key, part
    return 0


cdef object assembled(Replacement *new):
    cdef Py_ssize_t size = 2 * popcount(new.entries) + popcount(new.children)
    cdef Py_ssize_t to = 0, child = size
    cdef Node *made = new_node(new.entries, new.children, size)
    cdef int index
    for index in range(new.count):
        if new.keys[index] is NULL:
            child -= 1
            made.slots[child] = new.parts[index]
        else:
            made.slots[to], made.slots[to + 1] = new.keys[index], new.parts[index]
            to += 2
    new.count = 0
    return owned(made_of(made, NULL, 0, size))


cdef int combine_collisions(Node *node, Node *other, int kept, Tally tally, Part *result) except -1:
    cdef list slots = []
    cdef Py_ssize_t index, found
    cdef bint is_same
    cdef Node *made
    for index in range(0, size_of(node), 2):
        found = index_in_collision(other, node.slots[index], hash_of(node.slots[index]))
        if found < 0:
            tally.alone += 1
            if kept & MINE:
                slots += (<object>node.slots[index], <object>node.slots[index + 1])
        else:
            tally.shared += 1
            if kept & BOTH:
                slots += (<object>node.slots[index], <object>other.slots[found + 1])
    if kept & THEIRS:
        for index in range(0, size_of(other), 2):
            if is_missing(node, other.slots[index]):
                slots += (<object>other.slots[index], <object>other.slots[index + 1])
    is_same = len(slots) == size_of(node)
    for index in range(len(slots)):
        is_same = is_same and <PyObject *>slots[index] is node.slots[index]
    if is_same:
        result.part = own(<PyObject *>node)
    elif len(slots) == 2:
        result.key, result.part = own(<PyObject *>slots[0]), own(<PyObject *>slots[1])
    elif slots:
        made = new_node(0, 0, len(slots))
        for index in range(len(slots)):
            made.slots[index] = own(<PyObject *>slots[index])
        result.part = made_of(made, NULL, 0, len(slots))
    return 0


cdef bint is_within(Node *node, Node *other, int shift) except -1:
    cdef uint32_t rest = node.entries | node.children, bit
    cdef Py_ssize_t index
    cdef PyObject *key
    cdef PyObject *part
    cdef PyObject *other_key
    cdef PyObject *other_part
    cdef object mine
    if node is other:
        return True
    if shift > LAST_SHIFT:
        for index in range(0, size_of(node), 2):
            if is_missing(other, node.slots[index]):
                return False
        return True
    if rest & ~(other.entries | other.children) or node.children & other.entries:
        return False
    while rest:
        bit = rest & -rest
        rest ^= bit
        part = part_at(node, bit, &key)
        other_part = part_at(other, bit, &other_key)
        if other_key is not NULL:
            if not same_keys(key, other_key):
                return False
            continue
        mine = as_subtree(key, part, shift + BITS)
        if not is_within(<Node *>mine, <Node *>other_part, shift + BITS):
            return False
    return True


cdef inline PyObject *part_at(Node *node, uint32_t bit, PyObject **key) noexcept:
    # The child at the position, or the value of the entry there and its key.
    cdef Py_ssize_t index = 2 * popcount(node.entries & (bit - 1))
    key[0] = node.slots[index] if node.entries & bit else NULL
    return node.slots[index + 1 if node.entries & bit else size_of(node) - 1 - popcount(node.children & (bit - 1))]


cdef bint is_apart(Node *node, Node *other, int shift) except -1:
    cdef uint32_t rest = (node.entries | node.children) & (other.entries | other.children), bit
    cdef Py_ssize_t index
    cdef PyObject *key
    cdef PyObject *part
    cdef PyObject *other_key
    cdef PyObject *other_part
    cdef object mine, theirs
    if node is other:
        return size_of(node) == 0
    if shift > LAST_SHIFT:
        for index in range(0, size_of(node), 2):
            if not is_missing(other, node.slots[index]):
                return False
        return True
    while rest:
        bit = rest & -rest
        rest ^= bit
        part = part_at(node, bit, &key)
        other_part = part_at(other, bit, &other_key)
        if key is not NULL and other_key is not NULL:
            if same_keys(key, other_key):
                return False
            continue
        mine = as_subtree(key, part, shift + BITS)
        theirs = as_subtree(other_key, other_part, shift + BITS)
        if not is_apart(<Node *>mine, <Node *>theirs, shift + BITS):
            return False
    return True


cdef int descend(Node *node, uint32_t folded, Node **nodes, Py_ssize_t *indexes) noexcept:
    # Returns the depth of the node that has or would get the key.
    cdef int depth = 0
    cdef uint32_t bit = <uint32_t>1 << (folded & POSITIONS)
    while node.children & bit:
        nodes[depth] = node
        indexes[depth] = size_of(node) - 1 - popcount(node.children & (bit - 1))
        node = <Node *>node.slots[indexes[depth]]
        depth += 1
        folded >>= BITS
        bit = <uint32_t>1 << (folded & POSITIONS)
    nodes[depth] = node
    return depth


cdef object with_slot(Node *node, Py_ssize_t index, PyObject *slot):
    cdef Node *made = spliced(node, node.entries, node.children, index, 1, 1)
    made.slots[index] = own(slot)
    return owned(made_of(made, node, index, 1))


cdef object with_entry(Node *node, uint32_t entries, Py_ssize_t index, PyObject *key, PyObject *value):
    cdef Node *made = spliced(node, entries, node.children, index, 0, 2)
    made.slots[index], made.slots[index + 1] = own(key), own(value)
    return owned(made_of(made, node, index, 2))


cdef Py_ssize_t index_in_collision(Node *node, PyObject *key, Py_hash_t key_hash) except -2:
    cdef Py_ssize_t index
    for index in range(0, size_of(node), 2):
        if same_key(node.slots[index], key, key_hash):
            return index
    return -1


cdef inline bint is_missing(Node *node, PyObject *key) except -1:
    return index_in_collision(node, key, hash_of(key)) < 0


cdef object join(
    int shift, uint32_t old_folded, PyObject *old_key, PyObject *old_value,
    uint32_t folded, PyObject *key, PyObject *value,
):
    cdef uint32_t old_bit = 0, bit = 0
    cdef Node *made
    if shift <= LAST_SHIFT:
        old_bit, bit = position_bit(old_folded, shift), position_bit(folded, shift)
        if old_bit == bit:
            subtree = join(shift + BITS, old_folded, old_key, old_value, folded, key, value)
            made = new_node(0, bit, 1)
            made.slots[0] = own(<PyObject *>subtree)
            return owned(made_of(made, NULL, 0, 1))
    if old_bit > bit:
        old_key, old_value, key, value = key, value, old_key, old_value
    made = new_node(old_bit | bit, 0, 4)
    made.slots[0], made.slots[1] = own(old_key), own(old_value)
    made.slots[2], made.slots[3] = own(key), own(value)
    return owned(made_of(made, NULL, 0, 4))


cdef object with_child_for_entry(Node *node, uint32_t bit, PyObject *child):
    cdef Py_ssize_t size = size_of(node)
    cdef Py_ssize_t start = 2 * popcount(node.entries & (bit - 1))
    cdef Py_ssize_t end = size - popcount(node.children & (bit - 1))
    cdef Node *made = new_node(node.entries ^ bit, node.children | bit, size - 1)
    copy_slots(made.slots, node.slots, start)
    copy_slots(made.slots + start, node.slots + start + 2, end - start - 2)
    made.slots[end - 2] = own(child)
    copy_slots(made.slots + end - 1, node.slots + end, size - end)
    return owned(made_of(made, node, end - 2, 1))


cdef object with_entry_for_child(Node *node, uint32_t bit, PyObject *key, PyObject *value):
    cdef Py_ssize_t size = size_of(node)
    cdef Py_ssize_t start = 2 * popcount(node.entries & (bit - 1))
    cdef Py_ssize_t end = size - 1 - popcount(node.children & (bit - 1))
    cdef Node *made = new_node(node.entries | bit, node.children ^ bit, size + 1)
    copy_slots(made.slots, node.slots, start)
    made.slots[start], made.slots[start + 1] = own(key), own(value)
    copy_slots(made.slots + start + 2, node.slots + start, end - start)
    copy_slots(made.slots + end + 2, node.slots + end + 1, size - end - 1)
    return owned(made_of(made, node, 0, 0))


cdef int let_go(Item *items, Py_ssize_t count) noexcept:
    cdef Py_ssize_t index
    for index in range(count):
        decref(items[index].key)
        decref(items[index].value)
    return 0


cdef int sort(Item *items, Item *sorted, Py_ssize_t count, int shift, uint32_t positions, Py_ssize_t *ends) noexcept:
    # The items at one of the positions, sorted by position; `ends` has the end of each position's run.
    cdef Py_ssize_t index, start = 0
    cdef uint32_t bit
    cdef int rank, ranks = popcount(positions)
    for rank in range(ranks):
        ends[rank] = 0
    for index in range(count):
        bit = position_bit(items[index].folded, shift)
        if positions & bit:
            ends[popcount(positions & (bit - 1))] += 1
    for rank in range(ranks):
        start += ends[rank]
        ends[rank] = start - ends[rank]
    for index in range(count):
        bit = position_bit(items[index].folded, shift)
        if positions & bit:
            rank = popcount(positions & (bit - 1))
            sorted[ends[rank]] = items[index]
            ends[rank] += 1
    return 0


cdef Node *subtree_of(Item *items, Item *spare, Py_ssize_t count, int shift) noexcept:
    # NULL if memory runs out.
    cdef uint32_t once = 0, twice = 0, bit
    cdef Py_ssize_t index, position, start = 0, size
    cdef Py_ssize_t ends[32]
    cdef int rank, ranks
    cdef Node *node
    cdef Node *child
    if shift > LAST_SHIFT:
        node = new_node_or_null(0, 0, 2 * count)
        if node is NULL:
            let_go(items, count)
            return NULL
        for index in range(count):
            node.slots[2 * index], node.slots[2 * index + 1] = items[index].key, items[index].value
        return <Node *>made_of(node, NULL, 0, 2 * count)
    for index in range(count):
        bit = position_bit(items[index].folded, shift)
        twice |= once & bit
        once |= bit
    once ^= twice
    ranks = popcount(twice)
    size = 2 * popcount(once) + ranks
    node = new_node_or_null(once, twice, size)
    if node is NULL:
        let_go(items, count)
        return NULL
    for index in range(count):
        bit = position_bit(items[index].folded, shift)
        if once & bit:
            position = 2 * popcount(once & (bit - 1))
            node.slots[position], node.slots[position + 1] = items[index].key, items[index].value
    if not ranks:
        return <Node *>made_of(node, NULL, 0, size)
    sort(items, spare, count, shift, twice, ends)
    for rank in range(ranks):
        child = subtree_of(spare + start, items + start, ends[rank] - start, shift + BITS)
        if child is NULL:
            let_go(spare + ends[rank], ends[ranks - 1] - ends[rank])
            for position in range(2 * popcount(once)):
                decref(node.slots[position])
            for position in range(size - rank, size):
                decref(node.slots[position])
            free_node(node)
            return NULL
        node.slots[size - 1 - rank] = <PyObject *>child
        start = ends[rank]
    return <Node *>made_of(node, NULL, 0, size)


cdef object subtree_with(Node *node, Item *items, Item *spare, Py_ssize_t count, int shift, Py_ssize_t *added):
    cdef Replacement new
    cdef uint32_t positions = 0, bit
    cdef Py_ssize_t index, more = 0, run
    cdef Py_ssize_t ends[32]
    cdef int rank = 0
    cdef Item *item = items
    cdef Item *end = items + count
    cdef PyObject *old_key
    cdef Node *child
    cdef object subtree = <object>node, old
    new.entries, new.children, new.changed, new.count = node.entries, node.children, 0, 0
    try:
        if count == 1:
            return assoc(node, item.folded, item.key, item.value, item.key_hash, added, shift)
        if shift > LAST_SHIFT:
            for index in range(count):
                subtree = assoc(
                    <Node *>subtree, 0, items[index].key, items[index].value, items[index].key_hash, &more, shift
                )
            added[0] += more
            return subtree
        for index in range(count):
            positions |= position_bit(items[index].folded, shift)
        sort(items, spare, count, shift, positions, ends)
        item, end = spare, spare + count
        while positions:
            bit = positions & -positions
            positions ^= bit
            run = ends[rank] - (item - spare)
            rank += 1
            old = None
            if node.children & bit:
                index = size_of(node) - 1 - popcount(node.children & (bit - 1))
                old = <object>node.slots[index]
            elif node.entries & bit:
                index = 2 * popcount(node.entries & (bit - 1))
                old_key = node.slots[index]
                if run == 1 and same_key(old_key, item.key, item.key_hash):
                    if node.slots[index + 1] is item.value:
                        decref(item.value)
                    else:
                        replace_by_entry(&new, bit, own(old_key), item.value)
                    item += 1
                    decref((item - 1).key)
                    continue
                old = as_subtree(old_key, node.slots[index + 1], shift + BITS)
            item += run
            if old is not None:
                subtree = subtree_with(<Node *>old, item - run, items + (item - run - spare), run, shift + BITS, &more)
                if subtree is not old or node.entries & bit:
                    replace_by_child(&new, bit, own(<PyObject *>subtree))
            elif run == 1:
                replace_by_entry(&new, bit, (item - 1).key, (item - 1).value)
                more += 1
            else:
                child = subtree_of(item - run, items + (item - run - spare), run, shift + BITS)
                if child is NULL:
                    raise MemoryError
                replace_by_child(&new, bit, <PyObject *>child)
                more += run
        added[0] += more
        return replaced(node, &new)
    finally:
        let_go(item, end - item)
        release(&new)


# What replaces a node's positions: in the order of the bits, an entry or a child (without a key).
cdef struct Replacement:
    uint32_t entries
    uint32_t children
    uint32_t changed
    int count
    PyObject *keys[32]
    PyObject *parts[32]


cdef inline int replace_by_entry(Replacement *new, uint32_t bit, PyObject *key, PyObject *value) noexcept:
    new.keys[new.count], new.parts[new.count] = key, value
    new.count += 1
    new.changed |= bit
    new.entries |= bit
    new.children &= ~bit
    return 0


cdef inline int replace_by_child(Replacement *new, uint32_t bit, PyObject *child) noexcept:
    new.keys[new.count], new.parts[new.count] = NULL, child
    new.count += 1
    new.changed |= bit
    new.entries &= ~bit
    new.children |= bit
    return 0


cdef int release(Replacement *new) noexcept:
    cdef int index
    for index in range(new.count):
        xdecref(new.keys[index])
        xdecref(new.parts[index])
    return 0


cdef object replaced(Node *node, Replacement *new):
    # Two passes over the changed positions: for the entries from the left, for the children from the right.
    if not new.changed:
        return <object>node
    cdef Py_ssize_t size = size_of(node), made_size = 2 * popcount(new.entries) + popcount(new.children)
    cdef Py_ssize_t to = 0, source = 0, until
    cdef uint32_t rest = new.changed, bit
    cdef int index = 0
    cdef Node *made = new_node(new.entries, new.children, made_size)
    while rest:
        bit = rest & -rest
        rest ^= bit
        until = 2 * popcount(node.entries & (bit - 1))
        copy_slots(made.slots + to, node.slots + source, until - source)
        to += until - source
        source = until + 2 if node.entries & bit else until
        if new.entries & bit:
            made.slots[to], made.slots[to + 1] = new.keys[index], new.parts[index]
            to += 2
        index += 1
    until = 2 * popcount(node.entries)
    copy_slots(made.slots + to, node.slots + source, until - source)
    # Here `to` and `source` count from the right.
    to = source = 0
    rest = new.changed
    index = 0
    while rest:
        bit = rest & -rest
        rest ^= bit
        until = popcount(node.children & (bit - 1))
        copy_slots(made.slots + made_size - to - (until - source), node.slots + size - until, until - source)
        to += until - source
        source = until + 1 if node.children & bit else until
        if new.children & bit:
            to += 1
            made.slots[made_size - to] = new.parts[index]
        index += 1
    until = popcount(node.children)
    copy_slots(made.slots + made_size - to - (until - source), node.slots + size - until, until - source)
    new.count = 0
    return owned(made_of(made, node, 0, made_size))


cdef inline bint same_value(PyObject *value, PyObject *other) except -1:
    return compare_objects(value, other, 2)


cdef object as_subtree(PyObject *key, PyObject *part, int shift):
    cdef Node *made
    if key is NULL:
        return <object>part
    cdef uint32_t folded = fold(hash_of(key))
    made = new_node(position_bit(folded, shift) if shift <= LAST_SHIFT else 0, 0, 2)
    made.slots[0], made.slots[1] = own(key), own(part)
    return owned(made_of(made, NULL, 0, 2))


cdef bint equal_collisions(Node *node, Node *other) except -1:
    cdef Py_ssize_t index, found
    for index in range(0, size_of(node), 2):
        found = index_in_collision(other, node.slots[index], hash_of(node.slots[index]))
        if found < 0 or not same_value(node.slots[index + 1], other.slots[found + 1]):
            return False
    return True


cdef int compare_collisions(Node *node, Node *other, dict added, dict removed, dict changed) except -1:
    cdef Py_ssize_t index, found
    for index in range(0, size_of(node), 2):
        found = index_in_collision(other, node.slots[index], hash_of(node.slots[index]))
        if found < 0:
            removed[<object>node.slots[index]] = <object>node.slots[index + 1]
        elif not same_value(node.slots[index + 1], other.slots[found + 1]):
            changed[<object>node.slots[index]] = <object>node.slots[index + 1], <object>other.slots[found + 1]
    for index in range(0, size_of(other), 2):
        if is_missing(node, other.slots[index]):
            added[<object>other.slots[index]] = <object>other.slots[index + 1]
    return 0


cdef int note_all(dict noted, PyObject *key, PyObject *part) except -1:
    cdef Node *node
    cdef Py_ssize_t index, edge
    if key is not NULL:
        noted[<object>key] = <object>part
        return 0
    node = <Node *>part
    edge = size_of(node) - popcount(node.children)
    for index in range(0, edge, 2):
        noted[<object>node.slots[index]] = <object>node.slots[index + 1]
    for index in range(size_of(node) - 1, edge - 1, -1):
        note_all(noted, NULL, node.slots[index])
    return 0


cdef size_t mixed_items(Node *node) except? 0:
    cdef size_t mixed = 0, key_hash
    cdef Py_ssize_t index, edge = size_of(node) - popcount(node.children)
    for index in range(0, edge, 2):
        key_hash = <size_t>hash_of(node.slots[index])
        mixed ^= mixed_pair(key_hash, <size_t>hash_of(node.slots[index + 1]))
    for index in range(edge, size_of(node)):
        if index + 1 < size_of(node):
            prefetch_slots(<Node *>node.slots[index + 1])
        mixed ^= mixed_items(<Node *>node.slots[index])
    return mixed


cdef object plain(Node *node):
    # The node in the reference's form, to show and check trees.
    cdef Py_ssize_t index, edge = size_of(node) - popcount(node.children)
    # No comprehension of new objects: if memory for the list runs out, Cython 3.3 frees one twice.
    cdef list slots = []
    for index in range(edge):
        slots.append(<object>node.slots[index])
    for index in range(edge, size_of(node)):
        slots.append(plain(<Node *>node.slots[index]))
    return node.entries, node.children, slots


cdef object empty_node():
    node_type_ready()
    return owned(made_of(new_node(0, 0, 0), NULL, 0, 0))


cdef object EMPTY_NODE = empty_node()
