cdef int isa  # the instruction set in use: an index into the kernels' tables, [isa][is_double]
