// The distinct values of a column, by a hash table that grows with them.
#pragma once

#include <cstdint>
#include <vector>

namespace {

struct Slot {
    uint32_t key;
    int32_t code;  // -1 is an empty slot
};

// Open addressing with linear probing, at most half full.
class Codes {
  public:
    Codes() : slots_(1 << 10, Slot{0, -1}), shift_(32 - 10) {}

    // The slot of a key, or the empty one where it belongs.
    Slot &find(uint32_t key) {
        uint32_t at = home(key);
        while (slots_[at].code >= 0 && slots_[at].key != key) at = (at + 1) & mask();
        return slots_[at];
    }

    void prefetch(uint32_t key) const { __builtin_prefetch(&slots_[home(key)]); }

    // Make room for another key: `used` there are already.
    void reserve(int64_t used) {
        if (2 * (used + 1) <= int64_t(slots_.size()) || shift_ == 0) return;
        std::vector<Slot> before(2 * slots_.size(), Slot{0, -1});
        before.swap(slots_);
        shift_--;
        for (const Slot &slot : before)
            if (slot.code >= 0) find(slot.key) = slot;
    }

  private:
    // The high bits of a product by an odd constant near 2^32 / golden ratio (Knuth, TAOCP 6.4).
    uint32_t home(uint32_t key) const { return (key * 2654435769u) >> shift_; }
    uint32_t mask() const { return uint32_t(slots_.size() - 1); }

    std::vector<Slot> slots_;
    int shift_;
};

}  // namespace
