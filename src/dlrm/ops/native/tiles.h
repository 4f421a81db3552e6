// Tiles: eight registers of 16 rows of 64 bytes, and the product of two of them (AMX-TILE, AMX-BF16).
//
// A product is c (M, 16) float += a (M, 16) words times b (16, 16) words, whose words are pairs of
// bf16: of a that follow each other in a row, of b in a column. `Hardware` and `Emulated` have the
// same five instructions, `Emulated` for CPUs without; whoever uses them is the same.
#pragma once

#include "vectors.h"

#if defined(__AVX512F__) && defined(__x86_64__) && defined(__linux__)
#define HARDWARE_TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int64_t SIDE = 16;  // rows of a tile, and words of a row

// What LDTILECFG reads: palette 1, and the rows and the bytes a row of each tile.
struct alignas(64) TileConfig {
    unsigned char palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    unsigned char rows[16] = {};

    // Tiles 0, 1 and 4 have `upper` rows; 2, 3 and 5 have `lower`; 6 and 7 have all.
    TileConfig(int64_t upper, int64_t lower) {
        for (int tile = 0; tile < 8; tile++) {
            const int64_t count = tile >= 6 ? SIDE : tile < 2 || tile == 4 ? upper : lower;
            rows[tile] = static_cast<unsigned char>(count);
            row_bytes[tile] = count ? 64 : 0;
        }
    }
};

// As Intel's manual has TDPBF16PS: sums over the first numbers of the words and over the second
// ones, each from zero, rounded to the nearest; then both together are added to c. What is below
// the least normal number counts and becomes zero.
struct Emulated {
    struct State {
        uint32_t tile[8][SIDE * SIDE];
        unsigned char rows[8];
    };
    static State &state() {
        static thread_local State state;
        return state;
    }
    static Lanes flushed(Lanes numbers) {
        const Words bits = reinterpret_cast<Words>(numbers);
        const Words kept = (bits & 0x7fffffff) < 0x00800000 ? bits & 0x80000000 : bits;
        return reinterpret_cast<Lanes>(kept);
    }
    static Lanes first(Words word) { return flushed(reinterpret_cast<Lanes>(word << 16)); }
    static Lanes second(Words word) { return flushed(reinterpret_cast<Lanes>(word & 0xffff0000u)); }

    static void configure(const TileConfig &config) {
        std::copy(config.rows, config.rows + 8, state().rows);
    }
    static void release() { std::fill_n(state().rows, 8, 0); }
    template <int C> static void zero() { std::fill_n(state().tile[C], SIDE * SIDE, 0); }
    template <int T> static void load(const void *from, int64_t step_bytes) {
        const char *row = static_cast<const char *>(from);
        for (int64_t r = 0; r < state().rows[T]; r++)
            std::memcpy(state().tile[T] + r * SIDE, row + r * step_bytes, 64);
    }
    template <int C, int A, int B> static void multiply() {
        State &s = state();
        for (int64_t m = 0; m < s.rows[C]; m++) {
            Lanes sum[2] = {};
            for (int64_t k = 0; k < SIDE; k++) {
                const Words a = s.tile[A][m * SIDE + k] - Words{};
                const Words b = words(s.tile[B] + k * SIDE);
                sum[0] = flushed(sum[0] + first(a) * first(b));
                sum[1] = flushed(sum[1] + second(a) * second(b));
            }
            Lanes &c = lanes(reinterpret_cast<float *>(s.tile[C] + m * SIDE));
            c = flushed(c + flushed(sum[0] + sum[1]));
        }
    }
    template <int T> static void store(void *to, int64_t step_bytes) {
        char *row = static_cast<char *>(to);
        for (int64_t r = 0; r < state().rows[T]; r++)
            std::memcpy(row + r * step_bytes, state().tile[T] + r * SIDE, 64);
    }
};

#ifdef HARDWARE_TILES
// As assembly, so that one build serves CPUs with tiles and without.
struct Hardware {
    static void configure(const TileConfig &config) {
        asm volatile("ldtilecfg %0" ::"m"(config));
    }
    static void release() { asm volatile("tilerelease"); }
    template <int C> static void zero() { asm volatile("tilezero %%tmm%c0" ::"i"(C)); }
    template <int T> static void load(const void *from, int64_t step_bytes) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(step_bytes), "i"(T) : "memory");
    }
    template <int C, int A, int B> static void multiply() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
    }
    template <int T> static void store(void *to, int64_t step_bytes) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(step_bytes), "i"(T) : "memory");
    }
};
#endif

// Whether this CPU has tiles and Linux lets this process use them, which is asked for once.
inline bool has_tiles() {
#ifdef HARDWARE_TILES
    static const bool granted = [] {
        unsigned a, b, c, d;
        const unsigned needed = 1u << 22 | 1u << 24;  // AMX-BF16, AMX-TILE
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & needed) != needed) return false;
        const int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
        return syscall(SYS_arch_prctl, request, tile_data) == 0;
    }();
    return granted;
#else
    return false;
#endif
}

// The rows that this thread's tiles are configured for; 0 where it holds none.
template <class Tiles> struct Configured {
    int64_t upper = 0, lower = 0;
    static Configured &here() {
        static thread_local Configured configured;
        return configured;
    }
    // For products of `count` rows, at most two tiles of them.
    static void rows(int64_t count) {
        const int64_t upper = std::min(count, SIDE), lower = count - upper;
        if (here().upper == upper && here().lower == lower) return;
        Tiles::configure(TileConfig(upper, lower));
        here() = {upper, lower};
    }
    static void release() {
        if (here().upper) Tiles::release();
        here() = {};
    }
};

// Around work that may use tiles: a thread gives them back in the end, because their 8 KiB are
// saved and restored whenever a thread that holds some is put aside, and others may use them.
struct TileRegion {
    ~TileRegion() {
        Configured<Emulated>::release();
#ifdef HARDWARE_TILES
        Configured<Hardware>::release();
#endif
    }
};

} // namespace
