// Values of 32 bits -> ids, by a hash table that is made once and read by any number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

struct Entry {
    uint32_t key;
    int32_t id;  // -1 where there is none
};

// One column, and the table that its values are looked up in.
struct Column {
    const uint32_t *values;
    const uint8_t *states;  // null where all are PRESENT
    const Entry *entries;
    int64_t capacity;
    int32_t missing, other;  // ids
    uint32_t modulus;        // values are taken modulo this first, where missing is 0; none if 0
};

enum State : uint8_t { PRESENT, MISSING, UNSEEN };

// Murmur3's finalizer: neighbours part, whatever the step between them.
inline uint32_t mixed(uint32_t key) {
    key = (key ^ (key >> 16)) * 0x85EBCA6Bu;
    key = (key ^ (key >> 13)) * 0xC2B2AE35u;
    return key ^ (key >> 16);
}

// Where the search for a key begins in a table of any capacity (Lemire, arXiv:1805.10941).
inline int64_t home(uint32_t key, int64_t capacity) {
    return int64_t((uint64_t(mixed(key)) * uint64_t(capacity)) >> 32);
}

inline int32_t id_of(uint32_t key, int64_t at, const Column &column) {
    for (;; at = at + 1 == column.capacity ? 0 : at + 1) {
        const Entry entry = column.entries[at];
        if (entry.id < 0) return column.other;
        if (entry.key == key) return entry.id;
    }
}

// A value, as its table knows it.
inline uint32_t key_of(int64_t row, const Column &column) {
    const uint32_t value = column.values[row];
    if (!column.modulus) return value;
    return column.states && column.states[row] == MISSING ? 0 : value % column.modulus;
}

inline void fetch(int64_t at, const Column &column) { __builtin_prefetch(&column.entries[at]); }

// The id of a row's value, whose search begins at `at`.
inline int32_t id_of(int64_t row, uint32_t key, int64_t at, const Column &column) {
    const uint8_t state = column.states ? column.states[row] : uint8_t(PRESENT);
    if (state == PRESENT || (column.modulus && state == MISSING)) return id_of(key, at, column);
    return state == MISSING ? column.missing : column.other;
}

// ids[row * count + c] of rows first to last.
inline void look_up(const Column *columns, int64_t count, int64_t first, int64_t last,
                    int32_t *ids) {
    // Homes are computed and fetched for a block of rows before the first of them is read.
    constexpr int64_t BLOCK = 64;
    uint32_t keys[BLOCK];
    int64_t homes[BLOCK];
    for (int64_t begin = first; begin < last; begin += BLOCK) {
        const int64_t rows = std::min(BLOCK, last - begin);
        for (int64_t c = 0; c < count; c++) {
            const Column column = columns[c];  // a copy, which no id that is written can change
            for (int64_t i = 0; i < rows; i++) {
                keys[i] = key_of(begin + i, column);
                homes[i] = home(keys[i], column.capacity);
                fetch(homes[i], column);
            }
            int32_t *out = ids + begin * count + c;
            for (int64_t i = 0; i < rows; i++, out += count)
                *out = id_of(begin + i, keys[i], homes[i], column);
        }
    }
}

// The same of few rows, whose values (count, rows) are not where the columns say. Homes are fetched
// for all columns before the first of them is read.
inline void look_up_together(const Column *columns, int64_t count, int64_t rows, const uint32_t *values,
                        const uint8_t *states, int32_t *ids) {
    for (const bool reads : {false, true})
        for (int64_t c = 0; c < count; c++) {
            Column column = columns[c];
            column.values = values + c * rows;
            column.states = states ? states + c * rows : nullptr;
            for (int64_t i = 0; i < rows; i++) {
                const uint32_t key = key_of(i, column);
                const int64_t at = home(key, column.capacity);
                if (reads) ids[i * count + c] = id_of(i, key, at, column);
                else fetch(at, column);
            }
        }
}

}  // namespace
