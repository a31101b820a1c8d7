#!/usr/bin/env bash
# tools/warnings.sh PYTHON: compiles the C of the compiled backend with gcc and clang as strict C11, with every warning
# on, for a Python that has Cython. It fails if there is a warning about our code: about a line of a header, or about the C
# that Cython made of a line of a .pyx, .pxd or .pxi. Cython's own parts are left out: they come after the last #line, and
# so lie in a .c file or, by their numbers, past the end of a .pyx; and its tables hold texts longer than C asks for.
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "$0")/.."
for compiler in gcc clang; do
    command -v $compiler > /dev/null || { echo "$compiler is not found (on Debian: apt install $compiler)."; exit 1; }
done

rm -rf build/warnings
mkdir -p build/warnings
cp -r contextvars_cy build/warnings
cd build/warnings
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
"$python" -m cython -3 --line-directives contextvars_cy/*/*.pyx
for compiler in gcc clang; do
    for source in contextvars_cy/*/*.c; do
        echo "== $compiler: ${source%.c}.pyx"
        $compiler -std=c11 -pedantic -Wall -Wextra -Wno-overlength-strings -O2 -fPIC -isystem "$headers" \
            -c -o /dev/null "$source" 2>> warnings.log || { cat warnings.log; exit 1; }
    done
done
ours() {  # of the lines "FILE:LINE:COLUMN: warning: ..." those about our code
    while IFS=: read -r file line rest; do
        case $file in
            *.h) ;;
            *.pyx | *.pxd | *.pxi) [ "$line" -le "$(wc -l < "$file")" ] || continue ;;
            *) continue ;;
        esac
        echo "$file:$line:$rest"
    done
}
found=$(grep -E '^[^ :]+:[0-9]+:[0-9]+: warning:' warnings.log | ours | sort -u || true)
if [ -n "$found" ]; then
    echo "$found"
    echo "The compilers warn of the above; build/warnings/warnings.log has all."
    exit 1
fi
echo "No warning about our code"
