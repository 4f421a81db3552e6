// Dot products of all pairs of vectors, and their gradients, without the full matrix.
#pragma once

#include <algorithm>

#include "gemm.h"
#include "pool.h"
#include "scratch.h"

namespace {

struct Dots {
    int64_t B, T, d;
    bool self, x_narrow, e_narrow;
    int64_t F() const { return T + 1; }
    // Where the pairs (i, 0), (i, 1), ... of row i begin, and how many there are before it.
    int64_t row(int64_t i) const { return i * (self ? i + 1 : i - 1) / 2; }
    int64_t pairs(int64_t i) const { return self ? i + 1 : i; }
    int64_t width() const { return d + row(F()); }
};

// Vectors that meet all others together: two registers for each, and a few more.
#ifdef __AVX512F__
constexpr int GROUP = 8;
#else
constexpr int GROUP = 4;
#endif
static_assert(LANES % GROUP == 0);

// Copies rows that follow each other in memory to rows `step` floats apart. The first has n numbers, each
// other one `more` more than the one before it, and `left` may be read. Sixteen numbers go at a time:
// beyond the end of a row comes what follows it.
template <class Number>
INLINED inline void load_rows(const Number *from, int64_t rows, int64_t n, int64_t more, int64_t left,
                      float *to, int64_t step) {
    if (n == step && more == 0) n *= rows, rows = 1;
    for (int64_t r = 0; r < rows; r++, from += n, left -= n, n += more, to += step)
        for (int64_t k = 0; k < n; k += LANES)
            if (k + LANES <= left) lanes(to + k) = widened(from + k);
            else for (int64_t at = k; at < left; at++) to[at] = widened(from[at]);
}

// The other way round: what goes beyond the end of a row is overwritten by the next row.
template <class Number>
INLINED inline void store_rows(const float *from, int64_t step, int64_t rows, int64_t n, int64_t more,
                       int64_t left, Number *to) {
    if (n == step && more == 0) n *= rows, rows = 1;
    for (int64_t r = 0; r < rows; r++, to += n, left -= n, n += more, from += step)
        for (int64_t k = 0; k < n; k += LANES)
            if (k + LANES <= left) store_nearest(lanes(from + k), to + k);
            else store_row(from + k, to, k, sizeof(Number) == 2, left - k);
}

// c (ROWS, WIDE * WHOLE) = a^T b for a (K, ROWS) and b (K, WIDE * WHOLE); rows of a and b are `step`
// floats apart, and those of c too.
template <int ROWS, int WIDE>
__attribute__((noinline)) void product(const float *a, const float *b, int64_t K, float *c,
                                       int64_t step) {
    Register sums[ROWS][WIDE] = {};
    for (int64_t k = 0; k < K; k++, a += step, b += step) {
        Whole row[WIDE];
#pragma GCC unroll 8
        for (int w = 0; w < WIDE; w++) row[w] = whole(b + w * WHOLE);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 8
            for (int w = 0; w < WIDE; w++) sums[r][w] += a[r] * row[w];
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++, c += step)
#pragma GCC unroll 8
        for (int w = 0; w < WIDE; w++) whole(c + w * WHOLE) = sums[r][w];
}

// The same for N columns and up to GROUP rows, for all of which c has memory.
inline void products(int64_t rows, int64_t N, const float *a, const float *b, int64_t K, float *c,
                     int64_t step) {
    const bool many = rows > GROUP / 2;
    for (int64_t n = 0; n < N; n += 2 * WHOLE)
        if (n + WHOLE < N)
            (many ? product<GROUP, 2> : product<GROUP / 2, 2>)(a, b + n, K, c + n, step);
        else
            (many ? product<GROUP, 1> : product<GROUP / 2, 1>)(a, b + n, K, c + n, step);
}

// out[b] = [x, v_i . v_j for j < i (j <= i with self)] for samples [begin, end), where
// v = (x, e_1 ... e_T).
//
// The vectors lie side by side in t, the transpose of v, so that a row of pairs is a sum of its rows.
template <class X, class E>
void pairs_of(const Dots dots, const X *x, const E *e, X *out, int64_t begin, int64_t end) {
    const int64_t d = dots.d, T = dots.T, F = T + 1, deep = up(d, LANES), wide = up(F, LANES);
    const int64_t width = dots.width();
    Scratch memory = scratch<1>(4 * wide * (2 * deep + GROUP));
    float *v = memory.take<float>(wide * deep), *t = memory.take<float>(deep * wide);
    float *p = memory.take<float>(GROUP * wide);
    // What lies there may be denormal as floats, which some CPUs are slow to multiply.
    std::fill(v + F * deep, v + wide * deep, 0.0f);
    for (int64_t b = begin; b < end; b++) {
        load_rows(x + b * d, 1, d, 0, d, v, deep);
        load_rows(e + b * T * d, T, d, 0, T * d, v + deep, deep);
        for (int64_t i = 0; i < wide; i += LANES)
            for (int64_t k = 0; k < deep; k += LANES)
                transpose16(v + i * deep + k, deep, t + k * wide + i, wide);
        X *const to = out + b * width;
        store_rows(v, deep, 1, d, 0, width, to);
        for (int64_t i = 0; i < F; i += GROUP) {
            const int64_t rows = std::min<int64_t>(GROUP, F - i), before = d + dots.row(i);
            products(rows, up(dots.pairs(i + rows - 1), LANES), t + i, t, d, p, wide);
            store_rows(p, wide, rows, dots.pairs(i), 1, width - before, to + before);
        }
    }
}

// Calls body(x, e) with a number of x's type and one of e's.
template <class Body> inline void by_types(const Dots &dots, Body body) {
    if (dots.x_narrow) dots.e_narrow ? body(bf16(), bf16()) : body(bf16(), float());
    else dots.e_narrow ? body(float(), bf16()) : body(float(), float());
}

inline void dot_samples(const Dots &dots, const void *x, const void *e, void *out, int64_t begin,
                        int64_t end) {
    by_types(dots, [&](auto x_number, auto e_number) {
        using X = decltype(x_number);
        using E = decltype(e_number);
        pairs_of(dots, static_cast<const X *>(x), static_cast<const E *>(e),
                 static_cast<X *>(out), begin, end);
    });
}

inline void dot_forward(const Dots &dots, const void *x, const void *e, void *out, int threads) {
    each_piece(dots.B, dots.F() * dots.d, threads, [&](int64_t begin, int64_t end) {
        dot_samples(dots, x, e, out, begin, end);
    });
}

// Adds what the pairs of vectors [i, i + ROWS), with each other and with those before, give to dv, whose
// rows are `step` floats apart; rows from i on have no sum before. A gradient that has been read serves
// both vectors of its pair.
template <int ROWS>
__attribute__((noinline)) void spread_pairs(const Dots dots, const float *pairs, int64_t i,
                                            const float *v, float *dv, int64_t step) {
    const float *at[ROWS];
    for (int r = 0; r < ROWS; r++) at[r] = pairs + dots.row(i + r);
    for (int64_t k = 0; k < step; k += WHOLE) {
        const float *other = v + k;
        float *to = dv + k;
        Register own[ROWS], sums[ROWS] = {};
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) own[r] = whole(other + (i + r) * step);
        for (int64_t j = 0; j < i; j++, other += step, to += step) {
            const Whole vector = whole(other);
            Register sum = whole(to);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                sums[r] += at[r][j] * vector;
                sum += at[r][j] * own[r];
            }
            whole(to) = sum;
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 8
            for (int q = 0; q < r; q++) {
                sums[r] += at[r][i + q] * own[q];
                sums[q] += at[r][i + q] * own[r];
            }
            if (dots.self) sums[r] += 2 * at[r][i + r] * own[r];
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++, to += step) whole(to) = sums[r];
    }
}

