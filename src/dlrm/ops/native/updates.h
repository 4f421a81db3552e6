// Optimizer steps on the rows that were looked up, from (row, gradient) pairs with duplicates.
//
// Each row belongs to the owner that its hash names, as many of whom there are as threads. An owner
// is a chunk of work: it picks its lookups out of all of them, and takes the gradients of a row in the
// order of the batch. So nothing races, the result is the same bits for any number of threads, and one
// table that dominates is shared out like many.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "numbers.h"
#include "pool.h"

#ifdef __AVX512DQ__
#include <immintrin.h>
#endif

namespace {

constexpr int64_t EIGHT = 8;
typedef uint64_t Eight __attribute__((vector_size(64), aligned(8), may_alias));

// Tables as an update sees them: float rows, whatever is stored.

struct Float {
    static constexpr bool exact = true;
    float *weight;
    float get(int64_t at) const { return weight[at]; }
    void set(int64_t at, float x, uint32_t) const { weight[at] = x; }
    uint32_t noise(int64_t) const { return 0; }
    INLINED void prefetch(int64_t row, int64_t d) const { prefetch_row(weight + row * d, d); }
};

// Rounded up or down at random; the noise depends on the seed, the row and the column alone.
struct Bf16 {
    static constexpr bool exact = false;
    bf16 *weight;
    uint32_t seed;
    float get(int64_t at) const { return widen(weight[at]); }
    void set(int64_t at, float x, uint32_t noise) const { weight[at] = stochastic(x, mix(noise)); }
    uint32_t noise(int64_t row) const {
        return mix(uint32_t(row) ^ mix(uint32_t(uint64_t(row) >> 32) ^ seed));
    }
    INLINED void prefetch(int64_t row, int64_t d) const { prefetch_row(weight + row * d, d); }
};

// Rounded to the nearest, which loses steps of less than half the last bit.
struct Nearest {
    static constexpr bool exact = false;
    bf16 *weight;
    float get(int64_t at) const { return widen(weight[at]); }
    void set(int64_t at, float x, uint32_t) const { weight[at] = nearest(x); }
    uint32_t noise(int64_t) const { return 0; }
    INLINED void prefetch(int64_t row, int64_t d) const { prefetch_row(weight + row * d, d); }
};

// The upper and lower half of a float in two arrays; lookups read the upper alone.
struct Split {
    static constexpr bool exact = true;
    bf16 *upper;
    uint16_t *lower;
    float get(int64_t at) const { return of_bits(uint32_t(upper[at]) << 16 | lower[at]); }
    void set(int64_t at, float x, uint32_t) const {
        const uint32_t bits = bits_of(x);
        upper[at] = bf16(bits >> 16);
        lower[at] = uint16_t(bits);
    }
    uint32_t noise(int64_t) const { return 0; }
    INLINED void prefetch(int64_t row, int64_t d) const {
        prefetch_row(upper + row * d, d);
        prefetch_row(lower + row * d, d);
    }
};

struct Update {
    const int64_t *rows; // (L,)
    const float *grad;   // (L, D), or with bags (G, D)
    const int32_t *bags; // (L,) which gradient belongs to which row; null where each has its own
    const float *scale;  // (L,) its factor; null for 1
    int64_t L, dim;
    float lr;
    int threads;
    float l2;      // each gradient gains l2 * w
    int64_t every; // R to step every row, looked up or not; 0 for those looked up
};

inline int line_shift(int64_t dim) {
    int shift = 0;
    while ((dim << shift) < 32) shift++; // 32 bf16 numbers fill a line
    return shift;
}

// How many rows are fetched before they are needed: fewer than of a lookup, because they are written
// back; where each brings a gradient of its own, those count as well.
inline int64_t near(int64_t dim, bool apart) {
    return std::max<int64_t>(8, std::min<int64_t>(apart ? 32 : 64, (8 << 10) / (dim * 4)));
}

// Buffers only grow: they stay with their thread for the next batch.
template <class T> inline void reserve(std::vector<T> &buffer, int64_t n) {
    if (int64_t(buffer.size()) < n) buffer.resize(n);
}

// The gradient of the lookup at a place in the batch, and its factor. `apart` says that each lookup
// has a gradient of its own and no factor: short rows notice what is asked for each of them.
inline const float *grad_at(const Update &u, int64_t place, int64_t d, bool apart) {
    return u.grad + (apart || !u.bags ? place : u.bags[place]) * d;
}
inline float scale_at(const Update &u, int64_t place, bool apart) {
    return apart || !u.scale ? 1.0f : u.scale[place];
}

// Lookups of one owner, a number for each: its row, and in the lower bits its place in the batch. Sorted,
// those of a row keep the order of the batch.
class Lookups {
  public:
    Lookups(const Update &u, int64_t owner, int64_t owners, int64_t range)
        : u(u), bits(64 - __builtin_clzll(uint64_t(u.L) | 1)) {
        static thread_local std::vector<uint64_t> buffer;
        reserve(buffer, u.L + EIGHT);
        all = buffer.data();
        const int shift = line_shift(u.dim);
        if (owners == 1)
            take([](auto row) { return row == row; });
        else if (range)
            take([first = uint64_t(owner * range), range = uint64_t(range)](auto row) {
                return row - first < range;
            });
        else {
            const uint64_t first = (uint64_t(owner) << 32) / uint64_t(owners);
            const uint64_t end = (uint64_t(owner + 1) << 32) / uint64_t(owners);
            take([=, most = end - first - 1](auto row) {
                return (((row >> shift) * uint64_t(2654435761) - first) & 0xffffffff) <= most;
            });
        }
    }

