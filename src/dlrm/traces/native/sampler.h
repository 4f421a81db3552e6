// Stack distances of a sample of the ids, in memory that does not grow: SHARDS of a fixed size
// (Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015).
#pragma once

#include "fenwick.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <queue>
#include <utility>
#include <vector>

// A well-mixed hash of an id: the last steps of splitmix64.
inline uint64_t mixed(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

// id -> number, by open addressing; ids may be any but EMPTY and GONE.
struct Map {
    static constexpr int64_t EMPTY = INT64_MIN, GONE = INT64_MIN + 1;
    struct Entry {
        int64_t id, value;
    };
    std::vector<Entry> entries;
    size_t used = 0;  // with those gone

    explicit Map(size_t capacity) : entries(capacity, {EMPTY, 0}) {}

    int64_t &at(int64_t id, bool &fresh) {
        if (2 * used >= entries.size()) grow();
        size_t i = place(id);
        fresh = entries[i].id == EMPTY;
        if (fresh) {
            entries[i].id = id;
            used++;
        }
        return entries[i].value;
    }

    // Forgets an id and returns its number.
    int64_t take(int64_t id) {
        Entry &entry = entries[place(id)];
        entry.id = GONE;
        return entry.value;
    }

  private:
    size_t place(int64_t id) const {
        size_t i = mixed(id) & (entries.size() - 1);
        while (entries[i].id != EMPTY && entries[i].id != id) i = (i + 1) & (entries.size() - 1);
        return i;
    }

    void grow() {
        std::vector<Entry> old(std::move(entries));
        size_t live = 0;
        for (const Entry &e : old) live += e.id > GONE;
        size_t capacity = 1024;
        while (capacity < 4 * live + 4) capacity *= 2;
        entries.assign(capacity, {EMPTY, 0});
        used = live;
        for (const Entry &e : old)
            if (e.id > GONE) entries[place(e.id)] = e;
    }
};

// Bins of distances: 64 of one distance each, then 16 an octave.
constexpr int64_t LINEAR = 64, PER_OCTAVE = 16, BINS = LINEAR + PER_OCTAVE * 58;

inline int64_t bin_of(double distance) {
    if (distance < LINEAR) return int64_t(distance);
    const double octave = std::log2(distance / LINEAR);
    return std::min(LINEAR + int64_t(octave * PER_OCTAVE), BINS - 1);
}

class Sampler {
    static constexpr int64_t MODULUS = int64_t(1) << 32;
    int64_t most, threshold = MODULUS, accesses = 0, now = 0;
    Map last{1024};  // sampled id -> its newest access
    Fenwick newest;
    std::vector<int64_t> slots;  // sampled access -> its id
    std::priority_queue<std::pair<int64_t, int64_t>> hashes;  // of the sampled ids, and the ids
    std::vector<double> weights;  // by bin; first accesses last

    static int64_t hash(int64_t id) { return int64_t(mixed(~uint64_t(id)) >> 32); }

    // Keeps the newest access of each id, and room for others.
    void compact() {
        int64_t kept = 0;
        for (int64_t s = 0; s < now; s++)
            if (newest.sum(s + 1) > newest.sum(s)) {
                bool fresh;
                last.at(slots[s], fresh) = kept;
                slots[kept++] = slots[s];
            }
        newest = Fenwick(newest.n);
        for (int64_t s = 0; s < kept; s++) newest.add(s, 1);
        now = kept;
    }

    // Samples fewer ids, so that there is room for one more.
    void lower() {
        const int64_t before = threshold;
        threshold = hashes.top().first;
        while (!hashes.empty() && hashes.top().first >= threshold) {
            newest.add(last.take(hashes.top().second), -1);
            hashes.pop();
        }
        for (double &weight : weights) weight *= double(threshold) / before;
    }

  public:
    explicit Sampler(int64_t most)
        : most(most), newest(4 * most), slots(4 * most), weights(BINS + 1, 0) {}

    double rate() const { return double(threshold) / MODULUS; }

    void feed(const int64_t *ids, int64_t n) {
        accesses += n;
        for (int64_t t = 0; t < n; t++) {
            const int64_t h = hash(ids[t]);
            if (h >= threshold) continue;
            if (now == newest.n) compact();
            bool fresh;
            int64_t &before = last.at(ids[t], fresh);
            if (fresh) {
                weights[BINS] += 1;
                hashes.push({h, ids[t]});
            } else {
                const int64_t others = int64_t(hashes.size()) - newest.sum(before + 1);
                weights[bin_of(others / rate())] += 1;
                newest.add(before, -1);
            }
            newest.add(now, 1);
            slots[now] = ids[t];
            before = now++;
            if (int64_t(hashes.size()) > most) lower();
        }
    }

    // Accesses by bin. What the sample has too many or too few of are accesses of the hottest ids,
    // which are of the shortest distances (SHARDS-adj).
    void read(double *out) const {
        double sum = 0;
        for (int64_t b = 0; b <= BINS; b++) sum += out[b] = weights[b] / rate();
        out[0] = std::max(0.0, out[0] + accesses - sum);
    }
};
