#!/usr/bin/env bash
# tools/coverage.sh PYTHON: which lines of both twins the tests run, in a copy of the tree with the compiled twin traced
# line by line. Below 95 % of either twin it fails: debug mode and what adapts event loops run in processes of their own,
# which are not seen. For Python 3.9 to 3.11: later ones report no lines of an extension.
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "$0")/.."
"$python" -c 'import sys; sys.exit(sys.version_info >= (3, 12))' ||
    { echo "The lines of an extension can be traced on Python 3.9 to 3.11: make coverage PYTHON=python3.11"; exit 1; }

rm -rf build/coverage
mkdir -p build/coverage
cp -r contextvars_cy pytest_contextvars_cy.py docs examples tests setup.py pyproject.toml README.md LICENSE build/coverage
cd build/coverage
rm -f contextvars_cy/*/*.so contextvars_cy/*/*.c
cat > .coveragerc <<'END'
[run]
plugins = Cython.Coverage
include = contextvars_cy/*
omit = contextvars_cy/__*, contextvars_cy/_backend.py, contextvars_cy/_install/*
parallel = true
[report]
show_missing = true
exclude_also =
    if TYPE_CHECKING:
    @overload
    # What cannot be seen: decorators of methods, heads of functions, and a `finally` reached by an error or a return,
    # which Cython traces not.
    @cython.critical_section
    (_end|Py_ReprLeave|_leave|let_go)\(.*\)$
    cdef .*\).*:$
    # What is only run without memory, by tests that cannot be traced.
    raise MemoryError
END
"$python" -m cython -3 -X linetrace=True contextvars_cy/*/*.pyx
CFLAGS="-O1 -DCYTHON_TRACE=1 -DCYTHON_TRACE_NOGIL=1" "$python" setup.py -q build_ext --inplace

export PYTHONPATH=.
for backend in pure cython; do
    for host in native thread; do
        echo "== tests on the $backend backend and $host host"
        map=; [ $host = native ] && map=tests/hamt
        CONTEXTVARS_CY_BACKEND=$backend CONTEXTVARS_CY_HOST=$host \
            "$python" -m coverage run -m pytest -q -p no:cacheprovider --hypothesis-profile=few \
                tests/engine tests/features tests/$host $map | grep -E "^(FAILED|ERROR)|passed"
    done
done
"$python" -m coverage combine -q
"$python" -m coverage report
for twin in py cy; do
    "$python" -m coverage report --include="contextvars_cy/*/*_$twin.*" --fail-under=95 > /dev/null ||
        { echo "Less than 95 % of the lines of *_$twin are run"; exit 1; }
done
