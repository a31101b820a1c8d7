#!/bin/sh
# Runs the tests of the compiled backend under AddressSanitizer and UndefinedBehaviorSanitizer, in a folder of its own:
# tools/sanitize.sh PYTHON FOLDER, with a Python that has the test tools. No free list hides a use after free: not ours,
# not Cython's, and the interpreter's objects come from malloc.
set -e
python=$(realpath -s "$1")
folder=$2
command -v gcc >/dev/null || { echo "gcc is not found (on Debian: apt install gcc)."; exit 1; }
for library in asan ubsan; do
	[ -e "$(gcc -print-file-name=lib$library.so)" ] ||
		{ echo "gcc has no lib$library (on Debian it comes with gcc)."; exit 1; }
done

rm -rf "$folder"
mkdir -p "$folder"
cp -r setup.py pyproject.toml README.md LICENSE contextvars_cy tests "$folder"
cd "$folder"
rm -f contextvars_cy/*.so contextvars_cy/*.c
flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"
CC=gcc CFLAGS="$flags -DHAMT_KEPT_NODES=0 -DCYTHON_USE_FREELISTS=0" LDFLAGS="$flags" CONTEXTVARS_CY_BACKEND=cython \
	"$python" setup.py -q build_ext --inplace

# Chains that are told from a recursion too deep by the stack's size, and a recursion as deep as Python allows: frames are
# larger here than the stack allows for. And a count of the interpreter's blocks: they are malloc's here.
names="not long_chain and not chain_too_long and not too_deep and not one_block"
echo "Left out, since frames are larger here than the stack allows for: *long_chain*, *chain_too_long*, *too_deep*"
echo "Left out, since the interpreter counts none of malloc's blocks: *one_block*"
export LD_PRELOAD="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)"
export PYTHONMALLOC=malloc PYTHONPATH=. ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export CONTEXTVARS_CY_BACKEND=cython
for host in native thread; do
	echo "== sanitized: cython backend, $host host"
	CONTEXTVARS_CY_HOST=$host "$python" -m pytest -q -p no:cacheprovider --hypothesis-profile=few -k "$names" \
		tests/hamt tests/engine "tests/$host" tests/twins
done
