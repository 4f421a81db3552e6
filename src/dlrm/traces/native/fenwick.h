// Sums over a prefix of numbers that change, in O(log n) each (Fenwick 1994).
#pragma once

#include <cstdint>
#include <vector>

struct Fenwick {
    int64_t n, top = 1;
    std::vector<int32_t> tree;

    explicit Fenwick(int64_t n) : n(n), tree(n + 1, 0) {
        while (2 * top <= n) top *= 2;
    }

    void add(int64_t place, int32_t change) {
        for (int64_t i = place + 1; i <= n; i += i & -i) tree[i] += change;
    }

    // The sum of the first `count` numbers.
    int64_t sum(int64_t count) const {
        int64_t total = 0;
        for (int64_t i = count; i > 0; i -= i & -i) total += tree[i];
        return total;
    }

    // The place of the `rank`-th one, from 1, where all numbers are 0 and 1.
    int64_t find(int64_t rank) const {
        int64_t place = 0;
        for (int64_t step = top; step; step /= 2)
            if (place + step <= n && tree[place + step] < rank) {
                place += step;
                rank -= tree[place];
            }
        return place;
    }
};
