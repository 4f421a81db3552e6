// From ids to rows, and from rows to vectors.
#pragma once

#include <algorithm>
#include <atomic>

#include "numbers.h"
#include "pool.h"

namespace {

constexpr int64_t NONE = -1;        // every id is in range
constexpr int64_t BAD_OFFSETS = -2; // the bags do not cover the ids

// The first position with a wrong id, from whichever thread sees one.
struct Wrong {
    std::atomic<int64_t> first{INT64_MAX};

    void at(int64_t position) {
        int64_t now = first.load();
        while (position < now && !first.compare_exchange_weak(now, position)) {}
    }
    // The position, of ids of which so many come before.
    int64_t answer(int64_t before = 0) const {
        return first.load() == INT64_MAX ? NONE : before + first.load();
    }
};

// Adds the first row of its table to each id of samples [begin, end).
template <class Id>
void one_hot_samples(const Id *ids, const int64_t *starts, const int64_t *sizes, int64_t T,
                     int64_t *rows, int64_t begin, int64_t end, Wrong &wrong) {
    for (int64_t b = begin; b < end; b++) {
        const Id *in = ids + b * T;
        int64_t *__restrict out = rows + b * T;
        bool bad = false;
        for (int64_t t = 0; t < T; t++) {
            const int64_t id = in[t];
            bad |= uint64_t(id) >= uint64_t(sizes[t]);
            // Unsigned: a wrong id may be so large that the sum overflows.
            out[t] = int64_t(uint64_t(id) + uint64_t(starts[t]));
        }
        for (int64_t t = 0; bad && t < T; t++)
            if (uint64_t(int64_t(in[t])) >= uint64_t(sizes[t])) wrong.at(b * T + t);
    }
}

// The same for all samples. Returns the first position out of range.
template <class Id>
int64_t one_hot_rows(const Id *ids, const int64_t *starts, const int64_t *sizes, int64_t B,
                     int64_t T, int64_t *rows, int threads) {
    Wrong wrong;
    each_piece(B, T, threads, [&](int64_t begin, int64_t end) {
        one_hot_samples(ids, starts, sizes, T, rows, begin, end, wrong);
    });
    return wrong.answer();
}

// The same for bags: bag g belongs to table g % T.
template <class Id>
int64_t bag_rows(const Id *ids, const int64_t *offsets, const int64_t *starts,
                 const int64_t *sizes, int64_t L, int64_t G, int64_t T, int64_t *rows,
                 int threads) {
    bool sound = offsets[0] == 0 && offsets[G] == L;
    for (int64_t g = 0; g < G; g++) sound &= offsets[g] <= offsets[g + 1];
    if (!sound) return BAD_OFFSETS;
    Wrong wrong;
    each_piece(G, 1 + L / std::max<int64_t>(1, G), threads, [=, &wrong](int64_t begin, int64_t end) {
        for (int64_t g = begin; g < end; g++) {
            const int64_t t = g % T, first = offsets[g], last = offsets[g + 1];
            const uint64_t start = uint64_t(starts[t]), size = uint64_t(sizes[t]);
            bool bad = false;
            for (int64_t l = first; l < last; l++) {
                const int64_t id = ids[l];
                bad |= uint64_t(id) >= size;
                rows[l] = int64_t(uint64_t(id) + start);
            }
            for (int64_t l = first; bad && l < last; l++)
                if (uint64_t(int64_t(ids[l])) >= size) wrong.at(l);
        }
    });
    return wrong.answer();
}

// out[l] = weight[rows[l]] for l in [begin, end), of L.
template <int D, class W>
void gather_rows(const W *weight, const int64_t *rows, int64_t L, int64_t dim, float *out,
                 int64_t begin, int64_t end) {
    const int64_t d = D ? D : dim, soon = ahead(d * sizeof(W));
    for (int64_t l = begin; l < end; l++) {
        if (l + soon < L) prefetch_row(weight + rows[l + soon] * d, d);
        const W *__restrict from = weight + rows[l] * d;
        float *__restrict to = out + l * d;
        each_number<D>(d, [&](int64_t k) INLINED { to[k] = widened(from[k]); });
    }
}

template <int D, class W>
void gather(const W *weight, const int64_t *rows, int64_t L, int64_t dim, float *out,
            int threads) {
    each_piece(L, dim, threads, [&](int64_t begin, int64_t end) {
        gather_rows<D>(weight, rows, L, dim, out, begin, end);
    });
}

// Bags of L looked-up rows: bag g has rows[starts[g]] up to rows[ends[g] - 1].
struct Bags {
    const int64_t *starts, *ends;
    int64_t G, L;

    // Calls body(first, end) for pieces of the bags, of rows of d numbers.
    template <class Body> void each(int64_t d, int threads, const Body &body) const {
        each_piece(G, (1 + L / std::max<int64_t>(1, G)) * d, threads, body);
    }
};

// out[g] = sum over the bag of scale[l] * weight[rows[l]]; zeros where it is empty.
template <int D, class W>
void pool(const W *weight, const int64_t *rows, const Bags &bags, int64_t dim,
          const float *scale, float *out, int threads) {
    bags.each(dim, threads, [=](int64_t begin, int64_t end) {
        const int64_t d = D ? D : dim, soon = ahead(d * sizeof(W));
        for (int64_t g = begin; g < end; g++) {
            const int64_t first = bags.starts[g], last = bags.ends[g];
            // Of a long row a part after the other: sums stay in registers.
            each_part<D>(d, [&](int64_t k, auto n) INLINED {
                float sum[n()] = {};
                for (int64_t l = first; l < last; l++) {
                    if (k == 0 && l + soon < bags.L) prefetch_row(weight + rows[l + soon] * d, d);
                    const W *__restrict from = weight + rows[l] * d + k;
                    const float s = scale ? scale[l] : 1.0f;
                    EACH_NUMBER for (int q = 0; q < n(); q++) sum[q] += s * widened(from[q]);
                }
                float *__restrict to = out + g * d + k;
                EACH_NUMBER for (int q = 0; q < n(); q++) to[q] = sum[q];
            });
        }
    });
}

// out[l] = the bag of l.
inline void bag_of_each(const Bags &bags, int32_t *out, int threads) {
    bags.each(1, threads, [=](int64_t begin, int64_t end) {
        for (int64_t g = begin; g < end; g++)
            std::fill(out + bags.starts[g], out + std::max(bags.starts[g], bags.ends[g]), int32_t(g));
    });
}

// The gradient of the weight of each lookup: out[l] = weight[rows[l]] . grad[bag of l].
template <class W>
void scale_gradient(const W *weight, const int64_t *rows, const Bags &bags, const float *grad,
                    int64_t d, float *out, int threads) {
    bags.each(d, threads, [=](int64_t begin, int64_t end) {
        for (int64_t g = begin; g < end; g++) {
            const float *from = grad + g * d;
            for (int64_t l = bags.starts[g]; l < bags.ends[g]; l++) {
                const W *row = weight + rows[l] * d;
                float sum = 0;
                for (int64_t k = 0; k < d; k++) sum += widened(row[k]) * from[k];
                out[l] = sum;
            }
        }
    });
}

} // namespace
