// The whole of a DLRM: forwards in one call, backwards in one, or both at once with the loss.
//
// A chunk of samples goes through bottom MLP, lookup, interaction and top MLP, and back, while what one
// part writes for the next is in the cache; its first rows come from memory while the bottom MLP computes.
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
    // The same model for so many samples.
    Dlrm of(int64_t samples) const {
        Dlrm part = *this;
        part.bottom.B = part.top.B = part.dots.B = samples;
        return part;
    }
};

// A batch, or samples of one, and the parameters.
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

// What a forward pass leaves for its backward pass, from a sample on.
struct Activations {
    char *bottom, *top; // inputs of all layers, see Mlp::h_bytes, of which this is sample `row`
    int64_t row;
    char *x, *z; // (B, D) and (B, width), outputs of bottom MLP and interaction
    float *e;    // (B, T, D)

    static int64_t bytes(const Dlrm &m) {
        return m.bottom.h_bytes() + m.top.h_bytes() +
               m.dots.B * (m.bottom.out_bytes() + m.top.x_bytes() + m.dots.T * m.dots.d * 4) + 5 * 64;
    }
    // Of m's samples those from `row` on.
    Activations(const Dlrm &m, Scratch memory, int64_t row = 0) : row(row) {
        const int64_t B = m.dots.B, vectors = m.dots.T * m.dots.d;
        bottom = memory.take<char>(m.bottom.h_bytes());
        top = memory.take<char>(m.top.h_bytes());
        x = memory.take<char>(B * m.bottom.out_bytes()) + row * m.bottom.out_bytes();
        z = memory.take<char>(B * m.top.x_bytes()) + row * m.top.x_bytes();
        e = memory.take<float>(B * vectors) + row * vectors;
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

    // Writes rows and logits (B, K) of so many samples. Returns the first position of an id out of range,
    // without logits, or NONE.
    template <class Id>
    int64_t samples(const Dlrm &m, const Inputs<Id> &in, const Activations &a, float *out,
                    int64_t count) const {
        const int64_t d = m.dots.d, L = count * m.dots.T;
        Wrong wrong;
        one_hot_samples(in.ids, in.starts, in.sizes, m.dots.T, in.rows, 0, count, wrong);
        // No row of a wrong id may be read.
        if (wrong.answer() != NONE) return wrong.answer();
        const auto *narrow = static_cast<const bf16 *>(in.weight);
        const auto *wide = static_cast<const float *>(in.weight);
        // The first rows, before which nothing else asks for them; all of them would wait for each other.
        for (int64_t l = 0; l < std::min(L, ahead(d * (m.narrow ? 2 : 4))); l++)
            if (m.narrow) prefetch_row(narrow + in.rows[l] * d, d);
            else prefetch_row(wide + in.rows[l] * d, d);
        mlp_samples(m.bottom, below, in.dense, inputs_of(m.bottom, in.dense, a.bottom, a.row), a.x,
                    count);
        by_dim(d, [&](auto D) {
            if (m.narrow) gather_rows<D()>(narrow, in.rows, L, d, a.e, 0, L);
            else gather_rows<D()>(wide, in.rows, L, d, a.e, 0, L);
        });
        dot_samples(m.dots, a.x, a.e, a.z, 0, count);
        mlp_samples(m.top, above, a.z, inputs_of(m.top, a.z, a.top, a.row), out, count);
        return NONE;
    }
};

// Weights as the products backwards read them, and what is kept of a block for the gradients of weights.
struct Backwards {
    Backward below, above;

    static int64_t bytes(const Dlrm &m) {
        return Backward::bytes(m.bottom) + Backward::bytes(m.top) + 128;
    }
    Backwards(const Dlrm &m, Scratch memory)
        : below(m.bottom, memory.part(Backward::bytes(m.bottom)), false),
          above(m.top, memory.part(Backward::bytes(m.top)), true) {}

    // From the gradient (B, K) of the logits of so many samples, the first of which is sample `row` of a
    // block: that of their rows, de (B, T, D).
    template <class Id>
    void samples(const Dlrm &m, const Inputs<Id> &in, const Activations &a, const float *out,
                 const float *grad, float *de, int64_t block, int64_t row, int64_t count) const {
        const int64_t dz_bytes = count * m.top.x_bytes(), dx_bytes = count * m.bottom.out_bytes();
        Scratch memory = scratch<3>(dz_bytes + dx_bytes + 64);
        char *const dz = memory.take<char>(dz_bytes), *const dx = memory.take<char>(dx_bytes);
        mlp_samples_back(m.top, above, inputs_of(m.top, a.z, a.top, a.row), out, grad, dz, block, row,
                         count);
        dot_samples_back(m.dots, a.x, a.e, dz, dx, de, 0, count);
        mlp_samples_back(m.bottom, below, inputs_of(m.bottom, in.dense, a.bottom, a.row), a.x, dx,
                         nullptr, block, row, count);
    }