    int64_t size() const { return count; }
    int64_t row(int64_t i) const { return int64_t(all[i] >> bits); }
    int64_t place(int64_t i) const { return int64_t(all[i] & ((uint64_t(1) << bits) - 1)); }

    // By row (radix, stable), in as few passes as counters that fit into the nearest cache allow.
    void sort() {
        const int64_t n = count;
        uint64_t *from = all;
        if (n < 256) return std::sort(from, from + n);
        uint64_t any = 0;
        for (int64_t i = 0; i < n; i++) any |= from[i];
        const int end = 64 - __builtin_clzll(any | 1), passes = (end - bits + 10) / 11;
        if (!passes) return;
        static thread_local std::vector<uint64_t> scratch;
        reserve(scratch, u.L);
        uint64_t *to = scratch.data();
        const int step = (end - bits + passes - 1) / passes;
        const uint64_t mask = (uint64_t(1) << step) - 1;
        for (int shift = bits; shift < end; shift += step) {
            uint32_t start[(1 << 11) + 1];
            std::fill(start, start + mask + 2, 0);
            for (int64_t i = 0; i < n; i++) start[((from[i] >> shift) & mask) + 1]++;
            for (uint64_t i = 0; i < mask; i++) start[i + 1] += start[i];
            for (int64_t i = 0; i < n; i++) to[start[(from[i] >> shift) & mask]++] = from[i];
            std::swap(from, to);
        }
        all = from;
    }

  private:
    const Update &u;
    const int bits; // of the place in the batch
    uint64_t *all;
    int64_t count = 0;

