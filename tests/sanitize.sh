#!/usr/bin/env bash
# The kernels' tests, those of random shapes included, with AddressSanitizer and UndefinedBehaviorSanitizer (gcc,
# Linux):
#     bash tests/sanitize.sh [python with npstyle's [test] installed]
# Everything is built in a copy of the tree outside the checkout, which stays as it is. docs/reliability.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${1:-python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Not with NPSTYLE_DEBUG=1: Cython would check the bounds first, and hide errors from the sanitizer.
mkdir "$work/tree"
# Without what other builds and runs may be writing meanwhile.
tar --exclude __pycache__ --exclude '*.so' --exclude '*.c' -cf - npstyle tests weights setup.py pyproject.toml \
    README.md LICENSE | tar -xf - -C "$work/tree"
flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1"
# setup.py's -O3 takes this compiler minutes with the checks of a sanitizer, so -O1 comes after it; what is optimized
# less also keeps more of the accesses that are checked. With the other flag operations are fused as with -O3, by which
# a test tells instruction sets apart.
printf '#!/bin/sh\nexec gcc "$@" -O1 -fexpensive-optimizations\n' >"$work/gcc"
chmod +x "$work/gcc"
# With what builds the kernels, if it is there: else pip fetches it.
isolation=()
"$python" -c 'import Cython, numpy, scipy, setuptools' 2>/dev/null && isolation=(--no-build-isolation)
CC="$work/gcc" CFLAGS="$flags" LDFLAGS="-fsanitize=address,undefined" \
    "$python" -m pip install -q --no-deps "${isolation[@]}" --target "$work/site" "$work/tree"

# Python itself is not instrumented, so the libraries have to be loaded before it. Without libstdc++ they would
# not find the functions that catch exceptions in NumPy's and SciPy's C++.
preload=""
for library in libasan.so libubsan.so libstdc++.so; do
    preload+="$(realpath "$(gcc -print-file-name=$library)") "
done
export LD_PRELOAD="$preload" PYTHONPATH="$work/site" PYTHONDONTWRITEBYTECODE=1
# Python frees much only when it ends: that is no leak. The bytes behind an array are checked only if malloc
# allocated it, not Python's own allocator.
export ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc
cd "$work/tree"
rm -r npstyle # what is tested is the copy in $work/site
"$python" - "$work/site" <<'PYTHON'
import sys
import npstyle
from npstyle._kernels import _winograd
assert npstyle.__file__.startswith(sys.argv[1]), npstyle.__file__
assert b"__asan_report" in open(_winograd.__file__, "rb").read(), "built without the sanitizers"
PYTHON

# A sanitizer that reports nothing may not work at all. So here is an error that it has to find: a mask of one
# byte, where 512 are written.
if "$python" - 2>"$work/report" <<'PYTHON'
import numpy as np
from npstyle._kernels import _relu
x = np.ones(4096, np.float32)
_relu.relu(x, np.empty_like(x), np.empty(1, np.uint8), 1)
PYTHON
then
    echo "the sanitizer missed a write behind an array" >&2
    exit 1
fi
grep -m 1 "AddressSanitizer: heap-buffer-overflow" "$work/report" || { cat "$work/report" >&2; exit 1; }
"$python" -m pytest -q -p no:cacheprovider tests/test_kernels.py
