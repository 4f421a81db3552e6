// The inner loops of preparing a log, as C functions over buffers; dlrm/data/kernels.py calls them.
// No state: callers run several at once on buffers of their own. Only `look_up` starts threads.
#include "criteo.h"
#include "distinct.h"
#include "lookup.h"

#include <exception>
#include <new>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Parse `lines` lines, the last of which ends at `end` in a newline. Columns go one after another,
// `lines` elements each; `missing` has the 13 counts first, then the 26 categories. A missing value
// is 0. Returns the number of lines that are plainly good before the first that is not: numbers of
// over 18 digits are left to the caller.
EXPORT int64_t parse_criteo(const char *at, const char *end, int64_t lines, int labelled,
                            uint8_t *labels, int64_t *counts, uint32_t *categories,
                            bool *missing) {
    for (int64_t line = 0; line < lines; line++) {
        labels[line] = 0;
        if (labelled) {
            if ((*at != '0' && *at != '1') || at[1] != '\t') return line;
            labels[line] = *at == '1';
            at += 2;
        }
        for (int k = 0; k < COUNTS; k++) {
            const int64_t cell = k * lines + line;
            at = count(at, counts + cell, missing + cell);
            if (!at || *at++ != '\t') return line;
        }
        for (int k = 0; k < CATEGORIES; k++) {
            const int64_t cell = k * lines + line;
            at = category(at, end, categories + cell, missing + COUNTS * lines + cell);
            if (!at || *at++ != (k + 1 < CATEGORIES ? '\t' : '\n')) return line;
        }
    }
    return at == end ? lines : 0;
}

// codes[i] = place of the value of row i among the distinct values in order of appearance;
// rows[code] = where it appeared first; counts[code] = sum of `weights` (1 each if null) over its
// rows. `missing` (null if none is) marks rows whose value is missing, which is a value like any
// other. Returns the number of distinct values, or -1 when memory is out.
EXPORT int64_t distinct(const uint32_t *keys, const bool *missing, const int64_t *weights,
                        int64_t n, int32_t *codes, int64_t *rows, int64_t *counts) try {
    constexpr int64_t AHEAD = 16;
    Codes table;
    int64_t used = 0;
    int32_t none = -1;
    for (int64_t i = 0; i < n; i++) {
        if (i + AHEAD < n) table.prefetch(keys[i + AHEAD]);
        int32_t *code = &none;
        if (!missing || !missing[i]) {
            table.reserve(used);
            Slot &slot = table.find(keys[i]);
            slot.key = keys[i];
            code = &slot.code;
        }
        if (*code < 0) {
            *code = int32_t(used++);
            rows[*code] = i;
            counts[*code] = 0;
        }
        codes[i] = *code;
        counts[*code] += weights ? weights[i] : 1;
    }
    return used;
} catch (const std::bad_alloc &) {
    return -1;
}

// Fill a table of more than `n` entries: the id of keys[i] is i. The key at `missing` (none if -1)
// gets none. No key comes twice.
EXPORT void index_keys(const uint32_t *keys, int64_t n, int64_t missing, Entry *entries,
                       int64_t capacity) {
    constexpr int64_t AHEAD = 16;
    std::fill(entries, entries + capacity, Entry{0, -1});
    for (int64_t i = 0; i < n; i++) {
        if (i + AHEAD < n) __builtin_prefetch(&entries[home(keys[i + AHEAD], capacity)], 1);
        if (i == missing) continue;
        int64_t at = home(keys[i], capacity);
        while (entries[at].id >= 0) at = at + 1 == capacity ? 0 : at + 1;
        entries[at] = Entry{keys[i], int32_t(i)};
    }
}

// ids (rows, count): of the value of each row in each column. Rows are divided among `threads`.
EXPORT void look_up_columns(const Column *columns, int64_t count, int64_t rows, int64_t threads,
                            int32_t *ids) {
    std::vector<std::thread> others;
    int64_t done = 0;
    try {
        others.reserve(size_t(threads));
        for (int64_t t = 1; t < threads; t++) {
            const int64_t end = rows * t / threads;
            others.emplace_back(look_up, columns, count, done, end, ids);
            done = end;
        }
    } catch (const std::exception &) {
        // There is no thread or no memory to be had: the rest is done here.
    }
    look_up(columns, count, done, rows, ids);
    for (std::thread &other : others) other.join();
}

// The same of few rows, whose values and states (count, rows) are not those of the columns.
EXPORT void look_up_few(const Column *columns, int64_t count, int64_t rows, const uint32_t *values,
                        const uint8_t *states, int32_t *ids) {
    look_up_together(columns, count, rows, values, states, ids);
}
