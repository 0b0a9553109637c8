/* Maximum pooling: vectors of 16 bytes, which every processor has. It waits for memory, so that wider ones would
   gain little; what compilers make of the loops over elements takes four to ten times as long. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"

#if GNU_VECTORS
#define MAX_LANES(REAL) (16 / (ptrdiff_t)sizeof(REAL))
#define DECLARE_VECTORS(REAL, INTEGER)                                                                 \
    typedef REAL max_vec_##REAL __attribute__((vector_size(16)));                                      \
    typedef INTEGER max_bits_##REAL __attribute__((vector_size(16)));
/* In the lanes where `value` is greater than the largest so far, it and its number are taken. A NaN is greater
   than all numbers, and the first one stays. */
#define TAKE_GREATER(REAL, pointer, number)                                                            \
    memcpy(&value, pointer, sizeof value);                                                             \
    take = (bits)(~(bits)(value <= largest) & (bits)(largest == largest));                             \
    largest = (vec)((take & (bits)value) | (~take & (bits)largest));                                   \
    position = (take & number) | (~take & position);
#define MAX_VECTORS(REAL)                                                                              \
    typedef max_vec_##REAL vec;                                                                        \
    typedef max_bits_##REAL bits;                                                                      \
    for (; c + MAX_LANES(REAL) <= C; c += MAX_LANES(REAL)) {                                           \
        vec largest, value;                                                                            \
        bits take, position = {0};                                                                     \
        memcpy(&largest, upper + c, sizeof largest);                                                   \
        TAKE_GREATER(REAL, upper + C + c, 1)                                                           \
        TAKE_GREATER(REAL, lower + c, 2)                                                               \
        TAKE_GREATER(REAL, lower + C + c, 3)                                                           \
        memcpy(y + c, &largest, sizeof largest);                                                       \
        for (int i = 0; i < MAX_LANES(REAL); i++)                                                      \
            argmax[c + i] = (uint8_t)position[i];                                                      \
    }
#define WHERE_VECTORS(REAL)                                                                            \
    for (; c + MAX_LANES(REAL) <= C; c += MAX_LANES(REAL)) {                                           \
        max_vec_##REAL value;                                                                          \
        max_bits_##REAL found;                                                                         \
        for (int i = 0; i < MAX_LANES(REAL); i++)                                                      \
            found[i] = argmax[c + i];                                                                  \
        memcpy(&value, dy + c, sizeof value);                                                          \
        value = (max_vec_##REAL)((max_bits_##REAL)(found == position) & (max_bits_##REAL)value);       \
        memcpy(dx + c, &value, sizeof value);                                                          \
    }
#else
#define DECLARE_VECTORS(REAL, INTEGER)
#define MAX_VECTORS(REAL)
#define WHERE_VECTORS(REAL)
#endif

#define POOLING_STEPS(REAL, INTEGER)                                                                   \
    DECLARE_VECTORS(REAL, INTEGER)                                                                     \
    /* Maxima of one 2x2 cell in all C channels; lower is the row below upper. */                      \
    static inline void max_of_cell_##REAL(const REAL *upper, const REAL *lower, ptrdiff_t C, REAL *y,  \
                                          uint8_t *argmax)                                             \
    {                                                                                                  \
        ptrdiff_t c = 0;                                                                               \
        MAX_VECTORS(REAL)                                                                              \
        for (; c < C; c++) {                                                                           \
            const REAL values[4] = {upper[c], upper[C + c], lower[c], lower[C + c]};                   \
            int position = 0;                                                                          \
            for (int i = 1; i < 4; i++)                                                                \
                if (!(values[i] <= values[position]) && values[position] == values[position])          \
                    position = i;                                                                      \
            y[c] = values[position];                                                                   \
            argmax[c] = (uint8_t)position;                                                             \
        }                                                                                              \
    }                                                                                                  \
    /* dx = dy where the argmax is this position, else 0. */                                           \
    static inline void where_argmax_##REAL(const REAL *dy, const uint8_t *argmax, int position,        \
                                           ptrdiff_t C, REAL *dx)                                      \
    {                                                                                                  \
        ptrdiff_t c = 0;                                                                               \
        WHERE_VECTORS(REAL)                                                                            \
        for (; c < C; c++)                                                                             \
            dx[c] = argmax[c] == position ? dy[c] : 0;                                                 \
    }

POOLING_STEPS(float, int32_t)
POOLING_STEPS(double, int64_t)
