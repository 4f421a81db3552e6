// Vectors of floats; compilers lower them to whatever the instruction set has.
#pragma once

#include "numbers.h"

namespace {

// Sixteen and four floats, and the bits of sixteen.
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));
typedef int16_t Draws __attribute__((vector_size(32), aligned(2), may_alias));
typedef int32_t Pick __attribute__((vector_size(16)));
typedef int32_t Pick16 __attribute__((vector_size(64)));

// As many floats as one register has, in memory or not. A loop that keeps many sums in registers needs
// these: longer vectors go to memory in each turn.
#if defined(__AVX512F__)
#define REGISTER_BYTES 64
#elif defined(__AVX__)
#define REGISTER_BYTES 32
#else
#define REGISTER_BYTES 16
#endif
typedef float Whole __attribute__((vector_size(REGISTER_BYTES), aligned(4), may_alias));
typedef uint32_t WholeWords __attribute__((vector_size(REGISTER_BYTES), aligned(4), may_alias));
typedef float Register __attribute__((vector_size(REGISTER_BYTES)));
constexpr int64_t WHOLE = REGISTER_BYTES / 4;

inline const Whole &whole(const float *at) { return *reinterpret_cast<const Whole *>(at); }
inline Whole &whole(float *at) { return *reinterpret_cast<Whole *>(at); }
inline const Lanes &lanes(const float *at) { return *reinterpret_cast<const Lanes *>(at); }
inline Lanes &lanes(float *at) { return *reinterpret_cast<Lanes *>(at); }
inline const Four &four(const float *at) { return *reinterpret_cast<const Four *>(at); }
inline Four &four(float *at) { return *reinterpret_cast<Four *>(at); }
inline const Words &words(const uint32_t *at) { return *reinterpret_cast<const Words *>(at); }

// Sixteen numbers from or to bf16, rounded as `nearest` does.
inline Lanes widened(const bf16 *at) {
    const Halves halves = *reinterpret_cast<const Halves *>(at);
    return reinterpret_cast<Lanes>(__builtin_convertvector(halves, Words) << 16);
}
inline void store_nearest(Lanes numbers, bf16 *to) {
    const Words bits = reinterpret_cast<Words>(numbers);
    const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Words quiet = (bits >> 16) | 0x40;
    const Words words = (bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded;
    *reinterpret_cast<Halves *>(to) = __builtin_convertvector(words, Halves);
}

inline Lanes widened(const float *at) { return lanes(at); }
inline void store_nearest(Lanes numbers, float *to) { lanes(to) = numbers; }

inline int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

#ifdef __clang__
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, Pick{i, j, k, l})
#endif

// to[c][r] = from[r][c] for four rows and columns.
inline void transpose4(const float *from, int64_t from_step, float *to, int64_t to_step) {
    const Four a = four(from), b = four(from + from_step);
    const Four c = four(from + 2 * from_step), d = four(from + 3 * from_step);
    const Four ab = SHUFFLE(a, b, 0, 4, 1, 5), AB = SHUFFLE(a, b, 2, 6, 3, 7);
    const Four cd = SHUFFLE(c, d, 0, 4, 1, 5), CD = SHUFFLE(c, d, 2, 6, 3, 7);
    four(to) = SHUFFLE(ab, cd, 0, 1, 4, 5);
    four(to + to_step) = SHUFFLE(ab, cd, 2, 3, 6, 7);
    four(to + 2 * to_step) = SHUFFLE(AB, CD, 0, 1, 4, 5);
    four(to + 3 * to_step) = SHUFFLE(AB, CD, 2, 3, 6, 7);
}

#ifdef __AVX512F__
// The same four numbers out of each quarter of two vectors; four quarters out of them.
#ifdef __clang__
#define IN_QUARTERS(a, b, i, j, k, l)                                                        \
    __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8,      \
                            k + 8, l + 8, i + 12, j + 12, k + 12, l + 12)
#define QUARTERS(a, b, i, j, k, l)                                                           \
    __builtin_shufflevector(a, b, 4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3, 4 * j, 4 * j + 1,  \
                            4 * j + 2, 4 * j + 3, 4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3,    \
                            4 * l, 4 * l + 1, 4 * l + 2, 4 * l + 3)
#else
#define IN_QUARTERS(a, b, i, j, k, l)                                                        \
    __builtin_shuffle(a, b, Pick16{i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8,     \
                                   k + 8, l + 8, i + 12, j + 12, k + 12, l + 12})
#define QUARTERS(a, b, i, j, k, l)                                                           \
    __builtin_shuffle(a, b, Pick16{4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3, 4 * j, 4 * j + 1, \
                                   4 * j + 2, 4 * j + 3, 4 * k, 4 * k + 1, 4 * k + 2,        \
                                   4 * k + 3, 4 * l, 4 * l + 1, 4 * l + 2, 4 * l + 3})
#endif
#endif

// The same for sixteen.
__attribute__((noinline)) void transpose16(const float *from, int64_t from_step, float *to,
                                           int64_t to_step) {
#ifdef __AVX512F__
    // Quarter q of turned[4 g + c] has the rows 4 g, ..., 4 g + 3 of column 4 q + c.
    Lanes turned[16];
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        const float *row = from + 4 * g * from_step;
        const Lanes a = lanes(row), b = lanes(row + from_step);
        const Lanes c = lanes(row + 2 * from_step), d = lanes(row + 3 * from_step);
        const Lanes ab = IN_QUARTERS(a, b, 0, 16, 1, 17), AB = IN_QUARTERS(a, b, 2, 18, 3, 19);
        const Lanes cd = IN_QUARTERS(c, d, 0, 16, 1, 17), CD = IN_QUARTERS(c, d, 2, 18, 3, 19);
        turned[4 * g] = IN_QUARTERS(ab, cd, 0, 1, 16, 17);
        turned[4 * g + 1] = IN_QUARTERS(ab, cd, 2, 3, 18, 19);
        turned[4 * g + 2] = IN_QUARTERS(AB, CD, 0, 1, 16, 17);
        turned[4 * g + 3] = IN_QUARTERS(AB, CD, 2, 3, 18, 19);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        const Lanes a = turned[c], b = turned[4 + c], A = turned[8 + c], B = turned[12 + c];
        const Lanes even = QUARTERS(a, b, 0, 2, 4, 6), odd = QUARTERS(a, b, 1, 3, 5, 7);
        const Lanes EVEN = QUARTERS(A, B, 0, 2, 4, 6), ODD = QUARTERS(A, B, 1, 3, 5, 7);
        lanes(to + c * to_step) = QUARTERS(even, EVEN, 0, 2, 4, 6);
        lanes(to + (4 + c) * to_step) = QUARTERS(odd, ODD, 0, 2, 4, 6);
        lanes(to + (8 + c) * to_step) = QUARTERS(even, EVEN, 1, 3, 5, 7);
        lanes(to + (12 + c) * to_step) = QUARTERS(odd, ODD, 1, 3, 5, 7);
    }
#else
    for (int64_t r = 0; r < 16; r += 4)
        for (int64_t c = 0; c < 16; c += 4)
            transpose4(from + r * from_step + c, from_step, to + c * to_step + r, to_step);
#endif
}

} // namespace
