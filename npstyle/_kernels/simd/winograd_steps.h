/* The steps of Winograd convolutions with both sizes of tiles, for one type of number and one instruction
   set: included by instruction_sets.h, after vectors.h. */

#define TILE 8
#include "winograd_tile.h"
#undef TILE
#define TILE 6
#include "winograd_tile.h"
#undef TILE

#define STEPS_OF(tile)                                                                                 \
    {                                                                                                  \
        tile, PANEL, ROWS, NAME(transform_input_##tile), NAME(pack_filter_##tile),                     \
            NAME(transform_filter_##tile), NAME(gemm_##tile), NAME(transform_output_##tile),           \
    }
static const winograd_tiles NAME(steps) = {STEPS_OF(8), STEPS_OF(6)};
#undef STEPS_OF
