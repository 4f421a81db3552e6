// Stack distances of a sample of the ids, in memory that does not grow: SHARDS of a fixed size
// (Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015), beside which the ids
// that are hottest at first are all followed: whether a sample has them would decide the result.
#pragma once

#include "fenwick.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
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

    // The number of an id, or null.
    const int64_t *find(int64_t id) const {
        const Entry &entry = entries[place(id)];
        return entry.id == EMPTY ? nullptr : &entry.value;
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
    static constexpr int64_t HOT = int64_t(1) << 40;  // marks a followed id that is no sample
    int64_t most, threshold = MODULUS, accesses = 0, hot_accesses = 0, hot = -1, now = 0;
    double spread = 0;
    Map last{1024};  // followed id -> its newest access, and HOT if it is that
    Fenwick newest_hot, newest_sampled;
    std::vector<int64_t> slots;  // followed access -> its id
    std::priority_queue<std::pair<int64_t, int64_t>> hashes;  // of the sampled ids, and the ids
    std::vector<double> hot_weights, weights;  // by bin; first accesses last

    static int64_t hash(int64_t id) { return int64_t(mixed(~uint64_t(id)) >> 32); }

    // Where between two sampled ids an access lies: anywhere, evenly; nowhere if all are followed.
    double between() {
        if (threshold == MODULUS) return 0;
        spread += 0.6180339887498949;
        spread -= std::floor(spread);
        return spread;
    }

    // Follows the ids that these accesses have most of, a quarter of all that are followed.
    void follow_hottest(const int64_t *ids, int64_t n) {
        Map counts(1024);
        std::vector<std::pair<int64_t, int64_t>> order;  // count, minus the place of the first access
        for (int64_t t = 0; t < n; t++) {
            bool fresh;
            int64_t &place = counts.at(ids[t], fresh);
            if (fresh) {
                place = order.size();
                order.push_back({0, -t});
            }
            order[place].first++;
        }
        hot = std::min<int64_t>(most / 4, order.size());
        std::partial_sort(order.begin(), order.begin() + hot, order.end(), std::greater<>());
        for (int64_t h = 0; h < hot; h++) {
            bool fresh;
            last.at(ids[-order[h].second], fresh) = HOT - 1;  // not accessed yet
        }
    }

    // Keeps the newest access of each id, and room for others.
    void compact() {
        int64_t kept = 0;
        Fenwick old_hot(std::move(newest_hot)), old_sampled(std::move(newest_sampled));
        newest_hot = newest_sampled = Fenwick(old_hot.n);
        for (int64_t s = 0; s < now; s++) {
            const bool is_hot = old_hot.sum(s + 1) > old_hot.sum(s);
            if (!is_hot && old_sampled.sum(s + 1) == old_sampled.sum(s)) continue;
            bool fresh;
            last.at(slots[s], fresh) = kept + (is_hot ? HOT : 0);
            (is_hot ? newest_hot : newest_sampled).add(kept, 1);
            slots[kept++] = slots[s];
        }
        now = kept;
    }

    // Samples fewer ids, so that there is room for one more.
    void lower() {
        const int64_t before = threshold;
        threshold = hashes.top().first;
        while (!hashes.empty() && hashes.top().first >= threshold) {
            newest_sampled.add(last.take(hashes.top().second), -1);
            hashes.pop();
        }
        for (double &weight : weights) weight *= double(threshold) / before;
    }

    // Counts an access whose id was accessed at slot `before`, by the ids accessed since.
    void count(std::vector<double> &by_bin, int64_t before) {
        const int64_t hot_others = newest_hot.sum(now) - newest_hot.sum(before + 1);
        const int64_t others = newest_sampled.sum(now) - newest_sampled.sum(before + 1);
        by_bin[bin_of(hot_others + (others + between()) / rate())] += 1;
    }

  public:
    explicit Sampler(int64_t most)
        : most(most), newest_hot(4 * most), newest_sampled(4 * most), slots(4 * most),
          hot_weights(BINS + 1, 0), weights(BINS + 1, 0) {}

    double rate() const { return double(threshold) / MODULUS; }

    void feed(const int64_t *ids, int64_t n) {
        if (hot < 0 && n) follow_hottest(ids, n);
        accesses += n;
        for (int64_t t = 0; t < n; t++) {
            const int64_t *known = last.find(ids[t]);
            const bool is_hot = known && *known >= HOT - 1;
            const int64_t h = hash(ids[t]);
            if (!is_hot && h >= threshold) continue;
            if (now == newest_hot.n) compact();
            bool fresh;
            int64_t &before = last.at(ids[t], fresh);
            if (is_hot) {
                hot_accesses++;
                if (before == HOT - 1) {
                    hot_weights[BINS] += 1;
                } else {
                    count(hot_weights, before - HOT);
                    newest_hot.add(before - HOT, -1);
                }
            } else if (fresh) {
                weights[BINS] += 1;
                hashes.push({h, ids[t]});
            } else {
                count(weights, before);
                newest_sampled.add(before, -1);
            }
            (is_hot ? newest_hot : newest_sampled).add(now, 1);
            slots[now] = ids[t];
            before = now++ + (is_hot ? HOT : 0);
            if (int64_t(hashes.size()) > most - hot) lower();
        }
    }

    // Accesses by bin. The sampled ids stand for all that are not hot.
    void read(double *out) const {
        double sum = 0;
        for (double weight : weights) sum += weight;
        const double each = sum > 0 ? (accesses - hot_accesses) / sum : 0;
        for (int64_t b = 0; b <= BINS; b++) out[b] = hot_weights[b] + each * weights[b];
    }
};
