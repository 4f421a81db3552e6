// Optimizer steps on the rows that were looked up, from (row, gradient) pairs with duplicates.
//
// Each row belongs to the owner that its hash names: of few, because each of them comes across most
// bags, but of more than there are threads. An owner is a chunk of work, and takes the gradients of a
// row in the order of the batch. So nothing races, the result is the same bits for any number of
// threads, and one table that dominates is shared out like many.
#pragma once

#include <algorithm>
#include <atomic>
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
    uint32_t at; // which gradient
    float scale; // its factor
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

    Item item(int64_t l) const {
        return {uint64_t(rows[l]), uint32_t(bags ? bags[l] : l), scale ? scale[l] : 1.0f};
    }
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

// Sorts n items by row and keeps the order of the batch within a row; returns where they are then.
inline Item *sort_rows(Item *items, int64_t n) {
    if (n < 256) {
        std::stable_sort(items, items + n,
                         [](const Item &a, const Item &b) { return a.row < b.row; });
        return items;
    }
    uint64_t any = 0;
    for (int64_t i = 0; i < n; i++) any |= items[i].row;
    static thread_local std::vector<Item> scratch;
    reserve(scratch, n);
    Item *other = scratch.data();
    constexpr int BITS = 11;
    constexpr uint64_t MASK = (1 << BITS) - 1;
    for (int shift = 0; shift < 64 && (any >> shift); shift += BITS) {
        size_t start[(1 << BITS) + 1] = {};
        for (int64_t i = 0; i < n; i++) start[((items[i].row >> shift) & MASK) + 1]++;
        for (size_t i = 0; i < MASK; i++) start[i + 1] += start[i];
        for (int64_t i = 0; i < n; i++) other[start[(items[i].row >> shift) & MASK]++] = items[i];
        std::swap(items, other);
    }
    return items;
}

// The gradients of a batch by owner, those of each in the order of the batch.
//
// Each thread deals for itself: what another has just written is slow to read, and longer than dealing.
struct Dealt {
    static constexpr int MOST = 128; // owners, a power of two
    uint64_t update = 0;             // the update that they are of
    int64_t range = 0;       // rows that follow each other and have one owner, where all rows step
    int64_t first[MOST + 1]; // where those of an owner begin
    std::vector<Item> items; // (L,)
    std::vector<uint8_t> of; // (L,) the owner of each

    static int owners(const Update &u) {
        int count = 1;
        if (u.threads > 1 && (u.L + u.every) * u.dim > SMALL)
            while (count < std::min(MOST, 2 * u.threads)) count *= 2;
        return count;
    }

    void deal(const Update &u, uint64_t number) {
        if (update == number) return;
        update = number;
        const int64_t L = u.L;
        const int count = owners(u), shift = line_shift(u.dim);
        range = ((u.every + count - 1) / count + (1 << shift) - 1) >> shift << shift;
        reserve(items, L);
        first[0] = 0, first[count] = L;
        if (count == 1) {
            for (int64_t l = 0; l < L; l++) items[l] = u.item(l);
            return;
        }
        reserve(of, L);
        uint8_t *__restrict owner = of.data();
        const int64_t *__restrict rows = u.rows;
        const int bits = __builtin_clz(uint32_t(count)) + 1;
        // Rows that share a cache line belong together, the rest is spread.
        if (range)
            for (int64_t l = 0; l < L; l++) owner[l] = uint8_t(rows[l] / range);
        else
            EACH_NUMBER for (int64_t l = 0; l < L; l++)
                owner[l] = uint8_t((uint32_t(uint64_t(rows[l]) >> shift) * 2654435761u) >> bits);
        // Four counts of each: one alone would wait for itself where an owner comes twice.
        uint32_t counts[4][MOST] = {};
        for (int64_t l = 0; l < L; l++) counts[l % 4][owner[l]]++;
        uint32_t next[MOST];
        for (int o = 0; o < count; o++) {
            next[o] = uint32_t(first[o]);
            first[o + 1] = first[o] + counts[0][o] + counts[1][o] + counts[2][o] + counts[3][o];
        }
        Item *__restrict out = items.data();
        for (int64_t l = 0; l < L; l++) out[next[owner[l]]++] = u.item(l);
    }
};

