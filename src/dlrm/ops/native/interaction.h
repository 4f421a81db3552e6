// Dot products of all pairs of vectors, and their gradients, without the full matrix.
#pragma once

#include <algorithm>
#include <vector>

#include "numbers.h"

namespace {

// Sixteen floats; compilers lower it to whatever the instruction set has.
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));

inline int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

struct Shape {
    int64_t B, T, d;
    bool self, x_narrow, e_narrow;
    int64_t F() const { return T + 1; }
    int64_t pairs() const { return F() * (F() - 1) / 2 + (self ? F() : 0); }
    int64_t width() const { return d + pairs(); }
};

// out[b] = [x, v_i . v_j for j < i (j <= i with self)], v = (x, e_1 ... e_T).
//
// Four rows i times sixteen columns j stay in registers over the whole sum; for that the columns
// lie side by side in t, the transpose of v.
inline void dot_forward(const Shape &shape, const void *x, const void *e, void *out,
                        int threads) {
    const int64_t d = shape.d, F = shape.F(), tall = up(F, 4), wide = up(F, 16);
#pragma omp parallel num_threads(team(shape.B *F *d, threads))
    {
        static thread_local std::vector<float> memory;
        memory.assign(tall * d + d * wide + tall * wide + shape.pairs(), 0.0f);
        float *v = memory.data(), *t = v + tall * d, *p = t + d * wide, *flat = p + tall * wide;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < shape.B; b++) {
            load_row(x, b * d, shape.x_narrow, d, v);
            load_row(e, b * shape.T * d, shape.e_narrow, shape.T * d, v + d);
            for (int64_t i = 0; i < F; i++)
                for (int64_t k = 0; k < d; k++) t[k * wide + i] = v[i * d + k];
            for (int64_t i = 0; i < F; i += 4) {
                for (int64_t j = 0; j < std::min(i + 4, F); j += 16) {
                    const float *a = v + i * d, *c = t + j;
                    Lanes s0 = {}, s1 = {}, s2 = {}, s3 = {};
                    for (int64_t k = 0; k < d; k++) {
                        const Lanes column = *reinterpret_cast<const Lanes *>(c + k * wide);
                        s0 += a[k] * column;
                        s1 += a[d + k] * column;
                        s2 += a[2 * d + k] * column;
                        s3 += a[3 * d + k] * column;
                    }
                    float *to = p + i * wide + j;
                    *reinterpret_cast<Lanes *>(to) = s0;
                    *reinterpret_cast<Lanes *>(to + wide) = s1;
                    *reinterpret_cast<Lanes *>(to + 2 * wide) = s2;
                    *reinterpret_cast<Lanes *>(to + 3 * wide) = s3;
                }
            }
            float *to = flat;
            for (int64_t i = shape.self ? 0 : 1; i < F; i++) {
                const int64_t n = i + (shape.self ? 1 : 0);
                std::memcpy(to, p + i * wide, n * sizeof(float));
                to += n;
            }
            store_row(v, out, b * shape.width(), shape.x_narrow, d);
            store_row(flat, out, b * shape.width() + d, shape.x_narrow, shape.pairs());
        }
    }
}

// With S symmetric, S[i][j] the gradient of the pair (i, j), and twice that of (i, i):
// dv_i = sum_j S[i][j] v_j; dx also takes the gradient of its copy. The gradient has x's type.
inline void dot_backward(const Shape &shape, const void *x, const void *e, const void *grad,
                         void *dx, void *de, int threads) {
    const int64_t d = shape.d, F = shape.F(), tall = up(F, 4), deep = up(d, 16);
#pragma omp parallel num_threads(team(shape.B *F *d, threads))
    {
        static thread_local std::vector<float> memory;
        memory.assign(2 * tall * deep + tall * tall + shape.width(), 0.0f);
        float *v = memory.data(), *dv = v + tall * deep, *s = dv + tall * deep;
        float *g = s + tall * tall;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < shape.B; b++) {
            load_row(x, b * d, shape.x_narrow, d, v);
            if (d == deep)
                load_row(e, b * shape.T * d, shape.e_narrow, shape.T * d, v + d);
            else
                for (int64_t t = 0; t < shape.T; t++)
                    load_row(e, (b * shape.T + t) * d, shape.e_narrow, d, v + (t + 1) * deep);
            load_row(grad, b * shape.width(), shape.x_narrow, shape.width(), g);
            const float *pair = g + d;
            for (int64_t i = 0; i < F; i++) {
                for (int64_t j = 0; j < i; j++) s[i * tall + j] = s[j * tall + i] = *pair++;
                if (shape.self) s[i * tall + i] = 2 * *pair++;
            }
            for (int64_t i = 0; i < F; i += 4) {
                for (int64_t k = 0; k < deep; k += 16) {
                    const float *a = s + i * tall;
                    Lanes s0 = {}, s1 = {}, s2 = {}, s3 = {};
                    for (int64_t j = 0; j < F; j++) {
                        const Lanes vector = *reinterpret_cast<const Lanes *>(v + j * deep + k);
                        s0 += a[j] * vector;
                        s1 += a[tall + j] * vector;
                        s2 += a[2 * tall + j] * vector;
                        s3 += a[3 * tall + j] * vector;
                    }
                    float *to = dv + i * deep + k;
                    *reinterpret_cast<Lanes *>(to) = s0;
                    *reinterpret_cast<Lanes *>(to + deep) = s1;
                    *reinterpret_cast<Lanes *>(to + 2 * deep) = s2;
                    *reinterpret_cast<Lanes *>(to + 3 * deep) = s3;
                }
            }
            for (int64_t k = 0; k < d; k++) dv[k] += g[k];
            store_row(dv, dx, b * d, shape.x_narrow, d);
            if (d == deep)
                store_row(dv + d, de, b * shape.T * d, shape.e_narrow, shape.T * d);
            else
                for (int64_t t = 0; t < shape.T; t++)
                    store_row(dv + (t + 1) * deep, de, (b * shape.T + t) * d, shape.e_narrow, d);
        }
    }
}

} // namespace
