// Optimizer steps on dense parameters: all those of a model in one pass.
//
// Every element is computed by itself, in blocks that do not depend on the number of threads, so
// the result is the same bits for any number of them.
#pragma once

#include <algorithm>
#include <cmath>

#include "numbers.h"
#include "pool.h"

namespace {

// The parameters, their gradients, and what the optimizer keeps of each: a table of words whose
// columns are `count` long. They are: weights, gradients, whether a gradient is bf16, sizes, and
// as many kinds of state as the optimizer keeps.
struct Parameters {
    const int64_t *words;
    int64_t count;

    struct One {
        float *weight;
        const void *grad;
        bool narrow;
        int64_t size;
    };
    One operator[](int64_t p) const {
        return {at<float>(0, p), at<const void>(1, p), words[2 * count + p] != 0, size(p)};
    }
    int64_t size(int64_t p) const { return words[3 * count + p]; }
    float *state(int64_t kind, int64_t p) const { return at<float>(4 + kind, p); }

  private:
    template <class T> T *at(int64_t column, int64_t p) const {
        return reinterpret_cast<T *>(words[column * count + p]);
    }
};

constexpr int64_t BLOCK = 4096; // elements that are taken together, all of one parameter
constexpr int64_t BLOCKS = 4;   // of a chunk

inline int64_t blocks_of(int64_t size) { return (size + BLOCK - 1) / BLOCK; }

template <class Grad, class Step>
inline void step_block(float *__restrict weight, const Grad *__restrict grad, int64_t from,
                       int64_t to, float decay, Step step) {
#pragma GCC ivdep
    for (int64_t i = from; i < to; i++) {
        const float w = weight[i], g = widened(grad[i]);
        // Chosen, not multiplied by 0: an infinite weight would make that no number.
        weight[i] = w - step(i, decay != 0 ? g + decay * w : g);
    }
}

// w -= step(i, g + decay * w) for element i of every parameter p, where step = of(p).
template <class Of>
void each_element(const Parameters &parameters, float decay, int threads, Of of) {
    int64_t total = 0, blocks = 0;
    for (int64_t p = 0; p < parameters.count; p++) {
        total += parameters.size(p);
        blocks += blocks_of(parameters.size(p));
    }
    each_chunk((blocks + BLOCKS - 1) / BLOCKS, total, threads, [&](int64_t chunk) {
        const int64_t begin = chunk * BLOCKS, end = begin + BLOCKS;
        int64_t first = 0; // block of the parameter
        for (int64_t p = 0; p < parameters.count && first < end; p++) {
            const int64_t after = first + blocks_of(parameters.size(p));
            if (after > begin) {
                const auto one = parameters[p];
                const auto step = of(p);
                const int64_t from = (std::max(begin, first) - first) * BLOCK;
                const int64_t to = std::min(one.size, (std::min(end, after) - first) * BLOCK);
                if (one.narrow)
                    step_block(one.weight, static_cast<const bf16 *>(one.grad), from, to, decay,
                               step);
                else
                    step_block(one.weight, static_cast<const float *>(one.grad), from, to, decay,
                               step);
            }
            first = after;
        }
    });
}

// w -= lr * g
inline void dense_sgd_step(const Parameters &parameters, float lr, float decay, int threads) {
    each_element(parameters, decay, threads,
                 [=](int64_t) { return [=](int64_t, float g) { return lr * g; }; });
}

// s += g^2; w -= lr * g / (sqrt(s) + eps)
inline void dense_adagrad_step(const Parameters &parameters, float lr, float decay, int threads,
                               float eps) {
    each_element(parameters, decay, threads, [&](int64_t p) {
        float *__restrict sum = parameters.state(0, p);
        return [=](int64_t i, float g) {
            const float s = sum[i] + g * g;
            sum[i] = s;
            return lr * (g / (std::sqrt(s) + eps));
        };
    });
}

// m += rest1 (g - m); v += rest2 (g^2 - v); w -= lr * m / (sqrt(v) + eps), where lr and eps already
// hold the correction of the bias, and rest is 1 - beta.
inline void dense_adam_step(const Parameters &parameters, float lr, float decay, int threads,
                            float rest1, float rest2, float eps) {
    each_element(parameters, decay, threads, [&](int64_t p) {
        float *__restrict first = parameters.state(0, p), *__restrict second =
                                                             parameters.state(1, p);
        return [=](int64_t i, float g) {
            const float m = first[i] + rest1 * (g - first[i]);
            const float v = second[i] + rest2 * (g * g - second[i]);
            first[i] = m;
            second[i] = v;
            return lr * (m / (std::sqrt(v) + eps));
        };
    });
}

} // namespace
