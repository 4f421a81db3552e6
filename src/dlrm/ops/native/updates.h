// Optimizer steps on the rows that were looked up, from (row, gradient) pairs with duplicates.
//
// Each row belongs to the owner that its hash names, of as many as the number of gradients says. An
// owner is a chunk of work, and takes the gradients of a row in the order of the batch. So nothing
// races, the result is the same bits for any number of threads, and one table that dominates is
// shared out like many.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "numbers.h"
#include "pool.h"

namespace {

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

// A gradient waiting for its row.
struct Item {
    uint64_t row;
    uint32_t at;
};

struct Update {
    const int64_t *rows; // (L,)
    const float *grad;   // (L, D)
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

// Buffers only grow: they stay with their thread for the next batch.
template <class T> inline void reserve(std::vector<T> &buffer, int64_t n) {
    if (int64_t(buffer.size()) < n) buffer.resize(n);
}

// Sorts n items by row and keeps the order of the batch within a row.
inline void sort_rows(std::vector<Item> &items, std::vector<Item> &scratch, int64_t n) {
    if (n < 256) {
        std::sort(items.begin(), items.begin() + n, [](const Item &a, const Item &b) {
            return a.row != b.row ? a.row < b.row : a.at < b.at;
        });
        return;
    }
    uint64_t any = 0;
    for (int64_t i = 0; i < n; i++) any |= items[i].row;
    reserve(scratch, int64_t(items.size()));
    // Of few items, counts of many digits would cost more than another pass.
    const int bits = n < 8192 ? 8 : 11;
    const uint64_t mask = (1 << bits) - 1;
    for (int shift = 0; shift < 64 && (any >> shift); shift += bits) {
        uint32_t start[(1 << 11) + 1];
        std::fill(start, start + mask + 2, 0);
        for (int64_t i = 0; i < n; i++) start[((items[i].row >> shift) & mask) + 1]++;
        for (size_t i = 0; i < mask; i++) start[i + 1] += start[i];
        for (int64_t i = 0; i < n; i++)
            scratch[start[(items[i].row >> shift) & mask]++] = items[i];
        items.swap(scratch);
    }
}

// Which of 2^bits owners a row has: those that share a cache line have the same, the rest is spread.
struct Owners {
    int bits = 0, shift = 0;
    int64_t range = 0; // rows that follow each other and have one owner, where every row steps

    int of(int64_t row) const {
        if (range) return int(row / range);
        return bits ? int(uint32_t(uint64_t(row) >> shift) * 2654435761u >> (32 - bits)) : 0;
    }
};

// The gradients of a batch by owner, those of each in the order of the batch.
struct Dealt {
    static constexpr int MOST = 64;        // owners
    static constexpr int64_t PIECE = 2048; // gradients that are dealt together
    int owners = 1;
    Owners by;
    std::vector<uint32_t> at;   // (L,) which gradient
    std::vector<int64_t> first; // (owners + 1,) where those of an owner begin in it
    std::vector<uint8_t> of;    // (L,) the owner of each
    std::vector<uint32_t> next; // (pieces, owners) how many; then where the next goes

