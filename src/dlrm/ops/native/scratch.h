// Memory of kernels between their loads and stores.
#pragma once

#include <vector>

#include "vectors.h"

namespace {

// Memory for a call, kept for the next one and never cleared.
struct Scratch {
    char *next;
    template <class T> T *take(int64_t count) {
        T *taken = reinterpret_cast<T *>(next);
        next += up(count * int64_t(sizeof(T)), 64);
        return taken;
    }
    // The next so many bytes, for others to take from.
    Scratch part(int64_t bytes) { return {take<char>(bytes)}; }
};

// One for a call (0), and for each of its threads one for a part (1), and two for what parts leave for
// each other, forwards (2) and backwards (3).
template <int WHOSE> inline Scratch scratch(int64_t bytes) {
    static thread_local std::vector<char> memory;
    if (int64_t(memory.size()) < bytes + 64) memory.resize(bytes + 64);
    return {reinterpret_cast<char *>(up(reinterpret_cast<int64_t>(memory.data()), 64))};
}

} // namespace
