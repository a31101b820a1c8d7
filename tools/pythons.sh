#!/usr/bin/env bash
# Prints "3.12 /path/to/python" for each CPython from 3.9 up that is `python3`, on PATH or under pyenv: one a series, the
# oldest first.
set -euo pipefail

series() {  # prints "3.12" for a CPython from 3.9 up, and nothing for anything else
    "$1" -c 'import sys
if sys.implementation.name == "cpython" and sys.version_info >= (3, 9):
    print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

candidates=(python3)
for python in ~/.pyenv/versions/*/bin/python "${PYENV_ROOT:-/nowhere}"/versions/*/bin/python; do
    [ -x "$python" ] && candidates+=("$python")
done
for minor in $(seq 9 30); do
    python=$(command -v "python3.$minor" || true)
    [ -n "$python" ] && candidates+=("$python")
done

found=" "
for python in "${candidates[@]}"; do
    version=$(series "$python")
    if [ -n "$version" ] && [[ $found != *" $version "* ]]; then
        found+="$version "
        echo "$version $(command -v "$python")"
    fi
done | sort -V
