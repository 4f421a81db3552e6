// What an MLP's backward pass needs besides matrix products.
#pragma once

#include <algorithm>

#include "numbers.h"

namespace {

// out = grad where y > 0 (y null: everywhere); bias[k] = sum over b of out[b][k], in float.
// Threads share columns out, so the sums are the same bits for any number of them.
void mask_and_sum(const void *grad, const void *y, bool narrow, int64_t B, int64_t K, void *out,
                  float *bias, int threads) {
    constexpr int64_t WIDE = 64;
    const int64_t blocks = (K + WIDE - 1) / WIDE;
#pragma omp parallel for num_threads(team(B * K, threads)) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t first = block * WIDE, width = std::min(WIDE, K - first);
        float sum[WIDE] = {}, g[WIDE] = {}, h[WIDE] = {};
        for (int64_t b = 0; b < B; b++) {
            const int64_t at = b * K + first;
            load_row(grad, at, narrow, width, g);
            if (y) {
                load_row(y, at, narrow, width, h);
                for (int64_t k = 0; k < WIDE; k++) g[k] = h[k] > 0 ? g[k] : 0.0f;
            }
            for (int64_t k = 0; k < WIDE; k++) sum[k] += g[k];
            store_row(g, out, at, narrow, width);
        }
        std::copy(sum, sum + width, bias + first);
    }
}

} // namespace
