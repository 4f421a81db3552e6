// Threads that share the chunks of a loop out, and a caller that waits for none that has not begun.
//
// A loop has a fixed number of chunks, which its shape decides, so that no bit depends on how many
// threads there are or on who takes what. Each thread begins with a part of its own, so that what it
// wrote in the last loop is still in its cache, and then takes from the others' what they have not
// begun. The caller works like all others: where the system puts a helper aside, the caller does that
// helper's chunks, and waits only for one that is really in work.
//
// Helpers wait for the next loop awake for as long as a step has between two kernels, then asleep;
// beside other programs they sleep at once, because their share of a core would be gone when there is
// work. They are never joined, and what they read is never freed, so that a process may end at any time.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

namespace {

constexpr int64_t SMALL = 1 << 14; // floats below which a second thread costs more than it gives
constexpr int64_t GRAIN = 1 << 13; // floats of a chunk where nothing else decides

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits for `ready`, awake; returns whether it came within so many microseconds.
template <class Ready> bool awaited(int64_t microseconds, Ready ready) {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::microseconds(microseconds);
    do {
        for (int i = 0; i < 32; i++) {
            if (ready()) return true;
            relax();
        }
    } while (Clock::now() < end);
    return false;
}

class Pool {
  public:
    using Body = void (*)(const void *context, int64_t chunk);

    // Calls body(context, chunk) once for each chunk below `chunks`, on at most so many threads.
    void run(int64_t chunks, int threads, Body call, const void *with) noexcept {
        threads = int(std::min<int64_t>({threads, chunks, MOST}));
        // Whoever comes while others compute, or from within a chunk, does all by itself.
        if (threads < 2 || taken.exchange(true, std::memory_order_acquire)) {
            for (int64_t chunk = 0; chunk < chunks; chunk++) call(with, chunk);
            return;
        }
        threads = hired(threads);
        body = call, context = with;
        done.store(0, std::memory_order_relaxed);
        team.store(threads, std::memory_order_relaxed);
        // From here on helpers may work, even if they come late from the last loop.
        for (int t = 0; t < threads; t++)
            parts[t].left.store(uint64_t(chunks * (t + 1) / threads) << 32 |
                                    uint64_t(chunks * t / threads),
                                std::memory_order_release);
        loops.fetch_add(1);
        if (asleep.load() > 0) {
            { std::lock_guard<std::mutex> hold(mutex); }
            begun.notify_all();
        }
        work(0);
        const auto all_done = [&] { return done.load() == chunks; };
        int others = crowded.load(std::memory_order_relaxed);
        if (!awaited(AWAKE_FOR_HELPERS, all_done)) {
            std::unique_lock<std::mutex> hold(mutex);
            waiting.store(true);
            if (!ended.wait_for(hold, std::chrono::microseconds(LATE), all_done)) {
                ended.wait(hold, all_done);
                others = CROWDED;
            }
            waiting.store(false);
        }
        crowded.store(std::max(0, others - 1), std::memory_order_relaxed);
        taken.store(false, std::memory_order_release);
    }

  private:
    static constexpr int MOST = 256;                 // threads
    static constexpr int64_t AWAKE = 50;             // microseconds until a helper sleeps
    static constexpr int64_t AWAKE_FOR_HELPERS = 20; // and until the caller does
    static constexpr int64_t LATE = 200;             // and until a helper counts as put aside
    static constexpr int CROWDED = 200;              // loops for which that is remembered

    // Chunks of a thread that nobody has begun: the first, and above it where they end. One word, so
    // that whoever changes it has begun a chunk of a loop that is still under way.
    struct alignas(128) Part {
        std::atomic<uint64_t> left{0};

        bool take(bool from_end, int64_t *chunk) {
            uint64_t now = left.load(std::memory_order_acquire);
            for (;;) {
                const uint64_t first = now & 0xffffffff, end = now >> 32;
                if (first >= end) return false;
                const uint64_t rest = from_end ? now - (uint64_t(1) << 32) : now + 1;
                if (left.compare_exchange_weak(now, rest, std::memory_order_acq_rel,
                                               std::memory_order_acquire)) {
                    *chunk = int64_t(from_end ? end - 1 : first);
                    return true;
                }
            }
        }
    };

    void work(int me) noexcept {
        const int all = team.load(std::memory_order_relaxed);
        int64_t chunk;
        for (int i = 0; i < all; i++)
            while (parts[(me + i) % all].take(i > 0, &chunk)) {
                body(context, chunk);
                done.fetch_add(1);
                if (waiting.load()) {
                    { std::lock_guard<std::mutex> hold(mutex); }
                    ended.notify_one();
                }
            }
    }

    void help(int me) noexcept {
        for (uint64_t seen = 0;;) {
            const auto more = [&] { return loops.load() != seen; };
            const bool alone = crowded.load(std::memory_order_relaxed) == 0;
            if (!awaited(alone ? AWAKE : 0, more)) {
                std::unique_lock<std::mutex> hold(mutex);
                asleep.fetch_add(1);
                begun.wait(hold, more);
                asleep.fetch_sub(1);
            }
            seen = loops.load();
            if (me < team.load(std::memory_order_relaxed)) work(me);
        }
    }

    // Starts helpers until there are so many threads; returns how many there are.
    int hired(int threads) {
        if (helpers + 1 >= threads) return threads;
        // Signals are for the threads of the program.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            for (; helpers + 1 < threads; helpers++)
                std::thread(&Pool::help, this, helpers + 1).detach();
        } catch (const std::system_error &) { // the system gives no more
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return helpers + 1;
    }

    Part parts[MOST];
    alignas(128) std::atomic<uint64_t> loops{0};
    std::atomic<int> team{0};
    Body body = nullptr;
    const void *context = nullptr;
    alignas(128) std::atomic<int64_t> done{0};
    std::atomic<bool> waiting{false};
    alignas(128) std::atomic<bool> taken{false};
    std::atomic<int> asleep{0};
    std::atomic<int> crowded{0};
    int helpers = 0;
    std::mutex mutex;
    std::condition_variable begun, ended;
};

inline std::atomic<Pool *> &current_pool() {
    static std::atomic<Pool *> pool{nullptr};
    return pool;
}

// The pool of this process: a child that was forked has none of its parent's threads.
inline Pool &pool() {
    Pool *now = current_pool().load(std::memory_order_acquire);
    if (now) return *now;
    static std::once_flag forks;
    std::call_once(forks, [] {
        pthread_atfork(nullptr, nullptr, [] { current_pool().store(nullptr); });
    });
    auto *fresh = new Pool;
    if (current_pool().compare_exchange_strong(now, fresh)) return *fresh;
    delete fresh; // without threads yet
    return *now;
}

// Calls body(chunk) for each chunk below `chunks`; `work` is that of all of them, in floats.
template <class Body>
void each_chunk(int64_t chunks, int64_t work, int threads, const Body &body) {
    if (work <= SMALL || threads < 2 || chunks < 2) {
        for (int64_t chunk = 0; chunk < chunks; chunk++) body(chunk);
        return;
    }
    pool().run(
        chunks, threads,
        [](const void *context, int64_t chunk) { (*static_cast<const Body *>(context))(chunk); },
        &body);
}

// Calls body(first, end) for pieces of [0, count) of about GRAIN floats, `size` for each of them.
template <class Body>
void each_piece(int64_t count, int64_t size, int threads, const Body &body) {
    const int64_t step = std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, size));
    each_chunk((count + step - 1) / step, count * size, threads, [&](int64_t chunk) {
        body(chunk * step, std::min(count, (chunk + 1) * step));
    });
}

} // namespace
