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
            const Column &column = columns[c];
            const uint32_t modulus = column.modulus;
            const uint8_t *states = column.states ? column.states + begin : nullptr;
            for (int64_t i = 0; i < rows; i++) {
                keys[i] = column.values[begin + i];
                if (modulus) keys[i] = states && states[i] == MISSING ? 0 : keys[i] % modulus;
                homes[i] = home(keys[i], column.capacity);
                __builtin_prefetch(&column.entries[homes[i]]);
            }
            int32_t *out = ids + begin * count + c;
            for (int64_t i = 0; i < rows; i++, out += count) {
                const uint8_t state = states ? states[i] : uint8_t(PRESENT);
                if (state == PRESENT || (modulus && state == MISSING))
                    *out = id_of(keys[i], homes[i], column);
                else
                    *out = state == MISSING ? column.missing : column.other;
            }
        }
    }
}

}  // namespace
