// Matrix products c = a b whose sums run over words of 32 bits: a float, or two bf16 that follow
// each other in the sum.
//
// As in Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", TOMS 2008: a tile
// of c stays in registers over the whole sum; b lies in panels of columns, word after word of
// the sum, and a word of a meets a row of a panel.
#pragma once

#include <algorithm>

#include "numbers.h"
#include "tiles.h"
#include "vectors.h"

namespace {

#ifdef __AVX512F__
constexpr int TILE = 8, WIDEST = 3;  // rows and vectors of a tile: 24 of 32 registers
#else
constexpr int TILE = 4, WIDEST = 1;
#endif
constexpr int64_t LANES = 16;

// Whether this CPU can multiply narrow words.
inline bool multiplies_narrow() {
#ifdef __AVX512F__
    static const bool has = __builtin_cpu_supports("avx512bf16");
    return has;
#else
    return true;
#endif
}

// Sixteen numbers to what products read: rounded as `store_nearest` does, but for denormal numbers, which
// products take for zero and one instruction of AVX512-BF16 makes zero.
inline void store_factors(Lanes numbers, bf16 *to) {
#ifdef __AVX512F__
    if (multiplies_narrow()) {
        asm("vcvtneps2bf16 %1, %0" : "=v"(*reinterpret_cast<Halves *>(to)) : "v"(numbers));
        return;
    }
#endif
    store_nearest(numbers, to);
}
// The same for thirty-two numbers, in one store: whoever reads them at once would wait for two.
inline void store_factors(Lanes first, Lanes second, bf16 *to) {
#ifdef __AVX512F__
    if (multiplies_narrow()) {
        asm("vcvtne2ps2bf16 %1, %2, %0"
            : "=v"(*reinterpret_cast<Words *>(to)) : "v"(first), "v"(second));
        return;
    }
#endif
    store_nearest(first, to), store_nearest(second, to + LANES);
}

// A format says what a word is, how two words multiply, and how operands lie: a panel of b has up to
// PANEL columns, a multiple of COLUMNS, and a sum goes over a multiple of DEEP words.
struct Wide {
    using Number = float;
    using Word = float;
    using Vector = Whole;
    static constexpr int64_t PER_WORD = 1, DEEP = 1;
    static constexpr int64_t PANEL = WIDEST * LANES, COLUMNS = LANES;
    static Whole spread(float word) { return word - Whole{}; }
    static void add(Register &c, Whole a, Whole b) { c += a * b; }
    static float word(float first, float) { return first; }
    static float sum(float word) { return word; }
};

// With AVX-512 the products are one instruction of AVX512-BF16, as assembly, so that one build serves
// CPUs with it and without, as long as these do not call it.
struct Narrow {
    using Number = bf16;
    using Word = uint32_t;
    using Vector = WholeWords;
    static constexpr int64_t PER_WORD = 2, DEEP = 1;
    static constexpr int64_t PANEL = WIDEST * LANES, COLUMNS = LANES;
    static WholeWords spread(uint32_t word) { return word - WholeWords{}; }
    static void add(Register &c, WholeWords a, WholeWords b) {
#ifdef __AVX512F__
        asm("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
#else
        c += reinterpret_cast<Whole>(a << 16) * reinterpret_cast<Whole>(b << 16);
        c += reinterpret_cast<Whole>(a & 0xffff0000u) * reinterpret_cast<Whole>(b & 0xffff0000u);
#endif
    }
    static uint32_t word(float first, float second) {
        return uint32_t(nearest(first)) | uint32_t(nearest(second)) << 16;
    }
    static uint32_t word(bf16 first, bf16 second) { return first | uint32_t(second) << 16; }
    static float sum(uint32_t word) { return of_bits(word << 16) + of_bits(word & 0xffff0000u); }
};

// Narrow words in tiles: two by two of them are the sums of 32 rows and 32 columns.
template <class Tiles> struct Tiled : Narrow {
    static constexpr int64_t DEEP = SIDE, PANEL = 2 * SIDE, COLUMNS = 2 * SIDE;
};

// One tile: TILE rows of a times one panel of b; sums is (TILE, WIDE * LANES).
//
// Row m of a begins at at[m], and its words are STEP apart.
template <class Format, int WIDE, int STEP>
__attribute__((noinline)) void tile(const typename Format::Word *const *rows,
                                    const typename Format::Word *b, int64_t K, float *sums) {
    using Vector = typename Format::Vector;
    constexpr int REGISTERS = WIDE * LANES / WHOLE;
    const typename Format::Word *at[TILE];
    for (int m = 0; m < TILE; m++) at[m] = rows[m];
    Register c[TILE][REGISTERS] = {};
    for (int64_t k = 0; k < K; k++, b += REGISTERS * WHOLE) {
        Vector column[REGISTERS];
#pragma GCC unroll 8
        for (int w = 0; w < REGISTERS; w++)
            column[w] = *reinterpret_cast<const Vector *>(b + w * WHOLE);
#pragma GCC unroll 8
        for (int m = 0; m < TILE; m++) {
            const Vector a = Format::spread(at[m][k * STEP]);
#pragma GCC unroll 8
            for (int w = 0; w < REGISTERS; w++) Format::add(c[m][w], a, column[w]);
        }
    }
    // Unrolled like the sum: c stays in registers only if every index is known.
#pragma GCC unroll 8
    for (int m = 0; m < TILE; m++)
#pragma GCC unroll 8
        for (int w = 0; w < REGISTERS; w++) whole(sums + (m * REGISTERS + w) * WHOLE) = c[m][w];
}

// The sums (32, 32) of up to 32 rows of a and one panel of b, over K words, a multiple of 16.
//
// Rows of a are `step` words apart and `upper` has the first 16; their next 16 words are `further`
// words on. BOTH: there are more than 16, and `lower` has them.
template <class Tiles, bool BOTH>
__attribute__((noinline)) void tile_block(const uint32_t *upper, const uint32_t *lower,
                                          int64_t step, int64_t further, const uint32_t *b,
                                          int64_t K, float *sums) {
    constexpr int64_t columns = 2 * SIDE, row_bytes = 4 * columns;
    Tiles::template zero<0>(), Tiles::template zero<1>();
    if (BOTH) Tiles::template zero<2>(), Tiles::template zero<3>();
    for (int64_t k = 0; k < K; k += SIDE, b += SIDE * columns, upper += further) {
        Tiles::template load<6>(b, row_bytes);
        Tiles::template load<4>(upper, 4 * step);
        Tiles::template multiply<0, 4, 6>();
        Tiles::template load<7>(b + SIDE, row_bytes);
        Tiles::template multiply<1, 4, 7>();
        if (BOTH) {
            Tiles::template load<5>(lower, 4 * step);
            Tiles::template multiply<2, 5, 6>();
            Tiles::template multiply<3, 5, 7>();
            lower += further;
        }
    }
    Tiles::template store<0>(sums, row_bytes), Tiles::template store<1>(sums + SIDE, row_bytes);
    if (!BOTH) return;
    sums += SIDE * columns;
    Tiles::template store<2>(sums, row_bytes), Tiles::template store<3>(sums + SIDE, row_bytes);
}

// Calls body(std::integral_constant<int, WIDE>, first column) for each panel of N columns.
template <class Format, class Body> inline void by_panel(int64_t N, Body body) {
    constexpr int widest = Format::PANEL / LANES;
    for (int64_t first = 0; first < N; first += Format::PANEL) {
        const int64_t wide = std::min(Format::PANEL, up(N - first, Format::COLUMNS)) / LANES;
        if (wide == 1) body(std::integral_constant<int, 1>(), first);
        else if (wide == 2) body(std::integral_constant<int, std::min(2, widest)>(), first);
        else body(std::integral_constant<int, widest>(), first);
    }
}

// Where the word (k, 0) of the panel that begins with column `first` lies in b (K, N).
template <class Format> inline int64_t in_panel(int64_t first, int64_t k, int64_t K, int64_t N) {
    return first * K + k * std::min(Format::PANEL, up(N - first, Format::COLUMNS));
}

// What becomes of a tile's sums: c + bias, its ReLU, or zero where gate <= 0, `scale` times; zero where
// what was drawn is less than `least`; as float or bf16.
struct Target {
    void *to;                     // (M, step)
    bool narrow;
    int64_t step, width;          // numbers a row, and how many of them are written
    const float *bias = nullptr;  // (up(width, LANES))
    bool relu = false;
    const void *gate = nullptr;  // (M, gate_step)
    bool gate_narrow = false;
    int64_t gate_step = 0;
    float scale = 1;
    const int16_t *drawn = nullptr;  // (M, drawn_step), and 2 * LANES more
    int64_t drawn_step = 0;
    int32_t least = 0;

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
        sums *= scale;
        if (drawn) {
            const auto numbers = *reinterpret_cast<const Draws *>(drawn + row * drawn_step + column);
            sums = __builtin_convertvector(numbers, Pick16) >= least ? sums : zero;
        }
        const int64_t at = row * step + column;
        if (column + LANES > width)
            store_row(reinterpret_cast<const float *>(&sums), to, at, narrow, width - column);
        else if (narrow)
            store_factors(sums, static_cast<bf16 *>(to) + at);
        else
            lanes(static_cast<float *>(to) + at) = sums;
    }
    // Numbers past the columns of a product, up to a whole word or tile of the next one.
    void clear(int64_t row, int64_t column) const {
        if (column >= width) return;
        const int64_t size = narrow ? 2 : 4;
        std::memset(static_cast<char *>(to) + (row * step + column) * size, 0,
                    (width - column) * size);
    }
};

// target = a b, for a (M, K) by rows and b (K, N) in panels.
template <class Format>
void multiply(Format, const typename Format::Word *a, int64_t step, int64_t M,
              const typename Format::Word *b, int64_t K, int64_t N, const Target &target) {
    by_panel<Format>(N, [&](auto wide, int64_t first) {
        float sums[TILE * Format::PANEL];
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
    for (int64_t m = 0; m < M; m++) target.clear(m, up(N, LANES));
}

template <class Tiles>
void multiply(Tiled<Tiles>, const uint32_t *a, int64_t step, int64_t M, const uint32_t *b,
              int64_t K, int64_t N, const Target &target) {
    constexpr int64_t together = 2 * SIDE;
    alignas(64) float sums[together * together];
    // Rows of the end have tiles of their own, so that they come after all others.
    for (int64_t begin = 0, end = M / together * together; begin < M; begin = end, end = M) {
        if (begin == end) continue;
        Configured<Tiles>::rows(std::min(end - begin, together));
        for (int64_t first = 0; first < N; first += together)
            for (int64_t m = begin; m < end; m += together) {
                const uint32_t *upper = a + m * step, *lower = upper + SIDE * step;
                const int64_t rows = std::min(end - m, together);
                if (rows > SIDE)
                    tile_block<Tiles, true>(upper, lower, step, SIDE, b + first * K, K, sums);
                else
                    tile_block<Tiles, false>(upper, upper, step, SIDE, b + first * K, K, sums);
                for (int64_t r = 0; r < rows; r++)
                    for (int64_t w = 0; w < together; w += LANES)
                        target.put(m + r, first + w, lanes(sums + r * together + w));
            }
    }
}

} // namespace
