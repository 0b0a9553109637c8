#!/usr/bin/env bash
# Compile, but not run, the kernels' C for systems that are not here:
#     bash tools/compile_cores.sh [PYTHON]
#
# macOS and Windows (MinGW) by ziglang, from PyPI; Windows as clang-cl sees it by the system's clang, if there is one.
# It is the vector code in npstyle/_kernels/simd, all of it, without Cython's around it, which would need those
# systems' Python headers. Warnings are errors.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${1:-python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export ZIG_LOCAL_CACHE_DIR="$work/cache" ZIG_GLOBAL_CACHE_DIR="$work/cache"
"$python" -m pip install -q --target "$work/package" ziglang

flags=(-std=c11 -O2 -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-unused-function -Wno-sign-compare
    -Inpstyle/_kernels/simd)
for table in first_layer gram lbfgs winograd; do
    # A function that returns the table keeps everything in it.
    printf '#include "%s.h"\nconst void *table(int isa);\nconst void *table(int isa) { return %s_table[isa]; }\n' \
        "$table" "$table" >"$work/$table.c"
    for target in aarch64-macos x86_64-macos x86_64-windows-gnu; do
        echo "$table: $target"
        "$work/package/ziglang/zig" cc -target "$target" "${flags[@]}" -c "$work/$table.c" -o "$work/$table-$target.o"
    done
    if command -v clang >/dev/null; then
        echo "$table: x86_64-windows-msvc, as clang-cl sees it"
        # The three functions of the C library that it uses; Microsoft's headers are not here.
        mkdir -p "$work/headers"
        printf '#include <stddef.h>\nvoid *memcpy(void *, const void *, size_t);\nvoid *memset(void *, int, size_t);\n' \
            >"$work/headers/string.h"
        clang --target=x86_64-pc-windows-msvc -ffreestanding -I"$work/headers" "${flags[@]}" -c "$work/$table.c" \
            -o "$work/$table-msvc.o"
        grep -q steps_avx512_float "$work/$table-msvc.o" # it is not taken for Microsoft's compiler
    fi
done
echo "all of it compiles"
