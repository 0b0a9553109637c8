/* The end of one instruction set's steps. */
#undef PANEL
#undef WIDTH
#undef VEC
#undef LOAD
#undef STORE
#undef LANE
#undef RECTIFY
#undef N
#undef REAL
#undef INTEGER
#undef LANES
#undef SUFFIX
#undef POSITIVE
#undef KEEP
#undef STREAM
#undef FENCE