// Calls body(dealt, owner) for each owner.
template <class Body> void each_owner(const Update &u, const Body &body) {
    static std::atomic<uint64_t> updates{0};
    const uint64_t number = ++updates;
    each_chunk(Dealt::owners(u), (u.L + u.every) * u.dim, u.threads, [&](int64_t owner) {
        static thread_local Dealt dealt;
        dealt.deal(u, number);
        body(dealt, owner);
    });
}

// Calls step(row, gradient) once per distinct row, with the sum over its duplicates and l2 * w.
template <int D, class Table, class Fetch, class Step>
void each_row(const Update &u, const Table &table, const Fetch &fetch, const Step &step) {
    each_owner(u, [&](Dealt &dealt, int64_t me) {
        const int64_t d = D ? D : u.dim, soon = ahead(d * sizeof(float));
        const int64_t n = dealt.first[me + 1] - dealt.first[me];
        const Item *items = sort_rows(dealt.items.data() + dealt.first[me], n);
        std::vector<float> open(D ? 0 : d);
        float fixed[D ? D : 1];
        float *__restrict sum = D ? fixed : open.data();
        int64_t i = 0;
        const auto next = [&](uint64_t row) INLINED {
            EACH_NUMBER for (int64_t k = 0; k < d; k++) sum[k] = 0;
            for (; i < n && items[i].row == row; i++) {
                if (i + soon < n) {
                    fetch(int64_t(items[i + soon].row));
                    prefetch_row(u.grad + items[i + soon].at * d, d);
                }
                const float *__restrict g = u.grad + items[i].at * d;
                const float s = items[i].scale;
                EACH_NUMBER for (int64_t k = 0; k < d; k++) sum[k] += s * g[k];
            }
            if (u.l2 != 0)
                EACH_NUMBER for (int64_t k = 0; k < d; k++)
                    sum[k] += u.l2 * table.get(int64_t(row) * d + k);
            step(int64_t(row), sum);
        };
        if (u.every) {
            const int64_t end = std::min(u.every, (me + 1) * dealt.range);
            for (int64_t row = me * dealt.range; row < end; row++) next(uint64_t(row));
        } else {
            while (i < n) next(items[i].row);
        }
    });
}

// Calls step(row, gradient, its factor) once per duplicate, without sorting.
template <int D, class Fetch, class Step>
void each_gradient(const Update &u, const Fetch &fetch, const Step &step) {
    each_owner(u, [&](const Dealt &dealt, int64_t me) {
        const int64_t d = D ? D : u.dim, soon = ahead(d * sizeof(float));
        const Item *items = dealt.items.data();
        for (int64_t i = dealt.first[me], n = dealt.first[me + 1]; i < n; i++) {
            // Past its own too: the next owner is mostly the same thread's.
            if (i + soon < u.L) {
                fetch(int64_t(items[i + soon].row));
                prefetch_row(u.grad + items[i + soon].at * d, d);
            }
            step(int64_t(items[i].row), u.grad + items[i].at * d, items[i].scale);
        }
    });
}

// w -= lr * g
template <int D, class Table> void sgd(const Update &u, const Table &table) {
    const int64_t d = D ? D : u.dim;
    const auto fetch = [&](int64_t row) INLINED { table.prefetch(row, d); };
    const auto step = [&](int64_t row, const float *__restrict g, float s = 1.0f) {
        const int64_t at = row * d;
        const uint32_t noise = table.noise(row);
        EACH_NUMBER for (int64_t k = 0; k < d; k++)
            table.set(at + k, table.get(at + k) - u.lr * (s * g[k]), noise + uint32_t(k));
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