    // The gradients of all weights from a block; `more` adds to what is there.
    void weights(const Dlrm &m, int64_t block, bool more, float *const *of_bottom,
                 float *const *of_top, int threads) const {
        const int64_t first = below.outputs.back();
        each_chunk(first + above.outputs.back(), m.weights() * block, threads, [&](int64_t chunk) {
            if (chunk < first) below.weight_gradients(m.bottom, block, more, of_bottom, chunk);
            else above.weight_gradients(m.top, block, more, of_top, chunk - first);
        });
    }
};

// Chunks of laying out the weights of both MLPs, for one direction, and one of them.
template <class Both> int64_t packs_of(const Both &both) {
    return both.below.packs.back() + both.above.packs.back();
}
template <class Both, class Id>
void pack(const Both &both, const Dlrm &m, const Inputs<Id> &in, int64_t chunk) {
    const int64_t first = both.below.packs.back();
    if (chunk < first) both.below.pack(m.bottom, in.bottom, chunk);
    else both.above.pack(m.top, in.top, chunk - first);
}

// Calls body(first, count) for chunks of so many samples.
template <class Body>
void each_samples(const Dlrm &m, int64_t samples, int threads, Body body) {
    const int64_t step = std::min(m.bottom.together(samples, threads), m.top.together(samples, threads));
    each_chunk((samples + step - 1) / step, m.weights() * samples, threads, [&](int64_t chunk) {
        body(chunk * step, std::min(step, samples - chunk * step));
    });
}

// Writes the rows, and the logits (B, K) to `out`; `memory`, for the backward pass, begins at a multiple
// of 64. Returns the first position of an id out of range, or NONE; not all logits are written then.
template <class Id>
int64_t dlrm_forward(const Dlrm &m, const Inputs<Id> &in, char *memory, float *out, int threads) {
    const Forwards forwards(m, scratch<0>(Forwards::bytes(m)));
    forwards.set_biases(m, in);
    each_chunk(packs_of(forwards), m.weights(), threads,
               [&](int64_t chunk) { pack(forwards, m, in, chunk); });
    Wrong wrong;
    each_samples(m, m.dots.B, threads, [&](int64_t first, int64_t count) {
        const Activations a(m, Scratch{memory}, first);
        const int64_t answer =
            forwards.samples(m, in.from(m, first), a, out + first * m.logits(), count);
        if (answer != NONE) wrong.at(first * m.dots.T + answer);
    });
    return wrong.answer();
}

// From the gradient (B, K) of the logits: those of all parameters of both MLPs, dW_0, db_0, dW_1, ...,
// and of the looked-up rows, de (B, T, D).
template <class Id>
void dlrm_backward(const Dlrm &m, const Inputs<Id> &in, char *memory, const float *out,
                   const float *grad, float *const *of_bottom, float *const *of_top, float *de,
                   int threads) {
    const Backwards backwards(m, scratch<0>(Backwards::bytes(m)));
    each_chunk(packs_of(backwards), m.weights(), threads,
               [&](int64_t chunk) { pack(backwards, m, in, chunk); });
    const int64_t K = m.logits(), vectors = m.dots.T * m.dots.d;
    for (int64_t begin = 0; begin < m.dots.B; begin += CHUNK) {
        const int64_t block = std::min(CHUNK, m.dots.B - begin);
        each_samples(m, block, threads, [&](int64_t row, int64_t count) {
            const int64_t first = begin + row;
            const Activations a(m, Scratch{memory}, first);
            backwards.samples(m, in.from(m, first), a, out + first * K, grad + first * K,
                              de + first * vectors, block, row, count);
        });
        backwards.weights(m, block, begin > 0, of_bottom, of_top, threads);
    }
}

// Both, with the mean binary cross-entropy of the labels (B, K) between them, written to `loss`. All
// chunks of a thread have their activations in the same memory, which stays in its cache.
template <class Id>
int64_t dlrm_step(const Dlrm &m, const Inputs<Id> &in, const float *labels, float *out, float *loss,
                  float *const *of_bottom, float *const *of_top, float *de, int threads) {
    const int64_t K = m.logits(), n = m.dots.B * K, vectors = m.dots.T * m.dots.d;
    Scratch free = scratch<0>(Forwards::bytes(m) + Backwards::bytes(m) + 8 * n + 256);
    const Forwards forwards(m, free.part(Forwards::bytes(m)));
    const Backwards backwards(m, free.part(Backwards::bytes(m)));
    float *const losses = free.take<float>(n), *const grad = free.take<float>(n);
    forwards.set_biases(m, in);
    const int64_t packs = packs_of(forwards);
    each_chunk(packs + packs_of(backwards), 2 * m.weights(), threads, [&](int64_t chunk) {
        if (chunk < packs) pack(forwards, m, in, chunk);
        else pack(backwards, m, in, chunk - packs);
    });
    Wrong wrong;
    for (int64_t begin = 0; begin < m.dots.B && wrong.answer() == NONE; begin += CHUNK) {
        const int64_t block = std::min(CHUNK, m.dots.B - begin);
        each_samples(m, block, threads, [&](int64_t row, int64_t count) {
            const int64_t first = begin + row, at = first * K;
            const Dlrm part = m.of(count);
            const Activations a(part, scratch<2>(Activations::bytes(part)));
            const Inputs<Id> inputs = in.from(m, first);
            const int64_t answer = forwards.samples(part, inputs, a, out + at, count);
            if (answer != NONE) return wrong.at(first * m.dots.T + answer);
            losses_of(out + at, labels + at, count * K, n, losses + at, grad + at);
            backwards.samples(part, inputs, a, out + at, grad + at, de + first * vectors, block, row,
                              count);
        });
        if (wrong.answer() == NONE)
            backwards.weights(m, block, begin > 0, of_bottom, of_top, threads);
    }
    *loss = static_cast<float>(mean_of(losses, n));
    return wrong.answer();
}

} // namespace
