#!/bin/sh
# Runs every operation of the compiled backend, as tools/refleak.py lists them, under valgrind, in a folder of its own:
# tools/valgrind.sh PYTHON FOLDER. Only errors that name a module of ours in one of their stacks count: CPython's own are
# CPython's. No free list hides a use after free: not ours, not Cython's, and the interpreter's objects come from malloc.
set -e
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
folder=$2
command -v valgrind >/dev/null || { echo "valgrind is not found (on Debian: apt install valgrind)."; exit 1; }

rm -rf "$folder"
mkdir -p "$folder"
cp -r setup.py pyproject.toml README.md LICENSE contextvars_cy tools "$folder"
cd "$folder"
rm -f contextvars_cy/*/*.so contextvars_cy/*/*.c
export CONTEXTVARS_CY_BACKEND=cython
CFLAGS="-g -O1 -DHAMT_KEPT_NODES=0 -DCYTHON_USE_FREELISTS=0" "$python" setup.py -q build_ext --inplace

export PYTHONMALLOC=malloc PYTHONPATH=.:tools
for host in native thread; do
	echo "== under valgrind: cython backend, $host host"
	CONTEXTVARS_CY_HOST=$host valgrind --num-callers=30 --leak-check=no --log-file="valgrind-$host.log" "$python" -c '
from refleak import SCENARIOS
for scenario in SCENARIOS.values():
    scenario()
    scenario()
print(len(SCENARIOS), "scenarios, each twice")'
	# An error is a paragraph.
	ours=$(sed 's/^==[0-9]*== *//' "valgrind-$host.log" | awk -v RS= -v ORS='\n\n' '/_(context|hamt|trie)_cy[.]/')
	if [ -n "$ours" ]; then
		echo "$ours"
		echo "valgrind has found errors in the compiled modules."
		exit 1
	fi
	grep -o "ERROR SUMMARY.*" "valgrind-$host.log"
done
