// The CPU kernels behind a plain C ABI: no torch headers, so one binary serves every version.
//
// Compiled once per instruction set by dlrm.ops.build; loops are written so that the compiler
// vectorises them. dlrm.ops.cpu declares the same functions and says what the arguments are.
//
// Legend: R rows of the stacked tables, D embedding dimension, L looked-up rows, G bags, B batch,
// T tables, F vectors that interact. Pointers to tensors are contiguous; `threads` is how many
// threads torch uses.

#include "dense.h"
#include "dlrm.h"
#include "interaction.h"
#include "layers.h"
#include "lookup.h"
#include "loss.h"
#include "mlp.h"
#include "updates.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum Storage { FP32, BF16, SPLIT };

// Calls body(table, dimension) for how the table is stored and how long its rows are.
template <class Body>
void by_table(int storage, int64_t dim, void *weight, void *lower, uint32_t seed, Body body) {
    by_dim(dim, [&](auto d) {
        switch (storage) {
        case FP32: return body(Float{static_cast<float *>(weight)}, d);
        case BF16:
            if (seed == 0) return body(Nearest{static_cast<bf16 *>(weight)}, d);
            return body(Bf16{static_cast<bf16 *>(weight), seed}, d);
        default: return body(Split{static_cast<bf16 *>(weight), static_cast<uint16_t *>(lower)}, d);
        }
    });
}

} // namespace

EXPORT int64_t rows_of(const void *ids, int wide, const int64_t *offsets, const int64_t *starts,
                       const int64_t *sizes, int64_t L, int64_t bags, int64_t T, int64_t *rows,
                       int threads) {
    const auto *ids32 = static_cast<const int32_t *>(ids);
    const auto *ids64 = static_cast<const int64_t *>(ids);
    if (offsets)
        return wide ? bag_rows(ids64, offsets, starts, sizes, L, bags, T, rows, threads)
                    : bag_rows(ids32, offsets, starts, sizes, L, bags, T, rows, threads);
    return wide ? one_hot_rows(ids64, starts, sizes, bags, T, rows, threads)
                : one_hot_rows(ids32, starts, sizes, bags, T, rows, threads);
}

EXPORT void lookup(const void *weight, int narrow, const int64_t *rows, int64_t L, int64_t dim,
                   float *out, int threads) {
    by_dim(dim, [&](auto d) {
        if (narrow)
            gather<d()>(static_cast<const bf16 *>(weight), rows, L, dim, out, threads);
        else
            gather<d()>(static_cast<const float *>(weight), rows, L, dim, out, threads);
    });
}

#define BAGS const int64_t *starts, const int64_t *ends, int64_t bags, int64_t L

EXPORT void pooled_lookup(const void *weight, int narrow, const int64_t *rows, BAGS, int64_t dim,
                          const float *scale, float *out, int threads) {
    const Bags of{starts, ends, bags, L};
    by_dim(dim, [&](auto d) {
        if (narrow)
            pool<d()>(static_cast<const bf16 *>(weight), rows, of, dim, scale, out, threads);
        else
            pool<d()>(static_cast<const float *>(weight), rows, of, dim, scale, out, threads);
    });
}

EXPORT void bags_of(BAGS, int32_t *out, int threads) {
    bag_of_each(Bags{starts, ends, bags, L}, out, threads);
}

EXPORT void weights_gradient(const void *weight, int narrow, const int64_t *rows, BAGS,
                             const float *grad, int64_t dim, float *out, int threads) {
    const Bags of{starts, ends, bags, L};
    if (narrow)
        scale_gradient(static_cast<const bf16 *>(weight), rows, of, grad, dim, out, threads);
    else
        scale_gradient(static_cast<const float *>(weight), rows, of, grad, dim, out, threads);
}

#define UPDATE                                                                                     \
    int storage, void *weight, void *lower, uint32_t seed, const int64_t *rows, const float *grad, \
        const int32_t *bags, const float *scale, int64_t L, int64_t dim, float lr, int threads,    \
        float l2, int64_t every
#define AS_UPDATE {rows, grad, bags, scale, L, dim, lr, threads, l2, every}

EXPORT void sgd_update(UPDATE) {
    const Update u AS_UPDATE;
    by_table(storage, dim, weight, lower, seed, [&](auto table, auto d) { sgd<d()>(u, table); });
}

EXPORT void adagrad_update(UPDATE, float *state, float eps) {
    const Update u AS_UPDATE;
    by_table(storage, dim, weight, lower, seed,
             [&](auto table, auto d) { adagrad<d()>(u, table, state, eps); });
}

EXPORT void rowwise_adagrad_update(UPDATE, float *state, float eps) {
    const Update u AS_UPDATE;
    by_table(storage, dim, weight, lower, seed,
             [&](auto table, auto d) { rowwise_adagrad<d()>(u, table, state, eps); });
}

EXPORT void adam_update(UPDATE, float *moments, float rest1, float rest2, float eps) {
    const Update u AS_UPDATE;
    const Moments both{moments, rest1, rest2, eps};
    by_table(storage, dim, weight, lower, seed,
             [&](auto table, auto d) { adam<d()>(u, table, both); });
}

#define DENSE const int64_t *words, int64_t count, float lr, float decay, int threads

EXPORT void dense_sgd(DENSE) {
    dense_sgd_step({words, count}, lr, decay, threads);
}

EXPORT void dense_adagrad(DENSE, float eps) {
    dense_adagrad_step({words, count}, lr, decay, threads, eps);
}

