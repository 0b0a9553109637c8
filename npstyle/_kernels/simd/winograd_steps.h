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
        ISA, tile, PANEL, ROWS, NAME(input_##tile), NAME(gather_##tile), NAME(kernel_##tile),          \
            NAME(multiply_##tile), NAME(output_##tile),                                                \
    }
static const winograd_sizes NAME(steps) = {STEPS_OF(8), STEPS_OF(6)};
#undef STEPS_OF