    void deal(const Update &u) {
        const int64_t L = u.L, pieces = (L + PIECE - 1) / PIECE;
        reserve(at, L);
        by.bits = 0;
        if (u.threads > 1 && (L + u.every) * u.dim > SMALL)
            for (by.bits = 2; (1 << by.bits) < MOST && PIECE << by.bits < L + u.every;) by.bits++;
        owners = 1 << by.bits;
        by.shift = line_shift(u.dim);
        by.range = ((u.every + owners - 1) / owners + (1 << by.shift) - 1) >> by.shift << by.shift;
        first.assign(owners + 1, 0);
        first[owners] = L;
        if (owners == 1) {
            for (int64_t l = 0; l < L; l++) at[l] = uint32_t(l);
            return;
        }
        reserve(of, L);
        next.assign(pieces * owners, 0);
        each_chunk(pieces, L, u.threads, [&, this](int64_t piece) {
            uint32_t *counts = next.data() + piece * owners;
            const int64_t end = std::min(L, (piece + 1) * PIECE);
            const int64_t *__restrict rows = u.rows;
            uint8_t *__restrict to = of.data();
            const Owners owners_of = by;
            for (int64_t l = piece * PIECE; l < end; l++) to[l] = uint8_t(owners_of.of(rows[l]));
            for (int64_t l = piece * PIECE; l < end; l++) counts[to[l]]++;
        });
        int64_t begun = 0;
        for (int o = 0; o < owners; o++) {
            first[o] = begun;
            for (int64_t piece = 0; piece < pieces; piece++) {
                const uint32_t count = next[piece * owners + o];
                next[piece * owners + o] = uint32_t(begun);
                begun += count;
            }
        }
        each_chunk(pieces, L, u.threads, [&, this](int64_t piece) {
            uint32_t *__restrict to = next.data() + piece * owners, *__restrict out = at.data();
            const uint8_t *__restrict mine = of.data();
            const int64_t end = std::min(L, (piece + 1) * PIECE);
            for (int64_t l = piece * PIECE; l < end; l++) out[to[mine[l]]++] = uint32_t(l);
        });
    }
};

// Calls step(row, gradient) once per distinct row, with the sum over its duplicates and l2 * w.
template <int D, class Table, class Fetch, class Step>
void each_row(const Update &u, const Table &table, const Fetch &fetch, const Step &step) {
    static thread_local Dealt dealt;
    dealt.deal(u);
    each_chunk(dealt.owners, (u.L + u.every) * u.dim, u.threads, [&, all = &dealt](int64_t me) {
        const int64_t d = D ? D : u.dim, soon = ahead(d * sizeof(float));
        const int64_t n = all->first[me + 1] - all->first[me];
        static thread_local std::vector<Item> items, scratch;
        reserve(items, n + 1);
        for (int64_t l = 0; l < n; l++) {
            const uint32_t at = all->at[all->first[me] + l];
            items[l] = {uint64_t(u.rows[at]), at};
        }
        sort_rows(items, scratch, n);
        std::vector<float> open(D ? 0 : d);
        float fixed[D ? D : 1];
        float *__restrict sum = D ? fixed : open.data();
        int64_t i = 0;
        const auto next = [&](uint64_t row) {
            EACH_NUMBER for (int64_t k = 0; k < d; k++) sum[k] = 0;
            for (; i < n && items[i].row == row; i++) {
                if (i + soon < n) {
                    fetch(int64_t(items[i + soon].row));
                    prefetch_row(u.grad + items[i + soon].at * d, d);
                }
                const float *__restrict g = u.grad + items[i].at * d;
                EACH_NUMBER for (int64_t k = 0; k < d; k++) sum[k] += g[k];
            }
            if (u.l2 != 0)
                EACH_NUMBER for (int64_t k = 0; k < d; k++)
                    sum[k] += u.l2 * table.get(int64_t(row) * d + k);
            step(int64_t(row), sum);
        };
        if (u.every) {
            const int64_t end = std::min(u.every, (me + 1) * all->by.range);
            for (int64_t row = me * all->by.range; row < end; row++) next(uint64_t(row));
        } else {
            while (i < n) next(items[i].row);
        }
    });
}

// Calls step(row, gradient) once per duplicate, without sorting.
template <int D, class Fetch, class Step>
void each_gradient(const Update &u, const Fetch &fetch, const Step &step) {
    static thread_local Dealt dealt;
    dealt.deal(u);
    each_chunk(dealt.owners, u.L * u.dim, u.threads, [&, all = &dealt](int64_t me) {
        const int64_t d = D ? D : u.dim, soon = ahead(d * sizeof(float));
        const uint32_t *at = all->at.data();
        for (int64_t i = all->first[me], n = all->first[me + 1]; i < n; i++) {
            // Past its own too: the next owner is mostly the same thread's.
            if (i + soon < u.L) {
                fetch(u.rows[at[i + soon]]);
                prefetch_row(u.grad + at[i + soon] * d, d);
            }
            step(u.rows[at[i]], u.grad + at[i] * d);
        }
    });
}

// w -= lr * g
template <int D, class Table> void sgd(const Update &u, const Table &table) {
    const int64_t d = D ? D : u.dim;
    const auto fetch = [&](int64_t row) INLINED { table.prefetch(row, d); };
    const auto step = [&](int64_t row, const float *__restrict g) {
        const int64_t at = row * d;
        const uint32_t noise = table.noise(row);
        EACH_NUMBER for (int64_t k = 0; k < d; k++)
            table.set(at + k, table.get(at + k) - u.lr * g[k], noise + uint32_t(k));
    };
    // Rows that keep every bit lose nothing by being written once per duplicate; l2 * w counts once.
    if (Table::exact && u.l2 == 0)
        each_gradient<D>(u, fetch, step);
    else
        each_row<D>(u, table, fetch, step);
}

// s += g^2; w -= lr * g / (sqrt(s) + eps)
template <int D, class Table>
void adagrad(const Update &u, const Table &table, float *state, float eps) {
    const int64_t d = D ? D : u.dim;
    const auto fetch = [&](int64_t row) INLINED {
        table.prefetch(row, d);
        prefetch_row(state + row * d, d);
    };
    each_row<D>(u, table, fetch, [&](int64_t row, const float *__restrict g) {
        const int64_t at = row * d;
        const uint32_t noise = table.noise(row);
        EACH_NUMBER for (int64_t k = 0; k < d; k++) {
            const float s = state[at + k] + g[k] * g[k];
            state[at + k] = s;
            table.set(at + k, table.get(at + k) - u.lr * (g[k] / (std::sqrt(s) + eps)),
                      noise + uint32_t(k));
        }
    });
}

// s += mean(g^2); w -= lr * g / (sqrt(s) + eps)
template <int D, class Table>
void rowwise_adagrad(const Update &u, const Table &table, float *state, float eps) {
    const int64_t d = D ? D : u.dim;
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
        EACH_NUMBER for (int64_t k = 0; k < d; k++)
            table.set(at + k, table.get(at + k) - u.lr * (g[k] * scale), noise + uint32_t(k));
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
    const auto fetch = [&](int64_t row) INLINED {
        table.prefetch(row, d);
        prefetch_row(mo.both + row * 2 * d, 2 * d);
    };
    each_row<D>(u, table, fetch, [&](int64_t row, const float *__restrict g) {
        float *__restrict first = mo.both + row * 2 * d, *__restrict second = first + d;
        const int64_t at = row * d;
        const uint32_t noise = table.noise(row);
        EACH_NUMBER for (int64_t k = 0; k < d; k++) {
            const float m = first[k] + mo.rest1 * (g[k] - first[k]);
            const float v = second[k] + mo.rest2 * (g[k] * g[k] - second[k]);
            first[k] = m;
            second[k] = v;
            table.set(at + k, table.get(at + k) - u.lr * (m / (std::sqrt(v) + mo.eps)),
                      noise + uint32_t(k));
        }
    });
}

} // namespace
