#!/usr/bin/env bash
# The kernels' tests on builds that differ from the usual one:
#     bash tests/build_variants.sh [PYTHON with npstyle's [test] installed] [VARIANT]...
#
#     debug         NPSTYLE_DEBUG=1: Cython checks the bounds of every array access
#     scalar        NPSTYLE_SCALAR=1: the branch without vector extensions, for compilers other than GCC and Clang
#     zig           Clang without OpenMP, as PyPI has it (ziglang)
#     clang         the system's clang with OpenMP (Debian: apt install clang libomp-dev)
#     clang-serial  the same without OpenMP
#
# The first three if none is named. Everything is built in a copy of the tree outside the checkout, which stays as
# it is.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${1:-python}")
shift || true
variants=("$@")
[ "${#variants[@]}" -gt 0 ] || variants=(debug scalar zig)
# With what builds the kernels, if it is there: else pip fetches it for each of them.
isolation=()
"$python" -c 'import Cython, numpy, scipy, setuptools' 2>/dev/null && isolation=(--no-build-isolation)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1

# What a variant is built with, in the environment of pip.
environment() {
    case $1 in
    debug) export NPSTYLE_DEBUG=1 ;;
    scalar) export NPSTYLE_SCALAR=1 ;;
    zig)
        "$python" -m pip install -q --target "$work/zig-package" ziglang
        # The oldest glibc, and a processor without anything special: by default it compiles for this one only.
        export ZIG_LOCAL_CACHE_DIR="$work/zig-cache" ZIG_GLOBAL_CACHE_DIR="$work/zig-cache"
        export CC="$work/zig-package/ziglang/zig cc -target $(uname -m)-linux-gnu.2.17" NPSTYLE_OPENMP=0
        ;;
    clang) export CC=clang NPSTYLE_OPENMP=1 ;;
    clang-serial) export CC=clang NPSTYLE_OPENMP=0 ;;
    *) echo "no such variant: $1" >&2 && exit 2 ;;
    esac
    if [ -n "${CC:-}" ]; then
        export LDSHARED="$CC -shared"
    fi
}

for variant in "${variants[@]}"; do
    echo "== $variant"
    mkdir "$work/$variant"
    # Without what other builds and runs may be writing meanwhile.
    tar --exclude __pycache__ --exclude '*.so' --exclude '*.c' -cf - npstyle tests weights setup.py pyproject.toml \
        README.md LICENSE | tar -xf - -C "$work/$variant"
    (
        cd "$work/$variant"
        (
            environment "$variant"
            "$python" -m pip install -q --no-deps "${isolation[@]}" --target site .
        )
        rm -r npstyle # what is tested is the copy in site
        export PYTHONPATH="$PWD/site"
        "$python" - "$PWD/site" "$variant" <<'PYTHON'
import sys
import npstyle
from npstyle import _kernels
from npstyle._kernels import _winograd
site, variant = sys.argv[1:]
code = open(_winograd.__file__, "rb").read()
assert npstyle.__file__.startswith(site), npstyle.__file__
assert (b"Out of bounds on buffer access" in code) == (variant == "debug"), "bounds checks"
assert (_kernels._cpu.COMPILED == ["plain"]) == (variant == "scalar"), _kernels._cpu.COMPILED
assert (b"clang version" in code) == (variant in ("zig", "clang", "clang-serial")), "another compiler"
if variant in ("clang", "clang-serial", "zig"):
    assert _kernels.OPENMP == (variant == "clang"), _kernels.OPENMP
PYTHON
        "$python" -m pytest -q -p no:cacheprovider tests/test_kernels.py
    )
done
