// Raw Criteo text -> columns.
#pragma once

#include <cstdint>

namespace {

constexpr int COUNTS = 13, CATEGORIES = 26;
constexpr uint8_t NOT_HEX = 16;

struct HexDigits {
    uint8_t value[256];
    constexpr HexDigits() : value() {
        for (int c = 0; c < 256; c++) value[c] = NOT_HEX;
        for (int d = 0; d < 10; d++) value['0' + d] = d;
        for (int d = 0; d < 6; d++) value['a' + d] = value['A' + d] = 10 + d;
    }
};
constexpr HexDigits HEX;

// A whole number of up to 18 digits, which cannot overflow; returns where it ends, or null.
inline const char *count(const char *at, int64_t *value, bool *missing) {
    const bool negative = *at == '-';
    const char *begin = at += negative;
    int64_t number = 0;
    for (; uint8_t(*at - '0') < 10; at++) {
        if (at - begin == 18) return nullptr;
        number = number * 10 + (*at - '0');
    }
    *missing = at == begin;
    *value = negative ? -number : number;
    return *missing && negative ? nullptr : at;
}

// Up to 8 hexadecimal digits; returns where they end, or null.
inline const char *category(const char *at, const char *end, uint32_t *value, bool *missing) {
    const char *begin = at;
    uint32_t number = 0;
    if (end - at >= 8) {
        // Nearly all of them: eight digits, which need no branch each.
        uint8_t seen = 0;
        for (int k = 0; k < 8; k++) {
            const uint8_t digit = HEX.value[uint8_t(at[k])];
            seen |= digit;
            number = number << 4 | (digit & 15);
        }
        if (seen < NOT_HEX) {
            *missing = false;
            *value = number;
            return at + 8;
        }
        number = 0;
    }
    for (; HEX.value[uint8_t(*at)] != NOT_HEX; at++) {
        if (at - begin == 8) return nullptr;
        number = number << 4 | HEX.value[uint8_t(*at)];
    }
    *missing = at == begin;
    *value = number;
    return at;
}

}  // namespace
