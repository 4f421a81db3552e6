// The whole of a DLRM: forwards in one call, backwards in one, or both at once with the loss.
//
// A chunk of samples goes through bottom MLP, lookup, interaction and top MLP, and back, while what one
// part writes for the next is in the cache; its rows come from memory while the bottom MLP computes.
// Gradients of weights are sums over a block of samples, before the next block begins. Each part
// computes what it computes alone, bit for bit.
#pragma once

#include <algorithm>

#include "interaction.h"
#include "lookup.h"
#include "loss.h"
#include "mlp.h"

namespace {

struct Dlrm {
    Mlp bottom, top;
    Dots dots;
    bool narrow; // whether the table is bf16

    int64_t logits() const { return top.sizes[top.layers]; }
    int64_t weights() const { return bottom.weights() + top.weights(); }
    int64_t step(int threads) const {
        return std::min(bottom.together(dots.B, threads), top.together(dots.B, threads));
    }
    // The same model for so many samples.
    Dlrm of(int64_t samples) const {
        Dlrm part = *this;
        part.bottom.B = part.top.B = part.dots.B = samples;
        return part;
    }
};

// Calls body(block's model, its first sample) for each block of CHUNK samples, in turn.
template <class Body> void each_block(const Dlrm &m, Body body) {
    for (int64_t begin = 0; begin < m.dots.B; begin += CHUNK)
        body(m.of(std::min(CHUNK, m.dots.B - begin)), begin);
}

// A batch, or a block of one, and the parameters.
template <class Id> struct Inputs {
    const float *dense;           // (B, N)
    const Id *ids;                // (B, T)
    const int64_t *starts, *sizes; // (T,): first rows of the tables in `weight`, and how many they have
    const void *weight;
    const float *const *bottom, *const *top; // W_0, b_0, W_1, ...
    int64_t *rows;                           // (B, T), which a forward pass writes

    Inputs from(const Dlrm &m, int64_t sample) const {
        Inputs part = *this;
        part.dense += sample * m.bottom.sizes[0];
        part.ids += sample * m.dots.T, part.rows += sample * m.dots.T;
        return part;
    }
};

// What the forward pass of a block leaves for its backward pass.
struct Activations {
    char *bottom, *top; // inputs of all layers, see Mlp::h_bytes
    char *x, *z;        // (B, D) and (B, width), outputs of bottom MLP and interaction
    float *e;           // (B, T, D)

    static int64_t number(const Dlrm &m) { return m.dots.x_narrow ? 2 : 4; }
    static int64_t bytes(const Dlrm &m) {
        const int64_t B = m.dots.B, d = m.dots.d, vectors = d + m.dots.width();
        return m.bottom.h_bytes() + m.top.h_bytes() + B * (vectors * number(m) + m.dots.T * d * 4) +
               5 * 64;
    }
    Activations(const Dlrm &m, Scratch memory) {
        bottom = memory.take<char>(m.bottom.h_bytes());
        top = memory.take<char>(m.top.h_bytes());
        x = memory.take<char>(m.dots.B * m.dots.d * number(m));
        z = memory.take<char>(m.dots.B * m.dots.width() * number(m));
        e = memory.take<float>(m.dots.B * m.dots.T * m.dots.d);
    }
};

// Weights as the products forwards read them.
struct Forwards {
    Panels below, above;

    static int64_t bytes(const Dlrm &m) {
        return Panels::bytes(m.bottom) + Panels::bytes(m.top) + 128;
    }
    Forwards(const Dlrm &m, Scratch memory)
        : below(m.bottom, memory.part(Panels::bytes(m.bottom))),
          above(m.top, memory.part(Panels::bytes(m.top))) {}

    template <class Id> void set_biases(const Dlrm &m, const Inputs<Id> &in) const {
        below.set_biases(m.bottom, in.bottom), above.set_biases(m.top, in.top);
    }
    // Chunks of packing.
    int64_t packs() const { return below.groups.back() + above.groups.back(); }
    template <class Id> void pack(const Dlrm &m, const Inputs<Id> &in, int64_t chunk) const {
        const int64_t first = below.groups.back();
        if (chunk < first) below.pack(m.bottom, in.bottom, chunk);
        else above.pack(m.top, in.top, chunk - first);
    }

