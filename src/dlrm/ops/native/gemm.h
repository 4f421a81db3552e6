// Matrix products c = a b whose sums run over words of 32 bits: a float, or two bf16 that follow
// each other in the sum.
//
// As in Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", TOMS 2008: a tile
// of c stays in registers over the whole sum; b lies in panels of columns, word after word of
// the sum, and a word of a meets a row of a panel.
#pragma once

#include <algorithm>

#include "numbers.h"
#include "vectors.h"

namespace {

#ifdef __AVX512F__
constexpr int TILE = 8, WIDEST = 3;  // rows and vectors of a tile: 24 of 32 registers
#else
constexpr int TILE = 4, WIDEST = 1;
#endif
constexpr int64_t LANES = 16, PANEL = WIDEST * LANES;

// Sixteen floats that need not lie in memory.
typedef float Registers __attribute__((vector_size(64)));

// A format says what a word is and how two words multiply.
struct Wide {
    using Number = float;
    using Word = float;
    using Vector = Lanes;
    static constexpr int64_t PER_WORD = 1;
    static Lanes spread(float word) { return word - Lanes{}; }
    static void add(Registers &c, Lanes a, Lanes b) { c += a * b; }
    static float word(float first, float) { return first; }
    static float sum(float word) { return word; }
};

// With AVX-512 the products are one instruction of AVX512-BF16, as assembly, so that one build serves
// CPUs with it and without, as long as these do not call it.
struct Narrow {
    using Number = bf16;
    using Word = uint32_t;
    using Vector = Words;
    static constexpr int64_t PER_WORD = 2;
    static Words spread(uint32_t word) { return word - Words{}; }
    static void add(Registers &c, Words a, Words b) {
#ifdef __AVX512F__
        asm("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
#else
        c += reinterpret_cast<Lanes>(a << 16) * reinterpret_cast<Lanes>(b << 16);
        c += reinterpret_cast<Lanes>(a & 0xffff0000u) * reinterpret_cast<Lanes>(b & 0xffff0000u);
#endif
    }
    static uint32_t word(float first, float second) {
        return uint32_t(nearest(first)) | uint32_t(nearest(second)) << 16;
    }
    static uint32_t word(bf16 first, bf16 second) { return first | uint32_t(second) << 16; }
    static float sum(uint32_t word) { return of_bits(word << 16) + of_bits(word & 0xffff0000u); }
};

// Whether this CPU can multiply narrow words.
inline bool multiplies_narrow() {
#ifdef __AVX512F__
    return __builtin_cpu_supports("avx512bf16");
#else
    return true;
#endif
}

// One tile: TILE rows of a times one panel of b; sums is (TILE, WIDE * LANES).
//
// Row m of a begins at at[m], and its words are STEP apart.
template <class Format, int WIDE, int STEP>
__attribute__((noinline)) void tile(const typename Format::Word *const *rows,
                                    const typename Format::Word *b, int64_t K, float *sums) {
    using Vector = typename Format::Vector;
    const typename Format::Word *at[TILE];
    for (int m = 0; m < TILE; m++) at[m] = rows[m];
    Registers c[TILE][WIDE] = {};
    for (int64_t k = 0; k < K; k++, b += WIDE * LANES) {
        Vector column[WIDE];
#pragma GCC unroll 8
        for (int w = 0; w < WIDE; w++)
            column[w] = *reinterpret_cast<const Vector *>(b + w * LANES);
#pragma GCC unroll 8
        for (int m = 0; m < TILE; m++) {
            const Vector a = Format::spread(at[m][k * STEP]);
#pragma GCC unroll 8
            for (int w = 0; w < WIDE; w++) Format::add(c[m][w], a, column[w]);
        }
    }
    // Unrolled like the sum: c stays in registers only if every index is known.
#pragma GCC unroll 8
    for (int m = 0; m < TILE; m++)
#pragma GCC unroll 8
        for (int w = 0; w < WIDE; w++) lanes(sums + (m * WIDE + w) * LANES) = c[m][w];
}

// Calls body(std::integral_constant<int, WIDE>, first column) for each panel of N columns.
template <class Body> inline void by_panel(int64_t N, Body body) {
    for (int64_t first = 0; first < N; first += PANEL) {
        const int64_t wide = std::min<int64_t>(WIDEST, (N - first + LANES - 1) / LANES);
        if (wide == 1) body(std::integral_constant<int, 1>(), first);
        else if (wide == 2) body(std::integral_constant<int, std::min(2, WIDEST)>(), first);
        else body(std::integral_constant<int, WIDEST>(), first);
    }
}

// Where the word (k, 0) of the panel that begins with column `first` lies in b (K, N).
inline int64_t in_panel(int64_t first, int64_t k, int64_t K, int64_t N) {
    return first * K + k * std::min(PANEL, up(N - first, LANES));
}

// What becomes of a tile's sums: c + bias, its ReLU, or zero where gate <= 0; as float or bf16.
struct Target {
    void *to;                     // (M, step)
    bool narrow;
    int64_t step, width;          // numbers a row, and how many of them are written
    const float *bias = nullptr;  // (up(width, LANES))
    bool relu = false;
    const void *gate = nullptr;  // (M, gate_step)
    bool gate_narrow = false;
    int64_t gate_step = 0;

    void put(int64_t row, int64_t column, Lanes sums) const {
        const Lanes zero = {};
        if (bias) sums += lanes(bias + column);
        if (relu) sums = sums < zero ? zero : sums;
        if (gate) {
            const int64_t at = row * gate_step + column;
            const Lanes y = gate_narrow ? widened(static_cast<const bf16 *>(gate) + at)
                                        : lanes(static_cast<const float *>(gate) + at);
            sums = y > zero ? sums : zero;
        }
        const int64_t at = row * step + column;
        if (column + LANES > width)
            store_row(reinterpret_cast<const float *>(&sums), to, at, narrow, width - column);
        else if (narrow)
            store_nearest(sums, static_cast<bf16 *>(to) + at);
        else
            lanes(static_cast<float *>(to) + at) = sums;
    }
};

// target = a b, for a (M, K) by rows and b (K, N) in panels.
template <class Format>
void multiply(const typename Format::Word *a, int64_t step, int64_t M,
              const typename Format::Word *b, int64_t K, int64_t N, const Target &target) {
    by_panel(N, [&](auto wide, int64_t first) {
        float sums[TILE * PANEL];
        for (int64_t m = 0; m < M; m += TILE) {
            const int64_t rows = std::min<int64_t>(TILE, M - m);
            // Rows past the last repeat it, and are not kept.
            const typename Format::Word *at[TILE];
            for (int64_t r = 0; r < TILE; r++) at[r] = a + (m + std::min(r, rows - 1)) * step;
            tile<Format, wide(), 1>(at, b + first * K, K, sums);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t w = 0; w < wide(); w++)
                    target.put(m + r, first + w * LANES, lanes(sums + (r * wide() + w) * LANES));
        }
    });
}

} // namespace
