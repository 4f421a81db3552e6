// Binary cross-entropy of logits, and its gradient.
#pragma once

#include <algorithm>
#include <cmath>

#include "pool.h"
#include "scratch.h"

namespace {

// For some of n logits z and labels y: the losses max(z, 0) - z y + log(1 + exp(-|z|)), finite for any
// finite z, and the gradients (sigmoid(z) - y) / n of their mean.
inline void losses_of(const float *z, const float *y, int64_t count, int64_t n, float *loss,
                      float *grad) {
    for (int64_t i = 0; i < count; i++) {
        const float e = std::exp(-std::fabs(z[i]));  // of (0, 1]
        const float p = (z[i] < 0 ? e : 1.0f) / (1.0f + e);
        loss[i] = (z[i] < 0 ? 0.0f : z[i]) - z[i] * y[i] + std::log1p(e);
        grad[i] = (p - y[i]) / float(n);
    }
}

inline double mean_of(const float *loss, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += double(loss[i]);
    return sum / double(n);
}

inline double cross_entropy(const float *z, const float *y, int64_t n, float *grad, int threads) {
    float *loss = scratch<0>(n * 4).take<float>(n);
    // Exponential and logarithm count as some ten numbers.
    each_piece(n, 10, threads, [&](int64_t begin, int64_t end) {
        losses_of(z + begin, y + begin, end - begin, n, loss + begin, grad + begin);
    });
    return mean_of(loss, n);
}

} // namespace
