// The whole of a DLRM, all parts in one pass over the samples forwards and one backwards.
//
// A chunk of samples goes through bottom MLP, lookup, interaction and top MLP while what one part
// writes for the next is in the cache, and its rows come from memory while the bottom MLP computes.
// Each part computes what it computes alone, bit for bit.
#pragma once

#include <algorithm>

#include "interaction.h"
#include "lookup.h"
#include "mlp.h"

namespace {

struct Dlrm {
    Mlp bottom, top;
    Dots dots;
    bool narrow; // whether the table is bf16

    int64_t rows() const { return dots.B * dots.T; }
    int64_t step(int64_t samples) const {
        return std::min(bottom.together(samples), top.together(samples));
    }
    int64_t weights() const { return bottom.weights() + top.weights(); }
};

// What a forward pass leaves for the backward pass, in one block of memory.
struct Activations {
    char *bottom, *top; // inputs of all layers, see Mlp::h_bytes
    char *x, *z;        // (B, D) and (B, width), outputs of bottom MLP and interaction
    float *e;           // (B, T, D)
    int64_t bytes;

    Activations(const Dlrm &m, char *memory) {
        Scratch next{memory};
        const int64_t number = m.dots.x_narrow ? 2 : 4;
        bottom = next.take<char>(m.bottom.h_bytes());
        top = next.take<char>(m.top.h_bytes());
        x = next.take<char>(m.dots.B * m.dots.d * number);
        z = next.take<char>(m.dots.B * m.dots.width() * number);
        e = next.take<float>(m.rows() * m.dots.d);
        bytes = next.next - memory;
    }
};

// Writes rows (B, T) of the ids, and the logits (B, K) to `out`. Returns the first position of an id
// out of range, or NONE; the logits of its chunk are not written.
template <class Id>
int64_t dlrm_forward(const Dlrm &m, const float *dense, const Id *ids, const int64_t *starts,
                     const int64_t *sizes, const void *weight, const float *const *bottom,
                     const float *const *top, int64_t *rows, char *memory, void *out,
                     int threads) {
    const Activations a(m, memory);
    const int64_t bytes = up(Panels::bytes(m.bottom), 64);
    const Scratch packed = scratch<0>(bytes + Panels::bytes(m.top));
    Panels below(m.bottom, packed), above(m.top, Scratch{packed.next + bytes});
    below.set_biases(m.bottom, bottom);
    below.set_weights(m.bottom, bottom, threads);
    above.set_biases(m.top, top);
    above.set_weights(m.top, top, threads);
    const int64_t B = m.dots.B, T = m.dots.T, d = m.dots.d, step = m.step(B);
    Wrong wrong;
    each_chunk((B + step - 1) / step, m.weights() * B, threads, [&](int64_t chunk) {
        const int64_t begin = chunk * step, end = std::min(B, begin + step);
        one_hot_samples(ids, starts, sizes, T, rows, begin, end, wrong);
        // No row of a wrong id may be read, whoever sees it.
        if (wrong.answer() != NONE) return;
        for (int64_t l = begin * T; l < end * T; l++)
            if (m.narrow) prefetch_row(static_cast<const bf16 *>(weight) + rows[l] * d, d);
            else prefetch_row(static_cast<const float *>(weight) + rows[l] * d, d);
        mlp_samples(m.bottom, below, dense, a.bottom, a.x, begin, end - begin);
        // Rows that other chunks look up are theirs to fetch.
        by_dim(d, [&](auto D) {
            if (m.narrow)
                gather_rows<D()>(static_cast<const bf16 *>(weight), rows, end * T, d, a.e,
                                 begin * T, end * T);
            else
                gather_rows<D()>(static_cast<const float *>(weight), rows, end * T, d, a.e,
                                 begin * T, end * T);
        });
        dot_samples(m.dots, a.x, a.e, a.z, begin, end);
        mlp_samples(m.top, above, a.z, a.top, out, begin, end - begin);
    });
    return wrong.answer();
}

// From the gradient of the logits: those of all parameters of both MLPs, dW_0, db_0, dW_1, ..., and of
// the looked-up rows, de (B, T, D).
inline void dlrm_backward(const Dlrm &m, const float *dense, const float *const *bottom,
                          const float *const *top, char *memory, const void *out, const void *grad,
                          float *const *of_bottom, float *const *of_top, float *de, int threads) {
    const Activations a(m, memory);
    const int64_t B = m.dots.B, d = m.dots.d, width = m.dots.width();
    const int64_t number = m.dots.x_narrow ? 2 : 4, chunk_samples = std::min(B, CHUNK);
    const int64_t bytes = up(Backward::bytes(m.bottom), 64), more = up(Backward::bytes(m.top), 64);
    Scratch free = scratch<0>(bytes + more + chunk_samples * (width + d) * number + 256);
    Backward below(m.bottom, free, false), above(m.top, Scratch{free.next + bytes}, true);
    free.next += bytes + more;
    char *dz = free.take<char>(chunk_samples * width * number);
    char *dx = free.take<char>(chunk_samples * d * number);
    below.set_weights(m.bottom, bottom, threads);
    above.set_weights(m.top, top, threads);
    const auto bottom_inputs = inputs_of(m.bottom, dense, a.bottom);
    const auto top_inputs = inputs_of(m.top, a.z, a.top);
    for (int64_t begin = 0; begin < B; begin += CHUNK) {
        const int64_t samples = std::min(CHUNK, B - begin), step = m.step(samples);
        // These hold the samples from `begin` on alone.
        char *const dz_all = dz - begin * width * number, *const dx_all = dx - begin * d * number;
        each_chunk((samples + step - 1) / step, m.weights() * samples, threads,
                   [&](int64_t chunk) {
                       const int64_t row = chunk * step, rows = std::min(step, samples - row);
                       mlp_rows_back(m.top, above, top_inputs, out, grad, dz_all, begin, samples,
                                     row, rows);
                       dot_samples_back(m.dots, a.x, a.e, dz_all, dx_all, de, begin + row,
                                        begin + row + rows);
                       mlp_rows_back(m.bottom, below, bottom_inputs, a.x, dx_all, nullptr, begin,
                                     samples, row, rows);
                   });
        above.weight_gradients(m.top, samples, begin > 0, of_top, threads);
        below.weight_gradients(m.bottom, samples, begin > 0, of_bottom, threads);
    }
}

} // namespace
