// What an MLP's backward pass needs besides matrix products.
#pragma once

#include <algorithm>

#include "numbers.h"
#include "pool.h"

namespace {

inline bool positive(float y) { return y > 0; }
// By its bits: above zero, and not above infinity, where what is no number begins.
inline bool positive(bf16 y) { return bf16(y - 1) < 0x7f80; }

// One block of columns; WIDE columns of it when that is not 0, so that loops are unrolled.
template <int WIDE, class T>
void mask_and_sum_columns(const T *grad, const T *y, int64_t B, int64_t K, int64_t columns, T *out,
                          float *bias) {
    const int64_t n = WIDE ? WIDE : columns;
    float sum[64] = {};
    for (int64_t b = 0; b < B; b++, grad += K, out += K) {
        if (y) {
            for (int64_t k = 0; k < n; k++) {
                const T g = positive(y[k]) ? grad[k] : T(0);
                out[k] = g;
                sum[k] += widened(g);
            }
            y += K;
        } else {
            for (int64_t k = 0; k < n; k++) {
                out[k] = grad[k];
                sum[k] += widened(grad[k]);
            }
        }
    }
    std::copy(sum, sum + n, bias);
}

// out = grad where y > 0 (y null: everywhere); bias[k] = sum over b of out[b][k], in float.
// A chunk is some columns, so the sums are the same bits for any number of threads.
template <class T>
void mask_and_sum(const T *grad, const T *y, int64_t B, int64_t K, T *out, float *bias,
                  int threads) {
    const int64_t blocks = (K + 63) / 64;
    each_chunk(blocks, B * K, threads, [&](int64_t block) {
        const int64_t first = block * 64, columns = std::min<int64_t>(64, K - first);
        const T *y_first = y ? y + first : nullptr;
        if (columns == 64)
            mask_and_sum_columns<64>(grad + first, y_first, B, K, columns, out + first,
                                     bias + first);
        else
            mask_and_sum_columns<0>(grad + first, y_first, B, K, columns, out + first,
                                    bias + first);
    });
}

} // namespace
