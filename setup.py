"""Build of the compiled kernels; everything else about the package is in pyproject.toml.

OpenMP is used if the compiler has it. Environment variables change that, for pip and for this script:

* ``NPSTYLE_OPENMP=0`` builds without OpenMP, ``NPSTYLE_OPENMP=1`` makes its absence an error.
* ``NPSTYLE_DEBUG=1`` builds for a debugger, with bounds checks and little optimization.
* ``NPSTYLE_SCALAR=1`` builds without vector extensions, as compilers other than GCC and Clang do.
* ``NPSTYLE_KERNELS=reference`` compiles nothing. Such an installation runs only with the same variable.

On Windows, ``CC=clang-cl`` compiles with vectors, which Microsoft's compiler does not have.
``tests/build_variants.sh`` and ``tools/build_portable.sh`` test builds that differ from the usual one.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from setuptools import Extension, setup  # before distutils, which it provides
from setuptools.command.build_ext import build_ext

# isort: split
from distutils.ccompiler import new_compiler
from distutils.sysconfig import customize_compiler

from Cython.Build import cythonize  # type: ignore[import-untyped, unused-ignore]

KERNELS = [
    "_convolution",
    "_winograd",
    "_first_layer",
    "_relu",
    "_pooling",
    "_packing",
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
    "clang-cl": [(["/openmp"], ["/nodefaultlib:vcomp.lib", "libomp.lib"])],
    "unix": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],
}
OPTIMIZE = {"msvc": ["/O2"], "clang-cl": ["/O2"], "unix": ["-O3"]}
DEBUG_FLAGS = {"msvc": ["/Od", "/Zi"], "clang-cl": ["/Od", "/Zi"], "unix": ["-O1", "-g"]}

# Metadata and source distributions need no compiler, and no translation to C, which takes some seconds.
BUILDING = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"} & set(sys.argv)
REFERENCE = os.environ.get("NPSTYLE_KERNELS") == "reference"

EMPTY_PROGRAM = "int main(void) { return 0; }"
PYTHON_PROGRAM = "#include <Python.h>\n" + EMPTY_PROGRAM
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
        family = use_clang_cl(self.compiler)
        compile_flags = list((DEBUG_FLAGS if DEBUG else OPTIMIZE)[family])
        link_flags: list[str] = []
        openmp = os.environ.get("NPSTYLE_OPENMP", "auto")
        if openmp != "0":
            for extra_compile, extra_link in OPENMP_FLAGS[family]:
                if builds(self.compiler, OPENMP_PROGRAM, extra_compile, extra_link):
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


def use_clang_cl(compiler: Any) -> str:
    """Have Microsoft's tools call clang-cl, if CC names it; the family of flags of what is used."""
    if compiler.compiler_type != "msvc":
        return "unix"
    clang = shutil.which(os.environ.get("CC", "cl"))
    if not clang or Path(clang).stem != "clang-cl":
        return "msvc"
    if not compiler.initialized:
        compiler.initialize()
    compiler.cc = clang
    compiler.library_dirs.append(str(Path(clang).parents[1] / "lib"))  # of libomp
    return "clang-cl"


def builds(
    compiler: Any, program: str, compile_flags: list[str] | None = None, link_flags: list[str] | None = None
) -> bool:
    """Whether the compiler compiles this program and, if there are flags for that, links it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(program)
        try:
            objects = compiler.compile([str(source)], output_dir=folder, extra_postargs=compile_flags or [])
            if link_flags is not None:
                compiler.link_executable(objects, str(Path(folder, "probe")), extra_postargs=link_flags)
        except Exception:  # each compiler class has exceptions of its own
            return False
    return True


def check_compiler() -> None:
    """End with one line where nothing can be compiled: before pages of output, and before it takes time."""
    compiler = new_compiler()
    customize_compiler(compiler)
    found = ""
    # Not linked: a program's flags are not a module's, as where LDFLAGS has a sanitizer.
    if not builds(compiler, EMPTY_PROGRAM):
        name = (getattr(compiler, "compiler", None) or ["MSVC"])[0]
        found = f"compiler: found none that works ({name}); expected GCC, Clang or MSVC"
    else:
        headers = sysconfig.get_path("include")
        compiler.include_dirs = [headers, sysconfig.get_path("platinclude")]
        if not builds(compiler, PYTHON_PROGRAM):
            found = f"Python's headers: found no Python.h that compiles; expected it in {headers}"
    if found:
        raise SystemExit(
            f"npstyle: {found}; install it (Debian and Ubuntu: apt install gcc python3-dev; macOS: "
            "xcode-select --install), or a wheel, which needs none, or set NPSTYLE_KERNELS=reference for pip "
            "and for npstyle to run on plain NumPy, many times slower"
        )


def kernels() -> list[Any]:
    """The extension modules, translated to C if they are going to be built."""
    modules = [
        Extension(
            f"npstyle._kernels.{name}",
            [f"npstyle/_kernels/{name}.pyx"],
            include_dirs=["npstyle/_kernels/simd"],
            define_macros=MACROS,
            depends=HEADERS,
        )
        for name in KERNELS
    ]
    if not BUILDING:
        return modules
    check_compiler()
    translated: list[Any] = cythonize(  # type: ignore[no-untyped-call]
        [*modules, Extension(SHARED, [SHARED.replace(".", "/") + ".c"])],
        force=True,
        shared_utility_qualified_name=SHARED,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            # All that outlives a call is the instruction set in use, which is set while no kernel runs.
            "freethreading_compatible": True,
        },
    )
    return translated


setup(cmdclass={"build_ext": BuildKernels}, ext_modules=[] if REFERENCE else kernels())