EXPORT void dense_adam(DENSE, float rest1, float rest2, float eps) {
    dense_adam_step({words, count}, lr, decay, threads, rest1,
                    rest2, eps);
}

EXPORT void dot_interaction(const void *x, int x_narrow, const void *e, int e_narrow, int64_t B,
                            int64_t T, int64_t dim, int self, void *out, int threads) {
    dot_forward({B, T, dim, self != 0, x_narrow != 0, e_narrow != 0}, x, e, out, threads);
}

EXPORT void dot_interaction_gradient(const void *x, int x_narrow, const void *e, int e_narrow,
                                     const void *grad, int64_t B, int64_t T, int64_t dim,
                                     int self, void *dx, void *de, int threads) {
    dot_backward({B, T, dim, self != 0, x_narrow != 0, e_narrow != 0}, x, e, grad, dx, de,
                 threads);
}

EXPORT void relu_gradient(const void *grad, const void *y, int narrow, int64_t B, int64_t K,
                          void *out, float *bias, int threads) {
    if (narrow)
        mask_and_sum(static_cast<const bf16 *>(grad), static_cast<const bf16 *>(y), B, K,
                     static_cast<bf16 *>(out), bias, threads);
    else
        mask_and_sum(static_cast<const float *>(grad), static_cast<const float *>(y), B, K,
                     static_cast<float *>(out), bias, threads);
}

EXPORT double bce(const float *z, const float *y, int64_t count, float *grad, int threads) {
    return cross_entropy(z, y, count, grad, threads);
}

EXPORT int multiplies_bf16() { return multiplies_narrow(); }

EXPORT int multiplies_tiles() { return has_tiles(); }

#define MLP                                                                                    \
    const int64_t *sizes, int64_t layers, int64_t B, int products, int relu_last, int x_narrow
#define AS_MLP Mlp{layers, sizes, B, Products(products), relu_last != 0, x_narrow != 0}

EXPORT int64_t mlp_bytes(MLP) { return AS_MLP.h_bytes(); }

EXPORT int64_t mlp_packed_bytes(MLP) { return Panels::bytes(AS_MLP); }

EXPORT void mlp_pack(MLP, const float *const *parameters, char *packed, int threads) {
    mlp_pack(AS_MLP, parameters, packed, threads);
}

EXPORT void mlp_forward(MLP, const void *x, const float *const *parameters, char *packed, char *h,
                        void *out, const int16_t *const *drawn, int least, float scale,
                        int threads) {
    Mlp mlp = AS_MLP;
    mlp.dropout = Dropout{drawn, 0, least, scale};
    mlp_forward(mlp, x, parameters, packed, h, out, threads);
}

EXPORT void mlp_backward(MLP, const void *x, const float *const *parameters, char *h,
                         const void *out, const void *grad, float *const *gradients, void *dx,
                         float scale, int threads) {
    Mlp mlp = AS_MLP;
    mlp.dropout.scale = scale;
    mlp_backward(mlp, x, parameters, h, out, grad, gradients, dx, threads);
}

#define DLRM                                                                                  \
    const int64_t *below, int64_t layers_below, const int64_t *above, int64_t layers_above,   \
        int64_t B, int products, int64_t T, int self, int narrow
#define AS_DLRM                                                                               \
    Dlrm{Mlp{layers_below, below, B, Products(products), true, false},                        \
         Mlp{layers_above, above, B, Products(products), false, products != WIDE},            \
         Dots{B, T, below[layers_below], self != 0, products != WIDE, false}, narrow != 0}

#define INPUTS                                                                                 \
    const float *dense, const void *ids, int wide, const int64_t *starts, const int64_t *sizes, \
        const void *weight, const float *const *bottom, const float *const *top, int64_t *rows
#define AS_INPUTS dense, ids, wide, starts, sizes, weight, bottom, top, rows
#define GRADIENTS float *const *of_bottom, float *const *of_top, float *de

namespace {

// Calls body(inputs) with ids of 64 bits or 32.
template <class Body> int64_t by_ids(INPUTS, Body body) {
    return wide ? body(Inputs<int64_t>{dense, static_cast<const int64_t *>(ids), starts, sizes,
                                       weight, bottom, top, rows})
                : body(Inputs<int32_t>{dense, static_cast<const int32_t *>(ids), starts, sizes,
                                       weight, bottom, top, rows});
}

} // namespace

EXPORT int64_t dlrm_bytes(DLRM) {
    return Activations::bytes(AS_DLRM);
}

EXPORT int64_t dlrm_forward(DLRM, INPUTS, char *memory, float *out, int threads) {
    const Dlrm m = AS_DLRM;
    return by_ids(AS_INPUTS,
                  [&](const auto &in) { return dlrm_forward(m, in, memory, out, threads); });
}

EXPORT void dlrm_backward(DLRM, INPUTS, char *memory, const float *out, const float *grad, GRADIENTS,
                          int threads) {
    const Dlrm m = AS_DLRM;
    by_ids(AS_INPUTS, [&](const auto &in) {
        dlrm_backward(m, in, memory, out, grad, of_bottom, of_top, de, threads);
        return NONE;
    });
}

EXPORT int64_t dlrm_step(DLRM, INPUTS, const float *labels, float *out, float *loss, GRADIENTS,
                         int threads) {
    const Dlrm m = AS_DLRM;
    return by_ids(AS_INPUTS, [&](const auto &in) {
        return dlrm_step(m, in, labels, out, loss, of_bottom, of_top, de, threads);
    });
}