// n numbers as floats, where they lie or copied.
inline const float *as_floats(const float *from, int64_t, float *) { return from; }
inline const float *as_floats(const bf16 *from, int64_t n, float *to) {
    load_rows(from, 1, n, 0, n, to, n);
    return to;
}

// dv_i = sum_j S[i][j] v_j for the symmetric S of the gradients of pairs, with twice that of (i, i); dx
// also takes the gradient of its copy. The gradient has x's type.
template <class X, class E>
void gradients_of(const Dots dots, const X *x, const E *e, const X *grad, X *dx, E *de,
                  int64_t begin, int64_t end) {
    const int64_t d = dots.d, T = dots.T, F = T + 1, deep = up(d, LANES), width = dots.width();
    Scratch memory = scratch<1>(4 * (2 * F * deep + up(width, LANES)));
    float *v = memory.take<float>(F * deep), *dv = memory.take<float>(F * deep);
    float *copy = memory.take<float>(width);
    if (d < deep) std::fill(v, v + F * deep, 0.0f); // as above
    for (int64_t b = begin; b < end; b++) {
        load_rows(x + b * d, 1, d, 0, d, v, deep);
        load_rows(e + b * T * d, T, d, 0, T * d, v + deep, deep);
        const float *g = as_floats(grad + b * width, width, copy);
        // Few vectors have few before them: what is no whole group comes first.
        int64_t i = 0;
        for (; i < F % GROUP; i++) spread_pairs<1>(dots, g + d, i, v, dv, deep);
        for (; i < F; i += GROUP) spread_pairs<GROUP>(dots, g + d, i, v, dv, deep);
        EACH_NUMBER for (int64_t k = 0; k < d; k++) dv[k] += g[k];
        store_rows(dv, deep, 1, d, 0, d, dx + b * d);
        store_rows(dv + deep, deep, T, d, 0, T * d, de + b * T * d);
    }
}

inline void dot_samples_back(const Dots &dots, const void *x, const void *e, const void *grad,
                             void *dx, void *de, int64_t begin, int64_t end) {
    by_types(dots, [&](auto x_number, auto e_number) {
        using X = decltype(x_number);
        using E = decltype(e_number);
        gradients_of(dots, static_cast<const X *>(x), static_cast<const E *>(e),
                     static_cast<const X *>(grad), static_cast<X *>(dx), static_cast<E *>(de),
                     begin, end);
    });
}

inline void dot_backward(const Dots &dots, const void *x, const void *e, const void *grad,
                         void *dx, void *de, int threads) {
    each_piece(dots.B, dots.F() * dots.d, threads, [&](int64_t begin, int64_t end) {
        dot_samples_back(dots, x, e, grad, dx, de, begin, end);
    });
}

} // namespace
