#!/usr/bin/env bash
# The kernels for aarch64 (NEON), cross-compiled and tested under emulation (Debian and Ubuntu):
#     apt install gcc-aarch64-linux-gnu qemu-user-static
#     bash tools/build_aarch64.sh [PYTHON with setuptools, Cython and scipy] [PYTEST ARGUMENTS]
#
# The system's Python for arm64 is unpacked into a temporary folder, with wheels of what npstyle needs; nothing is
# installed. PYTHON has the same version as that one. Emulation is slow: tests/test_kernels.py takes many minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${1:-python3}")
shift || true
tests=("$@")
[ "${#tests[@]}" -gt 0 ] || tests=(tests/test_kernels.py)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$("$python" -c 'import sys; print("{}.{}".format(*sys.version_info))')
say() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

say "Python $version for arm64"
# A package list of its own, so that the system's stays as it is.
apt=("-o" "Dir::State=$work/apt" "-o" "Dir::State::status=$work/apt/status" "-o" "Dir::Cache=$work/apt/cache"
    "-o" "APT::Architecture=arm64" "-o" "APT::Architectures=arm64")
mkdir -p "$work"/apt/lists/partial "$work"/apt/cache/archives/partial "$work/root"
: >"$work/apt/status"
apt-get -q "${apt[@]}" update >"$work/apt.txt" 2>&1 || { cat "$work/apt.txt" && exit 1; }
(
    cd "$work"
    apt-get -q "${apt[@]}" download "python$version-minimal" "libpython$version-minimal" "libpython$version-stdlib" \
        "libpython$version-dev" libc6 libexpat1 zlib1g libgcc-s1 libstdc++6 libgomp1 libffi8 libbz2-1.0 liblzma5 \
        libuuid1 libcrypt1 >>apt.txt 2>&1 || { cat apt.txt && exit 1; }
    for package in ./*.deb; do
        dpkg -x "$package" root
    done
)
"$python" -m pip install -q --target "$work/site" --only-binary :all: --python-version "$version" \
    --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_28_aarch64 numpy scipy pillow h5py pooch threadpoolctl tqdm pytest hypothesis

say "cross compilation"
mkdir "$work/tree" "$work/target"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/tree"
cp "$work"/root/usr/lib/python"$version"/_sysconfigdata__aarch64*.py "$work/target/"
name=$(basename "$work"/target/*.py .py)
cd "$work/tree"
include=$work/root/usr/include
env _PYTHON_SYSCONFIGDATA_NAME="$name" _PYTHON_HOST_PLATFORM=linux-aarch64 PYTHONPATH="$work/target" \
    CFLAGS="-I$include -I$include/python$version" CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" \
    NPSTYLE_OPENMP=1 "$python" setup.py -q build_ext --inplace >"$work/build.txt" 2>&1 ||
    { tail -n 30 "$work/build.txt" && exit 1; }
file npstyle/_kernels/_winograd.*.so | grep -o 'ARM aarch64'

say "tests under emulation: ${tests[*]}"
# Programs that the tests start are emulated, too.
printf '#!/bin/sh\nexec qemu-aarch64-static -L %q %q "$@"\n' "$work/root" "$work/root/usr/bin/python$version" \
    >"$work/emulated"
chmod +x "$work/emulated"
echo "import sys; sys.executable = '$work/emulated'" >"$work/site/sitecustomize.py"
export PYTHONPATH="$work/site:$work/tree" PYTHONDONTWRITEBYTECODE=1
"$work/emulated" - <<'PYTHON'
import platform
from npstyle import _kernels
assert platform.machine() == "aarch64"
assert _kernels.OPENMP and _kernels.instruction_sets() == ["plain"], _kernels.instruction_sets()
PYTHON
# NumPy's own products raise flags of floating-point errors under emulation: those of the reference implementations.
"$work/emulated" -m pytest -q -p no:cacheprovider -W "ignore:divide by zero encountered in matmul:RuntimeWarning" \
    -W "ignore:invalid value encountered in matmul:RuntimeWarning" \
    -W "ignore:overflow encountered in matmul:RuntimeWarning" "${tests[@]}"
