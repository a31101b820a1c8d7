#!/bin/sh
# Runs the tests of the compiled backend under AddressSanitizer and UndefinedBehaviorSanitizer, in a folder of its own:
# tools/sanitize.sh PYTHON FOLDER, with a Python that has the test tools. No free list hides a use after free: not ours,
# not Cython's, and the interpreter's objects come from malloc.
set -e
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
folder=$2
command -v gcc >/dev/null || { echo "gcc is not found (on Debian: apt install gcc)."; exit 1; }
for library in asan ubsan; do
	[ -e "$(gcc -print-file-name=lib$library.so)" ] ||
		{ echo "gcc has no lib$library (on Debian it comes with gcc)."; exit 1; }
done

rm -rf "$folder"
mkdir -p "$folder"
cp -r setup.py pyproject.toml README.md LICENSE contextvars_cy pytest_contextvars_cy.py docs examples tests "$folder"
cd "$folder"
rm -f contextvars_cy/*/*.so contextvars_cy/*/*.c
flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"
build() {
	CC=gcc CFLAGS="$flags $1" LDFLAGS="$flags" CONTEXTVARS_CY_BACKEND=cython "$python" setup.py -q build_ext --inplace --force
}

sanitized() {  # sanitized HOST ARGUMENTS...
	host=$1
	shift
	LD_PRELOAD="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)" \
		PYTHONMALLOC=malloc PYTHONPATH=.:tests/support ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		CONTEXTVARS_CY_BACKEND=cython CONTEXTVARS_CY_HOST=$host \
		"$python" "$@"
}
run_tests() {  # run_tests HOST FOLDER...
	host=$1
	shift
	sanitized "$host" -m pytest -q -p no:cacheprovider --hypothesis-profile=few "$@"
}
run_endings() {  # run_endings HOST: random finalisers as threads and processes end
	for seed in $(seq 40); do
		sanitized "$1" -c "import endings; endings.main($seed)"
	done
	echo "40 processes ended"
}

build "-DHAMT_KEPT_NODES=0 -DCYTHON_USE_FREELISTS=0"
for host in native thread; do
	echo "== sanitized: cython backend, $host host"
	run_tests $host tests/hamt tests/engine tests/features "tests/$host" tests/twins
	run_endings $host
done
# A variable is added in place in a node that was kept.
build
for host in native thread; do
	echo "== sanitized, with our free lists: cython backend, $host host"
	run_tests $host tests/engine tests/features "tests/$host"
	run_endings $host
done
