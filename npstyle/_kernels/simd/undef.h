/* Undefine what belongs to one instruction set and one type of number. */
#undef PANEL
#undef WIDTH
#undef VEC
#undef LOAD
#undef STORE
#undef LANE
#undef RELU
#undef N
#undef REAL
#undef INTEGER
#undef LANES
#undef SUFFIX
#undef POSITIVE
#undef MASKED
#undef STREAM
#undef FENCE
#undef WIDEN