    // `mine` says of a row, or of eight in a vector, whether it is the owner's.
    template <class Mine> void take(Mine mine) {
        // A copy of each field: what is written could be one of them, as far as a compiler knows.
        uint64_t *__restrict out = all;
        const int64_t *__restrict rows = u.rows;
        const int64_t L = u.L;
        const int shift = bits;
        int64_t n = 0, l = 0;
#ifdef __AVX512DQ__
        Eight at = {0, 1, 2, 3, 4, 5, 6, 7};
        for (; l + EIGHT <= L; l += EIGHT, at += EIGHT) {
            const Eight row = *reinterpret_cast<const Eight *>(rows + l);
            const __mmask8 chosen = _mm512_movepi64_mask(reinterpret_cast<__m512i>(mine(row)));
            const Eight both = row << shift | at;
            // Not straight to memory, which takes some CPUs ten times as long.
            const __m512i kept =
                _mm512_maskz_compress_epi64(chosen, reinterpret_cast<__m512i>(both));
            _mm512_storeu_si512(out + n, kept);
            n += __builtin_popcount(chosen);
        }
#endif
        for (; l < L; l++) {
            out[n] = uint64_t(rows[l]) << shift | uint64_t(l);
            n += mine(uint64_t(rows[l]));
        }
        count = n;
    }
};

// Calls body(lookups, first row, end) for each owner, with its range of rows where all rows step.
template <class Body> void each_owner(const Update &u, const Body &body) {
    const int64_t work = (u.L + u.every) * u.dim, owners = work > SMALL ? std::max(1, u.threads) : 1;
    const int shift = line_shift(u.dim);
    const int64_t range = ((u.every + owners - 1) / owners + (1 << shift) - 1) >> shift << shift;
    each_chunk(owners, work, u.threads, [&](int64_t owner) {
        Lookups lookups(u, owner, owners, range);
        body(lookups, owner * range, std::min(u.every, (owner + 1) * range));
    });
}

// Calls step(row, gradient) once per distinct row, with the sum over its duplicates and l2 * w.
template <int D, class Table, class Fetch, class Step>
void each_row(const Update &u, const Table &table, const Fetch &fetch, const Step &step) {
    each_owner(u, [&](Lookups &lookups, int64_t first, int64_t end) {
        const int64_t d = D ? D : u.dim, soon = near(d, !u.bags);
        const float l2 = u.l2;
        lookups.sort();
        const int64_t n = lookups.size();
        std::vector<float> open(D ? 0 : d);
        float fixed[D ? D : 1];
        float *__restrict sum = D ? fixed : open.data();
        int64_t i = 0;
        const auto next = [&](int64_t row) INLINED {
            each_number<D>(d, [&](int64_t k) INLINED { sum[k] = 0; });
            for (; i < n && lookups.row(i) == row; i++) {
                if (i + soon < n) {
                    fetch(lookups.row(i + soon));
                    prefetch_row(grad_at(u, lookups.place(i + soon), d, false), d);
                }
                const int64_t place = lookups.place(i);
                const float *__restrict g = grad_at(u, place, d, false);
                const float s = scale_at(u, place, false);
                each_number<D>(d, [&](int64_t k) INLINED { sum[k] += s * g[k]; });
            }
            if (l2 != 0)
                each_number<D>(d, [&](int64_t k) INLINED {
                    sum[k] += l2 * table.get(row * d + k);
                });
            step(row, sum);
        };
        if (u.every)
            for (int64_t row = first; row < end; row++) next(row);
        else
            while (i < n) next(lookups.row(i));
    });
}

// Calls step(row, gradient, its factor) once per duplicate, without sorting. APART is as for `grad_at`.
template <int D, bool APART, class Fetch, class Step>
void each_gradient(const Update &u, const Fetch &fetch, const Step &step) {
    each_owner(u, [&](const Lookups &lookups, int64_t, int64_t) {
        const int64_t d = D ? D : u.dim, soon = near(d, APART), n = lookups.size();
        for (int64_t i = 0; i < n; i++) {
            if (i + soon < n) {
                fetch(lookups.row(i + soon));
                prefetch_row(grad_at(u, lookups.place(i + soon), d, APART), d);
            }
            const int64_t place = lookups.place(i);
            step(lookups.row(i), grad_at(u, place, d, APART), scale_at(u, place, APART));
        }
    });
}

// w -= lr * g
template <int D, class Table> void sgd(const Update &u, const Table &table) {
    const int64_t d = D ? D : u.dim;
    const float lr = u.lr;
    const auto fetch = [&](int64_t row) INLINED { table.prefetch(row, d); };
    const auto step = [&](int64_t row, const float *__restrict g, float s = 1.0f) {
        const int64_t at = row * d;
        const uint32_t noise = table.noise(row);
        each_number<D>(d, [&](int64_t k) INLINED {
            table.set(at + k, table.get(at + k) - lr * (s * g[k]), noise + uint32_t(k));
        });
    };
    // Rows that keep every bit lose nothing by being written once per duplicate; l2 * w counts once.
    if (!Table::exact || u.l2 != 0)
        each_row<D>(u, table, fetch, step);
    else if (u.bags || u.scale)
        each_gradient<D, false>(u, fetch, step);
    else
        each_gradient<D, true>(u, fetch, step);
}

// s += g^2; w -= lr * g / (sqrt(s) + eps)
template <int D, class Table>
void adagrad(const Update &u, const Table &table, float *state, float eps) {
    const int64_t d = D ? D : u.dim;
    const float lr = u.lr;
    const auto fetch = [&](int64_t row) INLINED {
        table.prefetch(row, d);
        prefetch_row(state + row * d, d);
    };
    each_row<D>(u, table, fetch, [&](int64_t row, const float *__restrict g) {
        const int64_t at = row * d;
        const uint32_t noise = table.noise(row);
        each_number<D>(d, [&](int64_t k) INLINED {
            const float s = state[at + k] + g[k] * g[k];
            state[at + k] = s;
            table.set(at + k, table.get(at + k) - lr * (g[k] / (std::sqrt(s) + eps)),
                      noise + uint32_t(k));
        });
    });
}

// s += mean(g^2); w -= lr * g / (sqrt(s) + eps)
template <int D, class Table>
void rowwise_adagrad(const Update &u, const Table &table, float *state, float eps) {
    const int64_t d = D ? D : u.dim;
    const float lr = u.lr;
    const auto fetch = [&](int64_t row) INLINED {
        table.prefetch(row, d);
        __builtin_prefetch(state + row);
    };
    each_row<D>(u, table, fetch, [&](int64_t row, const float *__restrict g) {
        // Sixteen sums: one alone would wait for itself at every addition.
        float squares[16] = {};
        const int64_t whole = d / 16 * 16;
        for (int64_t k = 0; k < whole; k += 16)
            EACH_NUMBER for (int q = 0; q < 16; q++) squares[q] += g[k + q] * g[k + q];
        EACH_NUMBER for (int64_t k = whole; k < d; k++) squares[k - whole] += g[k] * g[k];
        for (int half = 8; half; half /= 2)
            EACH_NUMBER for (int q = 0; q < half; q++) squares[q] += squares[q + half];
        const float s = state[row] + squares[0] / float(d);
        state[row] = s;
        const float scale = 1.0f / (std::sqrt(s) + eps);
        const int64_t at = row * d;
        const uint32_t noise = table.noise(row);
        each_number<D>(d, [&](int64_t k) INLINED {
            table.set(at + k, table.get(at + k) - lr * (g[k] * scale), noise + uint32_t(k));
        });
    });
}

struct Moments {
    float *both; // (R, 2, D): m and v of a row lie side by side, so that a step opens one page
    float rest1, rest2, eps; // 1 - beta, rounded once
};

// m += rest1 (g - m); v += rest2 (g^2 - v); w -= lr * m / (sqrt(v) + eps), where lr and eps
// already hold the correction of the bias.
template <int D, class Table> void adam(const Update &u, const Table &table, const Moments &mo) {
    const int64_t d = D ? D : u.dim;
    const float lr = u.lr;
    const auto fetch = [&](int64_t row) INLINED {
        table.prefetch(row, d);
        prefetch_row(mo.both + row * 2 * d, 2 * d);
    };
    each_row<D>(u, table, fetch, [&](int64_t row, const float *__restrict g) {
        float *__restrict first = mo.both + row * 2 * d, *__restrict second = first + d;
        const int64_t at = row * d;
        const uint32_t noise = table.noise(row);
        each_number<D>(d, [&](int64_t k) INLINED {
            const float m = first[k] + mo.rest1 * (g[k] - first[k]);
            const float v = second[k] + mo.rest2 * (g[k] * g[k] - second[k]);
            first[k] = m;
            second[k] = v;
            table.set(at + k, table.get(at + k) - lr * (m / (std::sqrt(v) + mo.eps)),
                      noise + uint32_t(k));
        });
    });
}

} // namespace