    // Writes rows and logits (B, K) of samples [begin, end) of a block; without logits where an id is
    // out of range.
    template <class Id>
    void samples(const Dlrm &m, const Inputs<Id> &in, const Activations &a, float *out, int64_t begin,
                 int64_t end, Wrong &wrong) const {
        const int64_t T = m.dots.T, d = m.dots.d;
        one_hot_samples(in.ids, in.starts, in.sizes, T, in.rows, begin, end, wrong);
        // No row of a wrong id may be read, whoever sees it.
        if (wrong.answer() != NONE) return;
        const auto *narrow = static_cast<const bf16 *>(in.weight);
        const auto *wide = static_cast<const float *>(in.weight);
        for (int64_t l = begin * T; l < end * T; l++)
            if (m.narrow) prefetch_row(narrow + in.rows[l] * d, d);
            else prefetch_row(wide + in.rows[l] * d, d);
        mlp_samples(m.bottom, below, in.dense, a.bottom, a.x, begin, end - begin);
        // Rows that other chunks look up are theirs to fetch.
        by_dim(d, [&](auto D) {
            if (m.narrow) gather_rows<D()>(narrow, in.rows, end * T, d, a.e, begin * T, end * T);
            else gather_rows<D()>(wide, in.rows, end * T, d, a.e, begin * T, end * T);
        });
        dot_samples(m.dots, a.x, a.e, a.z, begin, end);
        mlp_samples(m.top, above, a.z, a.top, out, begin, end - begin);
    }
};

// Weights as the products backwards read them, and what a block keeps for the gradients of weights.
struct Backwards {
    Backward below, above;
    char *dz, *dx; // (B, width) and (B, D)

    static int64_t bytes(const Dlrm &m) {
        const int64_t samples = std::min(m.dots.B, CHUNK);
        return Backward::bytes(m.bottom) + Backward::bytes(m.top) +
               samples * (m.dots.width() + m.dots.d) * Activations::number(m) + 4 * 64;
    }
    Backwards(const Dlrm &m, Scratch memory)
        : below(m.bottom, memory.part(Backward::bytes(m.bottom)), false),
          above(m.top, memory.part(Backward::bytes(m.top)), true) {
        const int64_t samples = std::min(m.dots.B, CHUNK), number = Activations::number(m);
        dz = memory.take<char>(samples * m.dots.width() * number);
        dx = memory.take<char>(samples * m.dots.d * number);
    }

    int64_t packs() const { return below.pairs.back() + above.pairs.back(); }
    template <class Id> void pack(const Dlrm &m, const Inputs<Id> &in, int64_t chunk) const {
        const int64_t first = below.pairs.back();
        if (chunk < first) below.pack(m.bottom, in.bottom, chunk);
        else above.pack(m.top, in.top, chunk - first);
    }

    // From the gradient (B, K) of the logits of samples [begin, end) of a block: that of their rows,
    // de (B, T, D).
    template <class Id>
    void samples(const Dlrm &m, const Inputs<Id> &in, const Activations &a, const float *out,
                 const float *grad, float *de, int64_t begin, int64_t end) const {
        const int64_t B = m.dots.B, rows = end - begin;
        mlp_rows_back(m.top, above, inputs_of(m.top, a.z, a.top), out, grad, dz, 0, B, begin, rows);
        dot_samples_back(m.dots, a.x, a.e, dz, dx, de, begin, end);
        mlp_rows_back(m.bottom, below, inputs_of(m.bottom, in.dense, a.bottom), a.x, dx, nullptr, 0,
                      B, begin, rows);
    }

