#!/usr/bin/env bash
# The tests with the oldest versions that pyproject.toml allows: bash tests/oldest.sh [PYTHON] [PYTEST ARGUMENTS]
# Everything is installed into a new environment in a temporary folder, and the package from a copy. Where
# NPSTYLE_TEST_KERNELS names a folder of kernels that this Python has built, they are not built again; setuptools and
# Cython then have to be on PYTHONPATH.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
shift || true
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# "numpy>=1.26" among the dependencies becomes the constraint numpy==1.26.0.
"$python" - >"$work/constraints.txt" <<'PYTHON'
import re
text = open("pyproject.toml", encoding="utf-8").read()
listed = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
for name, version in re.findall(r'"([\w-]+)>=([\d.]+)', listed):
    print(f"{name}=={version}" + ".0" * (2 - version.count(".")))
PYTHON
sed 's/^/oldest: /' "$work/constraints.txt"

mkdir "$work/npstyle"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/npstyle"
"$python" -m venv "$work/env"
install=("$work/env/bin/pip" install -q -c "$work/constraints.txt" -e "$work/npstyle[test]")
if [ -n "${NPSTYLE_TEST_KERNELS:-}" ]; then
    NPSTYLE_KERNELS=reference "${install[@]}" --no-build-isolation
    cp "$NPSTYLE_TEST_KERNELS"/*.so "$work/npstyle/npstyle/_kernels/"
else
    "${install[@]}"
fi
unset PYTHONPATH
cd "$work/npstyle"
"$work/env/bin/pytest" -q "$@"
