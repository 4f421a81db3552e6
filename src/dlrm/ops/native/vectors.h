// Vectors of floats; compilers lower them to whatever the instruction set has.
#pragma once

#include "numbers.h"

namespace {

// Sixteen and four floats, and the bits of sixteen.
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));
typedef int32_t Pick __attribute__((vector_size(16)));

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

} // namespace
