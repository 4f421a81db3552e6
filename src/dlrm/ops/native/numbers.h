// Numbers as tables store them, and rows of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace {

using std::int64_t;
using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;

using bf16 = uint16_t;

// Before a loop over the numbers of a row. Without it compilers unroll short rows into single
// numbers before they look for vectors, and find none afterwards: rows could overlap.
#define EACH_NUMBER _Pragma("omp simd")

// So many bytes on.
inline const char *at(const void *from, int64_t bytes) { return static_cast<const char *>(from) + bytes; }
inline char *at(void *from, int64_t bytes) { return static_cast<char *>(from) + bytes; }

// memcpy rather than a cast: it is defined, and compiles to nothing.
inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

inline float of_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline float widen(bf16 x) { return of_bits(uint32_t(x) << 16); }

// To the nearest, ties to even; not a number stays one.
inline bf16 nearest(float x) {
    const uint32_t bits = bits_of(x);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40;
    return bf16((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

// Up or down at random, so that the expected value is x; the noise has 16 random bits.
inline bf16 stochastic(float x, uint32_t noise) {
    const uint32_t bits = bits_of(x);
    const bool finite = (bits & 0x7f800000) != 0x7f800000;
    const uint32_t quiet = (bits & 0x7fffffff) > 0x7f800000 ? 0x400000 : 0;
    return bf16((finite ? bits + (noise & 0xffff) : bits | quiet) >> 16);
}

// Spreads the bits of a number (Wellons' lowbias32), as reference.py does.
inline uint32_t mix(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

inline float widened(float x) { return x; }
inline float widened(bf16 x) { return widen(x); }

// A row of n float or bf16 numbers from or to floats.
inline void load_row(const void *from, int64_t first, bool narrow, int64_t n, float *to) {
    if (narrow) {
        const bf16 *row = static_cast<const bf16 *>(from) + first;
        EACH_NUMBER for (int64_t k = 0; k < n; k++) to[k] = widen(row[k]);
    } else {
        const float *row = static_cast<const float *>(from) + first;
        EACH_NUMBER for (int64_t k = 0; k < n; k++) to[k] = row[k];
    }
}

inline void store_row(const float *from, void *to, int64_t first, bool narrow, int64_t n) {
    if (narrow) {
        bf16 *row = static_cast<bf16 *>(to) + first;
        EACH_NUMBER for (int64_t k = 0; k < n; k++) row[k] = nearest(from[k]);
    } else {
        float *row = static_cast<float *>(to) + first;
        EACH_NUMBER for (int64_t k = 0; k < n; k++) row[k] = from[k];
    }
}

// Of what does nothing but prefetch: compilers see no effect in a call of it and delete the call, so
// that it must not be one.
#define INLINED __attribute__((always_inline))

// Asks for the lines of a row, into the second nearest cache: more of them can be under way there than
// to the nearest one, where rows at random places take half as long again.
template <class T> INLINED inline void prefetch_row(const T *row, int64_t dim) {
    const char *bytes = reinterpret_cast<const char *>(row);
    const int64_t size = dim * int64_t(sizeof(T));
    for (int64_t at = 0; at < size; at += 64) __builtin_prefetch(bytes + at, 0, 2);
    // A row of 40 bytes may end in a line where it does not begin.
    if (size % 64 && (size & (size - 1))) __builtin_prefetch(bytes + size - 1, 0, 2);
}

// How many rows of so many bytes are fetched before they are needed: 64, as long as these take no
// more than 16 KiB; of very long ones a few all the same.
inline int64_t ahead(int64_t row_bytes) {
    return std::max<int64_t>(8, std::min<int64_t>(64, (16 << 10) / row_bytes));
}

// Calls body(first, std::integral_constant<int, N>) for parts of N numbers of a row: for all D at once,
// or where that is 0 for as many of the most numbers as fit into d, then for half as many, and so on.
template <int D, int MOST = 64, class Body>
INLINED inline void each_part(int64_t d, const Body &body) {
    if constexpr (D > 0)
        body(int64_t(0), std::integral_constant<int, D>());
    else {
        int64_t k = 0;
        const auto parts = [&](auto n) INLINED {
            for (; k + n() <= d; k += n()) body(k, n);
        };
        if constexpr (MOST >= 64) parts(std::integral_constant<int, 64>());
        if constexpr (MOST >= 64) parts(std::integral_constant<int, 32>());
        parts(std::integral_constant<int, 16>());
        parts(std::integral_constant<int, 8>());
        parts(std::integral_constant<int, 4>());
        parts(std::integral_constant<int, 1>());
    }
}

// Calls body(k) for each number of a row, in vectors.
template <int D, class Body> INLINED inline void each_number(int64_t d, const Body &body) {
    each_part<D, 16>(d, [&](int64_t first, auto n) INLINED {
        EACH_NUMBER for (int64_t k = 0; k < n(); k++) body(first + k);
    });
}

// Calls body(std::integral_constant<int, D>) for a common dimension, with 0 for any other: loops
// of known length are unrolled.
template <class Body> inline void by_dim(int64_t dim, Body body) {
    switch (dim) {
    case 8: return body(std::integral_constant<int, 8>());
    case 10: return body(std::integral_constant<int, 10>());
    case 16: return body(std::integral_constant<int, 16>());
    case 32: return body(std::integral_constant<int, 32>());
    case 64: return body(std::integral_constant<int, 64>());
    case 128: return body(std::integral_constant<int, 128>());
    default: return body(std::integral_constant<int, 0>());
    }
}

} // namespace