    // The gradients of all weights from a block; `more` adds to what is there.
    void weights(const Dlrm &m, bool more, float *const *of_bottom, float *const *of_top,
                 int threads) const {
        const int64_t first = below.outputs.back(), B = m.dots.B;
        each_chunk(first + above.outputs.back(), m.weights() * B, threads, [&](int64_t chunk) {
            if (chunk < first) below.weight_gradients(m.bottom, B, more, of_bottom, chunk);
            else above.weight_gradients(m.top, B, more, of_top, chunk - first);
        });
    }
};

// Calls body(first, end) for chunks of a block's samples.
template <class Body> void each_samples(const Dlrm &m, int threads, Body body) {
    const int64_t B = m.dots.B, step = m.step(threads);
    each_chunk((B + step - 1) / step, m.weights() * B, threads,
               [&](int64_t chunk) { body(chunk * step, std::min(B, (chunk + 1) * step)); });
}

// Bytes from one block's activations to the next one's.
inline int64_t block_bytes(const Dlrm &m) {
    return up(Activations::bytes(m.of(std::min(m.dots.B, CHUNK))), 64);
}
inline Activations activations_at(const Dlrm &block, int64_t bytes, char *memory, int64_t sample) {
    return {block, Scratch{memory + sample / CHUNK * bytes}};
}

// Writes the rows, and the logits (B, K) to `out`; `memory`, for the backward pass, begins at a multiple of
// 64. Returns the first position of an id out of range, or NONE; not all logits are written then.
template <class Id>
int64_t dlrm_forward(const Dlrm &m, const Inputs<Id> &in, char *memory, float *out, int threads) {
    const Forwards forwards(m, scratch<0>(Forwards::bytes(m)));
    forwards.set_biases(m, in);
    each_chunk(forwards.packs(), m.weights(), threads,
               [&](int64_t chunk) { forwards.pack(m, in, chunk); });
    const int64_t bytes = block_bytes(m);
    int64_t answer = NONE;
    each_block(m, [&](const Dlrm &block, int64_t sample) {
        if (answer != NONE) return;
        const Inputs<Id> part = in.from(m, sample);
        const Activations a = activations_at(block, bytes, memory, sample);
        float *const logits = out + sample * m.logits();
        Wrong wrong;
        each_samples(block, threads, [&](int64_t begin, int64_t end) {
            forwards.samples(block, part, a, logits, begin, end, wrong);
        });
        answer = wrong.answer(sample * m.dots.T);
    });
    return answer;
}

// From the gradient (B, K) of the logits: those of all parameters of both MLPs, dW_0, db_0, dW_1, ..., and of
// the looked-up rows, de (B, T, D).
template <class Id>
void dlrm_backward(const Dlrm &m, const Inputs<Id> &in, char *memory, const float *out,
                   const float *grad, float *const *of_bottom, float *const *of_top, float *de,
                   int threads) {
    const Backwards backwards(m, scratch<0>(Backwards::bytes(m)));
    each_chunk(backwards.packs(), m.weights(), threads,
               [&](int64_t chunk) { backwards.pack(m, in, chunk); });
    const int64_t bytes = block_bytes(m), K = m.logits(), row = m.dots.T * m.dots.d;
    each_block(m, [&](const Dlrm &block, int64_t sample) {
        const Inputs<Id> part = in.from(m, sample);
        const Activations a = activations_at(block, bytes, memory, sample);
        each_samples(block, threads, [&](int64_t begin, int64_t end) {
            backwards.samples(block, part, a, out + sample * K, grad + sample * K, de + sample * row,
                              begin, end);
        });
        backwards.weights(block, sample > 0, of_bottom, of_top, threads);
    });
}

// Both, with the mean binary cross-entropy of the labels (B, K) between them, written to `loss`.
template <class Id>
int64_t dlrm_step(const Dlrm &m, const Inputs<Id> &in, const float *labels, float *out, float *loss,
                  float *const *of_bottom, float *const *of_top, float *de, int threads) {
    const int64_t K = m.logits(), n = m.dots.B * K, row = m.dots.T * m.dots.d;
    Scratch free = scratch<0>(Forwards::bytes(m) + Backwards::bytes(m) + block_bytes(m) + 8 * n + 256);
    const Forwards forwards(m, free.part(Forwards::bytes(m)));
    const Backwards backwards(m, free.part(Backwards::bytes(m)));
    char *const memory = free.take<char>(block_bytes(m));
    float *const losses = free.take<float>(n), *const grad = free.take<float>(n);
    forwards.set_biases(m, in);
    const int64_t packs = forwards.packs();
    each_chunk(packs + backwards.packs(), 2 * m.weights(), threads, [&](int64_t chunk) {
        if (chunk < packs) forwards.pack(m, in, chunk);
        else backwards.pack(m, in, chunk - packs);
    });
    int64_t answer = NONE;
    each_block(m, [&](const Dlrm &block, int64_t sample) {
        if (answer != NONE) return;
        const Inputs<Id> part = in.from(m, sample);
        const Activations a(block, Scratch{memory});
        const int64_t at = sample * K;
        Wrong wrong;
        each_samples(block, threads, [&](int64_t begin, int64_t end) {
            forwards.samples(block, part, a, out + at, begin, end, wrong);
            if (wrong.answer() != NONE) return;
            const int64_t first = at + begin * K;
            losses_of(out + first, labels + first, (end - begin) * K, n, losses + first, grad + first);
            backwards.samples(block, part, a, out + at, grad + at, de + sample * row, begin, end);
        });
        answer = wrong.answer(sample * m.dots.T);
        if (answer == NONE) backwards.weights(block, sample > 0, of_bottom, of_top, threads);
    });
    *loss = static_cast<float>(mean_of(losses, n));
    return answer;
}

} // namespace
