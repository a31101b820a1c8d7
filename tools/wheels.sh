#!/usr/bin/env bash
# tools/wheels.sh TOOLS: what a release has for this machine, in dist/, checked and tested. TOOLS is the folder with the
# programs of the dependency group `wheels`. The wheels are built from the source distribution, one for every CPython that
# tools/pythons.sh finds, and the pure one. Each is tested in an environment that has no compiler.
set -euo pipefail
tools=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
root=$PWD
work=$root/build/wheels
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Without debug information a wheel has a fourth of the size. CONTEXTVARS_CY_BACKEND makes a build that cannot compile fail.
export CFLAGS="-g0 ${CFLAGS-}"
unset PYTHONPATH

fail() {  # fail WHAT LOG
    cat "$2"
    echo "$1 The output is above, and in $2."
    exit 1
}
run() {  # run NAME "WHAT FAILED" COMMAND...: quietly, unless it fails
    local log=$work/$1.log what=$2
    shift 2
    "$@" > "$log" 2>&1 < /dev/null || fail "$what" "$log"
}
new_environment() {  # new_environment FOLDER PYTHON
    run "$(basename "$1")-venv" "$2 makes no environment: its venv module is needed (on Debian: apt install python3-venv)." \
        "$2" -m venv --clear "$1"
}
without_a_compiler() {  # without_a_compiler FOLDER COMMAND...: in that environment, and with nothing else on PATH
    local folder=$1
    shift
    env PATH="$folder/bin" CC=false CXX=false "$@"
}
test_wheel() {  # test_wheel WHEEL ENVIRONMENT BACKEND
    local wheel=$1 folder=$2 backend=$3 name
    name=$(basename "$folder")
    run "$name-install" "$wheel cannot be installed." \
        without_a_compiler "$folder" "$folder/bin/python" -m pip install --no-index --no-deps --force-reinstall "$wheel"
    run "$name-tools" "pytest and hypothesis cannot be installed: the package index is needed." \
        without_a_compiler "$folder" "$folder/bin/python" -m pip install --only-binary :all: pytest hypothesis
    # Elsewhere than in the sources, which are not what is tested.
    cd "$work"
    run "$name-info" "$wheel has no $backend backend that works." \
        without_a_compiler "$folder" CONTEXTVARS_CY_BACKEND="$backend" "$folder/bin/python" -m contextvars_cy info
    for host in native thread; do
        run "$name-$host" "$wheel fails its tests on the $host host." \
            without_a_compiler "$folder" CONTEXTVARS_CY_BACKEND="$backend" CONTEXTVARS_CY_HOST=$host \
            "$folder/bin/pytest" -q -p no:cacheprovider "$root/tests/hamt/test_mutation.py" "$root/tests/engine/test_context.py"
        echo "   $host host: $(tail -n 1 "$work/$name-$host.log")"
    done
    grep -q "^package *$folder/" "$work/$name-info.log" || fail "Not the wheel was tested, but another package." "$work/$name-info.log"
    cd "$root"
}

# Without `mapfile`, which the bash of macOS does not have.
pythons=()
while IFS= read -r found; do pythons+=("$found"); done < <(tools/pythons.sh)
[ ${#pythons[@]} -gt 0 ] || { echo "No CPython from 3.9 up is found, neither as python3 nor on PATH nor under pyenv."; exit 1; }
rm -rf dist "$work"
mkdir -p dist "$work"

echo "== the source distribution"
run sdist "The source distribution cannot be built." "$tools/python" -m build --sdist --outdir dist
sdist=$(echo "$root"/dist/*.tar.gz)

for found in "${pythons[@]}"; do
    read -r version python <<< "$found"
    echo "== CPython $version ($python)"
    new_environment "$work/$version" "$python"
    run "$version-build" "No wheel can be built for CPython $version: a C compiler and the package index are needed." \
        env CONTEXTVARS_CY_BACKEND=cython "$work/$version/bin/python" -m pip wheel --no-cache-dir --no-deps -w "$work/built-$version" "$sdist"
    if [ "$(uname)" = Linux ]; then
        run "$version-repair" "auditwheel cannot make the wheel one for other systems." \
            env PATH="$tools:$PATH" "$tools/auditwheel" repair --strip --wheel-dir "$work/repaired-$version" "$work/built-$version"/*.whl
        cp "$work/repaired-$version"/*.whl dist
    else
        cp "$work/built-$version"/*.whl dist
    fi
    test_wheel "$(echo "$root"/dist/*-cp"${version/./}"-*.whl)" "$work/$version" cython
done

echo "== the pure wheel"
read -r _ python <<< "${pythons[-1]}"
new_environment "$work/pure" "$python"
run pure-build "The pure wheel cannot be built: the package index is needed." \
    env CONTEXTVARS_CY_BACKEND=pure "$work/pure/bin/python" -m pip wheel --no-cache-dir --no-deps -w dist "$sdist"
test_wheel "$(echo "$root"/dist/*-none-any.whl)" "$work/pure" pure

echo "== what they hold"
run twine "twine finds faults in the metadata: mend pyproject.toml or README.md." "$tools/twine" check --strict dist/*
run contents "check-wheel-contents finds faults: mend the lists of packages and files in pyproject.toml." \
    "$tools/check-wheel-contents" dist/*.whl
(cd dist && wc -c -- *) | awk '{ printf "%8.0f KiB  %s\n", $1 / 1024, $2 }'
