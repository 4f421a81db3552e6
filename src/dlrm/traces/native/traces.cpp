// The inner loops over streams of ids, as C functions over buffers; dlrm/traces/native.py calls them.
// No state but what `sampler_new` returns: callers run several at once on buffers of their own.
#include "fenwick.h"
#include "sampler.h"

#include <cstdint>
#include <new>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

// codes[t] = place of ids[t] among the distinct ids in order of first access. Returns how many there
// are, or -1 when memory is out.
EXPORT int64_t renumber(const int64_t *ids, int64_t n, int64_t *codes) try {
    Map map(1024);
    int64_t distinct = 0;
    for (int64_t t = 0; t < n; t++) {
        bool fresh;
        int64_t &code = map.at(ids[t], fresh);
        if (fresh) code = distinct++;
        codes[t] = code;
    }
    return distinct;
} catch (const std::bad_alloc &) {
    return -1;
}

// distances[t] = distinct ids between access t and the one before it of the same id, -1 for the first
// access of an id. Ids are below `distinct`. Returns 0, or -1 when memory is out.
EXPORT int64_t stack_distances(const int64_t *ids, int64_t n, int64_t distinct,
                               int64_t *distances) try {
    std::vector<int64_t> last(distinct, -1);
    Fenwick newest(n);  // 1 at the newest access of each id
    int64_t seen = 0;
    for (int64_t t = 0; t < n; t++) {
        int64_t &before = last[ids[t]];
        if (before < 0) {
            distances[t] = -1;
            seen++;
        } else {
            distances[t] = seen - newest.sum(before + 1);
            newest.add(before, -1);
        }
        newest.add(t, 1);
        before = t;
    }
    return 0;
} catch (const std::bad_alloc &) {
    return -1;
}

// The other way round: ids[t] has `distances[t]` distinct ids since it was accessed last; -1, or a
// distance that nothing has yet, takes a new id. `stack` holds the ids seen before, the newest last,
// and has room for `n` more; it is left as the stack after the last access. Returns how many ids were
// seen then, or -1 when memory is out.
EXPORT int64_t from_distances(const int64_t *distances, int64_t n, int64_t *stack, int64_t seen,
                              int64_t *ids) try {
    std::vector<int64_t> slots(seen + n);
    Fenwick alive(seen + n);
    int64_t next = seen;  // a new id is the number of ids before it
    for (int64_t s = 0; s < seen; s++) {
        slots[s] = stack[s];
        alive.add(s, 1);
    }
    for (int64_t t = 0; t < n; t++) {
        int64_t id;
        if (distances[t] < 0 || distances[t] >= next) {
            id = next++;
        } else {
            const int64_t slot = alive.find(next - distances[t]);
            id = slots[slot];
            alive.add(slot, -1);
        }
        ids[t] = slots[seen + t] = id;
        alive.add(seen + t, 1);
    }
    for (int64_t s = 0, kept = 0; s < seen + n; s++)
        if (alive.sum(s + 1) > alive.sum(s)) stack[kept++] = slots[s];
    return next;
} catch (const std::bad_alloc &) {
    return -1;
}

EXPORT void *sampler_new(int64_t most) try {
    return new Sampler(most);
} catch (const std::bad_alloc &) {
    return nullptr;
}

EXPORT void sampler_delete(void *sampler) { delete static_cast<Sampler *>(sampler); }

EXPORT int64_t sampler_feed(void *sampler, const int64_t *ids, int64_t n) try {
    static_cast<Sampler *>(sampler)->feed(ids, n);
    return 0;
} catch (const std::bad_alloc &) {
    return -1;
}

// weights[b] = accesses whose stack distance is in bin b (`bin_of` in sampler.h), first accesses in
// the last one; returns the number of bins, with a null pointer too.
EXPORT int64_t sampler_read(const void *sampler, double *weights, double *rate) {
    const Sampler *s = static_cast<const Sampler *>(sampler);
    if (weights) s->read(weights);
    if (rate) *rate = s->rate();
    return BINS + 1;
}
