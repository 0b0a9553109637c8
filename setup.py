"""Build of the compiled kernels; everything else about the package is in pyproject.toml.

OpenMP is used if the compiler has it. Environment variables change that, for pip and for this script:

* ``NPSTYLE_OPENMP=0`` builds without OpenMP, ``NPSTYLE_OPENMP=1`` makes its absence an error.
* ``NPSTYLE_DEBUG=1`` builds for a debugger, with bounds checks and little optimization.
* ``NPSTYLE_SCALAR=1`` builds without vector extensions, as compilers other than GCC and Clang do.

``tests/build_variants.sh`` tests the last two.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize  # type: ignore[import-untyped, unused-ignore]
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = [
    "_convolution",
    "_winograd",
    "_first_layer",
    "_relu",
    "_pooling",
    "_gram",
    "_lbfgs",
    "_openmp",
    "_cpu",
]
# Cython's memory views, which every kernel uses: compiled once, not once for each of them.
SHARED = "npstyle._kernels._memory_views"
HEADERS = [str(path) for path in Path("npstyle/_kernels/simd").glob("*.h")]
DEBUG = os.environ.get("NPSTYLE_DEBUG", "0") == "1"
MACROS = [("NPSTYLE_SCALAR", "1")] if os.environ.get("NPSTYLE_SCALAR", "0") == "1" else []

# (compile flags, link flags) by compiler: tried in turn until one of them builds and links.
OPENMP_FLAGS: dict[str, list[tuple[list[str], list[str]]]] = {
    "msvc": [(["/openmp"], [])],
    "unix": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],
}
OPTIMIZE = {"msvc": ["/O2"], "unix": ["-O3"]}
DEBUG_FLAGS = {"msvc": ["/Od", "/Zi"], "unix": ["-O1", "-g"]}

OPENMP_PROGRAM = """
#include <omp.h>
int main(void) { return omp_get_max_threads() > 0 ? 0 : 1; }
"""


class BuildKernels(build_ext):
    """Choose the flags once the compiler is known."""

    parallel: int | None  # builds at a time, of build_ext

    def finalize_options(self) -> None:
        super().finalize_options()
        # Always build everything, here and in `cythonize`: neither looks at the flags and variables that an
        # earlier build was made with, only at the time of files.
        self.force = True
        # A compiler takes up to about 10 s and some 100 MB for each kernel.
        self.parallel = self.parallel or min(4, os.cpu_count() or 1)

    def build_extensions(self) -> None:
        family = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        compile_flags = list((DEBUG_FLAGS if DEBUG else OPTIMIZE)[family])
        link_flags: list[str] = []
        openmp = os.environ.get("NPSTYLE_OPENMP", "auto")
        if openmp != "0":
            for extra_compile, extra_link in OPENMP_FLAGS[family]:
                if self._builds(OPENMP_PROGRAM, extra_compile, extra_link):
                    compile_flags += extra_compile
                    link_flags += extra_link
                    break
            else:
                note = "npstyle: no OpenMP in this compiler; the kernels will run on one thread"
                if openmp == "1":
                    raise SystemExit(note + " (NPSTYLE_OPENMP=1 asked for it)")
                print(note, file=sys.stderr)
        for extension in self.extensions:
            extension.extra_compile_args += compile_flags
            extension.extra_link_args += link_flags
        super().build_extensions()

    def _builds(self, program: str, compile_flags: list[str], link_flags: list[str]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=compile_flags
                )
                self.compiler.link_executable(objects, str(Path(folder, "probe")), extra_postargs=link_flags)
            except Exception:  # each compiler class has exceptions of its own
                return False
        return True


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=cythonize(  # type: ignore[no-untyped-call]
        [
            Extension(
                f"npstyle._kernels.{name}",
                [f"npstyle/_kernels/{name}.pyx"],
                include_dirs=["npstyle/_kernels/simd"],
                define_macros=MACROS,
                depends=HEADERS,
            )
            for name in KERNELS
        ]
        + [Extension(SHARED, [SHARED.replace(".", "/") + ".c"])],
        force=True,
        shared_utility_qualified_name=SHARED,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
        },
    ),
)
