// Dot products of all pairs of vectors, and their gradients, without the full matrix.
#pragma once

#include <algorithm>
#include <vector>

#include "numbers.h"
#include "pool.h"
#include "vectors.h"

namespace {

struct Dots {
    int64_t B, T, d;
    bool self, x_narrow, e_narrow;
    int64_t F() const { return T + 1; }
    // Where the pairs (i, 0), (i, 1), ... of row i begin, and how many there are before it.
    int64_t row(int64_t i) const { return i * (self ? i + 1 : i - 1) / 2; }
    int64_t width() const { return d + row(F()); }
};

// The vectors v = (x, e_1 ... e_T) of a sample, `step` floats apart.
inline void load_vectors(const Dots &dots, const void *x, const void *e, int64_t b, int64_t step,
                         float *v) {
    const int64_t d = dots.d, T = dots.T;
    load_row(x, b * d, dots.x_narrow, d, v);
    if (d == step)
        load_row(e, b * T * d, dots.e_narrow, T * d, v + d);
    else
        for (int64_t t = 0; t < T; t++)
            load_row(e, (b * T + t) * d, dots.e_narrow, d, v + (t + 1) * step);
}

inline void store_vectors(const Dots &dots, const float *v, int64_t b, int64_t step, void *x,
                          void *e) {
    const int64_t d = dots.d, T = dots.T;
    store_row(v, x, b * d, dots.x_narrow, d);
    if (d == step)
        store_row(v + d, e, b * T * d, dots.e_narrow, T * d);
    else
        for (int64_t t = 0; t < T; t++)
            store_row(v + (t + 1) * step, e, (b * T + t) * d, dots.e_narrow, d);
}

// out[b] = [x, v_i . v_j for j < i (j <= i with self)] for samples [begin, end).
//
// Four rows i times sixteen columns j stay in registers over the whole sum; for that the columns
// lie side by side in t, the transpose of v.
inline void dot_samples(const Dots &dots, const void *x, const void *e, void *out, int64_t begin,
                        int64_t end) {
    const int64_t d = dots.d, F = dots.F(), tall = up(F, 4), wide = up(F, 16), deep = up(d, 4);
    const int64_t width = dots.width();
    // Zeroed, because nothing is loaded into the padding.
    static thread_local std::vector<float> memory;
    memory.assign(tall * deep + deep * wide + tall * wide + width + 16, 0.0f);
    float *v = memory.data(), *t = v + tall * deep, *p = t + deep * wide;
    float *flat = p + tall * wide;
    for (int64_t b = begin; b < end; b++) {
        load_vectors(dots, x, e, b, deep, v);
        for (int64_t i = 0; i < tall; i += 4)
            for (int64_t k = 0; k < deep; k += 4)
                transpose4(v + i * deep + k, deep, t + k * wide + i, wide);
        for (int64_t i = 0; i < F; i += 4) {
            for (int64_t j = 0; j < std::min(i + 4, F); j += 16) {
                const float *a = v + i * deep, *c = t + j;
                Lanes s0 = {}, s1 = {}, s2 = {}, s3 = {};
                for (int64_t k = 0; k < d; k++) {
                    const Lanes column = lanes(c + k * wide);
                    s0 += a[k] * column;
                    s1 += a[deep + k] * column;
                    s2 += a[2 * deep + k] * column;
                    s3 += a[3 * deep + k] * column;
                }
                float *to = p + i * wide + j;
                lanes(to) = s0;
                lanes(to + wide) = s1;
                lanes(to + 2 * wide) = s2;
                lanes(to + 3 * wide) = s3;
            }
        }
        // Sixteen at a time: what overshoots a row is overwritten by the next.
        std::copy(v, v + d, flat);
        for (int64_t i = 0; i < F; i++)
            for (int64_t j = 0; j < i + (dots.self ? 1 : 0); j += 16)
                lanes(flat + d + dots.row(i) + j) = lanes(p + i * wide + j);
        store_row(flat, out, b * width, dots.x_narrow, width);
    }
}

inline void dot_forward(const Dots &dots, const void *x, const void *e, void *out, int threads) {
    each_piece(dots.B, dots.F() * dots.d, threads, [&](int64_t begin, int64_t end) {
        dot_samples(dots, x, e, out, begin, end);
    });
}

// With S symmetric, S[i][j] the gradient of the pair (i, j), and twice that of (i, i):
// dv_i = sum_j S[i][j] v_j; dx also takes the gradient of its copy. The gradient has x's type.
//
// Four vectors i at a time; S is read where it lies, S[i][j] for j < i and S[j][i] for j > i.
inline void dot_samples_back(const Dots &dots, const void *x, const void *e, const void *grad,
                             void *dx, void *de, int64_t begin, int64_t end) {
    const int64_t d = dots.d, F = dots.F(), tall = up(F, 4), deep = up(d, 16);
    const int64_t width = dots.width();
    static thread_local std::vector<float> memory;
    memory.assign(2 * tall * deep + width, 0.0f);
    float *v = memory.data(), *dv = v + tall * deep, *g = dv + tall * deep;
    const float *pairs = g + d;
    for (int64_t b = begin; b < end; b++) {
        load_vectors(dots, x, e, b, deep, v);
        load_row(grad, b * width, dots.x_narrow, width, g);
        for (int64_t i = 0; i < F; i += 4) {
            const int64_t n = std::min<int64_t>(4, F - i);
            // Rows past the last repeat it; what they give lands in the padding.
            const float *a[4];
            for (int64_t q = 0; q < 4; q++) a[q] = pairs + dots.row(std::min(i + q, F - 1));
            float corner[4][4] = {};
            for (int64_t q = 0; q < n; q++) {
                for (int64_t r = 0; r < q; r++) corner[q][r] = corner[r][q] = a[q][i + r];
                if (dots.self) corner[q][q] = 2 * a[q][i + q];
            }
            for (int64_t k = 0; k < deep; k += 16) {
                const float *c = v + k;
                Lanes s0 = {}, s1 = {}, s2 = {}, s3 = {};
                for (int64_t j = 0; j < i; j++) {
                    const Lanes vector = lanes(c + j * deep);
                    s0 += a[0][j] * vector;
                    s1 += a[1][j] * vector;
                    s2 += a[2][j] * vector;
                    s3 += a[3][j] * vector;
                }
                for (int64_t q = 0; q < n; q++) {
                    const Lanes vector = lanes(c + (i + q) * deep);
                    s0 += corner[0][q] * vector;
                    s1 += corner[1][q] * vector;
                    s2 += corner[2][q] * vector;
                    s3 += corner[3][q] * vector;
                }
                for (int64_t j = i + 4; j < F; j++) {
                    const Lanes vector = lanes(c + j * deep);
                    const float *s = pairs + dots.row(j) + i;
                    s0 += s[0] * vector;
                    s1 += s[1] * vector;
                    s2 += s[2] * vector;
                    s3 += s[3] * vector;
                }
                float *to = dv + i * deep + k;
                lanes(to) = s0;
                lanes(to + deep) = s1;
                lanes(to + 2 * deep) = s2;
                lanes(to + 3 * deep) = s3;
            }
        }
        for (int64_t k = 0; k < d; k++) dv[k] += g[k];
        store_vectors(dots, dv, b, deep, dx, de);
    }
}

inline void dot_backward(const Dots &dots, const void *x, const void *e, const void *grad,
                         void *dx, void *de, int threads) {
    each_piece(dots.B, dots.F() * dots.d, threads, [&](int64_t begin, int64_t end) {
        dot_samples_back(dots, x, e, grad, dx, de, begin, end);
    });
}

} // namespace
