// Binary cross-entropy of logits, and its gradient.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "pool.h"

namespace {

// Returns the mean over n logits z and labels y of max(z, 0) - z y + log(1 + exp(-|z|)), finite for
// any finite z; grad = (sigmoid(z) - y) / n. Sums are in double, by chunks of fixed length.
inline double cross_entropy(const float *z, const float *y, int64_t n, float *grad, int threads) {
    constexpr int64_t CHUNK_OF_LOGITS = 1024;
    std::vector<double> sums((n + CHUNK_OF_LOGITS - 1) / CHUNK_OF_LOGITS);
    // Exponential and logarithm count as some ten numbers.
    each_chunk(int64_t(sums.size()), 10 * n, threads, [&](int64_t chunk) {
        double sum = 0;
        const int64_t end = std::min(n, (chunk + 1) * CHUNK_OF_LOGITS);
        for (int64_t i = chunk * CHUNK_OF_LOGITS; i < end; i++) {
            const float e = std::exp(-std::fabs(z[i]));  // of (0, 1]
            const float p = (z[i] < 0 ? e : 1.0f) / (1.0f + e);
            sum += double((z[i] < 0 ? 0.0f : z[i]) - z[i] * y[i] + std::log1p(e));
            grad[i] = (p - y[i]) / float(n);
        }
        sums[chunk] = sum;
    });
    double sum = 0;
    for (const double part : sums) sum += part;
    return sum / double(n);
}

} // namespace
