"""Instruction sets: those that the kernels are compiled for and this processor has, and the one in use.

They are detected once, when this module is imported, and the best is chosen. A kernel reads `isa` when it is
called, and looks up its functions in a table.
"""

cdef extern from "cpu.h" nogil:
    enum: ISA_COUNT
    const char* isa_name(int isa)
    bint isa_available(int isa)

COMPILED = [isa_name(i).decode() for i in range(ISA_COUNT)]
AVAILABLE = {isa_name(i).decode(): i for i in range(ISA_COUNT) if isa_available(i)}  # the best first

isa = min(AVAILABLE.values())


def instruction_sets():
    """Names of those available, the best first."""
    return list(AVAILABLE)


def current_isa():
    """Name of the one in use."""
    return isa_name(isa).decode()


def set_isa(name):
    """Use one of those available, None for the best; KeyError, and no change, for any other."""
    global isa
    isa = min(AVAILABLE.values()) if name is None else AVAILABLE[name]
