#!/usr/bin/env bash
# The kernels' tests on builds that differ from the usual one:
#     bash tests/build_variants.sh [python with npstyle's [test] installed]
# NPSTYLE_DEBUG=1 has Cython check the bounds of every array access; NPSTYLE_SCALAR=1 compiles the branch without
# vector extensions, which is meant for compilers other than GCC and Clang (setup.py). Everything is built in a
# copy of the tree outside the checkout, which stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${1:-python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1

for variant in NPSTYLE_DEBUG NPSTYLE_SCALAR; do
    echo "== $variant=1"
    mkdir "$work/$variant"
    # Without what other builds and runs may be writing meanwhile.
    tar --exclude __pycache__ --exclude '*.so' --exclude '*.c' -cf - npstyle tests weights setup.py pyproject.toml \
        README.md LICENSE | tar -xf - -C "$work/$variant"
    (
        cd "$work/$variant"
        env "$variant=1" "$python" -m pip install -q --no-deps --target site .
        rm -r npstyle # what is tested is the copy in site
        export PYTHONPATH="$PWD/site"
        "$python" - "$PWD/site" "$variant" <<'PYTHON'
import sys
import npstyle
from npstyle._kernels import _winograd, instruction_sets
assert npstyle.__file__.startswith(sys.argv[1]), npstyle.__file__
if sys.argv[2] == "NPSTYLE_SCALAR":
    assert instruction_sets() == ["plain"], instruction_sets()
else:
    assert b"Out of bounds on buffer access" in open(_winograd.__file__, "rb").read(), "no bounds checks"
PYTHON
        "$python" -m pytest -q -p no:cacheprovider tests/test_kernels.py
    )
done
