// All layers of an MLP forwards, and all backwards, each in one call.
//
// Chunks of samples go through all layers, so that activations stay in a thread's cache and no layer
// waits for another. Gradients of weights are sums over samples: for those a chunk is some outputs of
// a layer, so that the bits are the same for any number of threads.
#pragma once

#include <algorithm>
#include <vector>

#include "gemm.h"
#include "pool.h"
#include "scratch.h"

namespace {

constexpr int64_t TOGETHER = 64;  // samples that go through the layers together, at most
constexpr int64_t CHUNK = 512;    // samples whose gradients are kept for those of the weights
constexpr int64_t DEPTH = 512;    // words of a sum over samples that are taken at once
constexpr int64_t OUTPUTS = 32;   // whose gradients of weights are computed together
constexpr int64_t PAIRS = 16;     // rows of packed weights that are written together
static_assert(TOGETHER % TILE == 0 && CHUNK % TOGETHER == 0 && TILE % 2 == 0 && OUTPUTS % TILE == 0);
static_assert(TOGETHER % (2 * SIDE) == 0 && OUTPUTS % (2 * SIDE) == 0);

// How layers multiply: floats, pairs of bf16, or these in tiles, of this CPU or emulated.
enum Products { WIDE, NARROW, TILES, EMULATED_TILES };

// What training drops after each ReLU: outputs for which less than `least` was drawn; `scale` makes up
// for them.
struct Dropout {
    const int16_t *const *drawn = nullptr;  // of layer i (B, sizes[i + 1]), and 2 * LANES more
    int64_t row = 0;                        // the sample that comes first
    int32_t least = 0;
    float scale = 1;
};

// Layer i maps h_i (B, sizes[i]) to h_{i+1} = dropout(relu(h_i W_i^T + b_i)).
struct Mlp {
    int64_t layers;
    const int64_t *sizes;  // (layers + 1)
    int64_t B;
    Products products;
    bool relu_last, x_narrow;
    Dropout dropout{};

    // Layers compute in bf16, but for a last one without ReLU.
    Products products_at(int64_t i) const { return relu_at(i) ? products : WIDE; }
    bool narrow_at(int64_t i) const { return products_at(i) != WIDE; }
    bool relu_at(int64_t i) const { return relu_last || i < layers - 1; }
    // Numbers that the rows of layer i's operands are a multiple of: whole words, or tiles.
    int64_t whole(int64_t i) const {
        return products_at(i) == WIDE ? 1 : products_at(i) == NARROW ? 2 : 2 * SIDE;
    }
    // Numbers between samples that layer i reads, or that its gradient has.
    int64_t in_step(int64_t i) const { return up(sizes[i], whole(i)); }
    int64_t out_step(int64_t i) const { return up(sizes[i + 1], whole(i)); }
    // Inputs and outputs of layer i as panels have them.
    int64_t in_columns(int64_t i) const { return up(sizes[i], std::max(LANES, whole(i))); }
    int64_t out_columns(int64_t i) const { return up(sizes[i + 1], std::max(LANES, whole(i))); }
    // Samples that go through the layers together: fewer where threads would have few chunks. No bit
    // depends on it: no sum runs over samples here.
    int64_t together(int64_t samples, int threads) const {
        const int64_t least = products >= TILES ? 2 * SIDE : TILE;
        return std::clamp<int64_t>(up(samples / (2 * threads), least), least, TOGETHER);
    }
    int64_t bytes_at(int64_t i) const { return narrow_at(i) ? 2 : 4; }
    // Bytes of a sample of x, and of the last layer's outputs or their gradient.
    int64_t x_bytes() const { return sizes[0] * (x_narrow ? 2 : 4); }
    int64_t out_bytes() const { return sizes[layers] * bytes_at(layers - 1); }
    // Whether x can be read as it is.
    bool reads_x() const { return x_narrow == narrow_at(0) && in_step(0) == sizes[0]; }
    // Bytes of h_i, none for x if that is read as it is.
    int64_t h_bytes(int64_t i) const {
        return i == 0 && reads_x() ? 0 : up(B * in_step(i) * bytes_at(i), 64);
    }
    int64_t h_bytes() const {
        int64_t sum = 64;  // vectors read past the end
        for (int64_t i = 0; i < layers; i++) sum += h_bytes(i);
        return sum;
    }
    int64_t weights() const {
        int64_t sum = 0;
        for (int64_t i = 0; i < layers; i++) sum += sizes[i] * sizes[i + 1];
        return sum;
    }
    int64_t work() const { return B * weights(); }
};

// Sixteen outputs of W (N, n) from `first`, as columns of the panels of W^T.
template <class Format>
void pack_outputs(const float *weight, int64_t n, int64_t N, int64_t first,
                  typename Format::Word *b) {
    constexpr int64_t numbers = LANES * Format::PER_WORD;
    constexpr bool narrow = Format::PER_WORD == 2;
    const int64_t K = up(n, Format::PER_WORD * Format::DEEP) / Format::PER_WORD;
    const int64_t outputs = std::min(LANES, N - first), panel = first / Format::PANEL * Format::PANEL;
    const int64_t width = std::min(Format::PANEL, up(N - panel, Format::COLUMNS));
    auto *to = reinterpret_cast<float *>(b) + panel * K + (first - panel);
    for (int64_t k = 0; k < K; k += LANES) {
        // Words of an output in a row, to be turned so that the outputs of a word are one.
        float square[LANES * LANES];
        const int64_t at = k * Format::PER_WORD, count = std::min(numbers, n - at);
        for (int64_t o = 0; o < LANES; o++) {
            float *row = square + o * LANES;
            const float *from = weight + (first + o) * n + at;
            if (o < outputs && count == numbers) {
                __builtin_prefetch(from + 2 * numbers);
                if (narrow)
                    store_factors(lanes(from), lanes(from + LANES), reinterpret_cast<bf16 *>(row));
                else
                    lanes(row) = lanes(from);
            } else {
                lanes(row) = Lanes{};
                if (o < outputs) store_row(from, row, 0, narrow, count);
            }
        }
        if (k + LANES <= K) {
            transpose16(square, LANES, to + k * width, width);
            continue;
        }
        float turned[LANES * LANES];
        transpose16(square, LANES, turned, LANES);
        for (int64_t q = 0; q < K - k; q++) lanes(to + (k + q) * width) = lanes(turned + q * LANES);
    }
}

// Words from two rows of n numbers that follow each other in a sum, as row k of panels of `WIDTH`
// columns; the second may be missing, or both, which are zeros.
template <class Format, int64_t WIDTH, int64_t UNIT, class Number>
void pack_rows(const Number *first, const Number *second, int64_t n, int64_t k, int64_t K,
               typename Format::Word *b) {
    for (int64_t panel = 0; panel < n; panel += WIDTH) {
        const int64_t left = n - panel, width = std::min(WIDTH, up(left, UNIT));
        auto *to = b + panel * K + k * width;
        if (second && left >= WIDTH) {
            for (int64_t j = 0; j < WIDTH; j++)
                to[j] = Format::word(first[panel + j], second[panel + j]);
        } else {
            for (int64_t j = 0; j < width; j++)
                to[j] = first && j < left ? Format::word(first[panel + j],
                                                         second ? second[panel + j] : Number(0))
                                          : typename Format::Word(0);
        }
    }
}

// Words k to k + count of n numbers of each sample, of which the first `rows` are there, as rows of
// panels of `WIDTH` columns. A panel at a time, or two narrow ones: what goes to all of them begins at
// the same set of a cache.
template <class Format, int64_t WIDTH, int64_t UNIT, class Number>
void pack_samples(const Number *from, int64_t step, int64_t rows, int64_t n, int64_t k, int64_t count,
                  int64_t K, typename Format::Word *to) {
    constexpr int64_t columns = std::max<int64_t>(WIDTH, 2 * LANES);
    for (int64_t o = 0; o < n; o += columns)
        for (int64_t word = 0; word < count; word++) {
            const int64_t r = word * Format::PER_WORD;
            const Number *row = from + r * step + o;
            pack_rows<Format, WIDTH, UNIT>(r < rows ? row : nullptr,
                                           r + 1 < rows ? row + step : nullptr,
                                           std::min(columns, n - o), k + word, K, to + o * K);
        }
}

// Gradients, as the products for the weights read them: word after word of LANES outputs.
template <class Format>
void pack_gradient(Format, const typename Format::Number *g, int64_t step, int64_t rows, int64_t n,
                   int64_t k, int64_t count, int64_t K, typename Format::Word *to) {
    pack_samples<Format, LANES, LANES>(g, step, rows, n, k, count, K, to);
}

// For tiles: squares of 16 outputs, each with 16 words.
template <class Tiles>
void pack_gradient(Tiled<Tiles>, const bf16 *g, int64_t step, int64_t rows, int64_t n, int64_t k,
                   int64_t count, int64_t K, uint32_t *to) {
    for (int64_t o = 0; o < up(n, 2 * SIDE); o += SIDE)
        for (int64_t word = 0; word < count; word += SIDE) {
            uint32_t square[SIDE * SIDE];
            for (int64_t r = 0; r < SIDE; r++) {
                const int64_t sample = 2 * (word + r);
                const bf16 *first = g + sample * step + o;
                for (int64_t j = 0; j < SIDE; j++)
                    square[r * SIDE + j] =
                        sample >= rows ? 0
                                       : Narrow::word(first[j], sample + 1 < rows ? first[step + j]
                                                                                  : bf16(0));
            }
            auto *turned = reinterpret_cast<float *>(to + o * K + (k + word) * SIDE);
            for (int64_t r = 0; r < SIDE; r += 4)
                for (int64_t j = 0; j < SIDE; j += 4)
                    transpose4(reinterpret_cast<const float *>(square) + r * SIDE + j, SIDE,
                               turned + j * SIDE + r, SIDE);
        }
}

// Calls body(format of layer i).
template <class Body> void by_format(const Mlp &mlp, int64_t i, Body body) {
    switch (mlp.products_at(i)) {
    case WIDE: return body(Wide());
    case NARROW: return body(Narrow());
#ifdef HARDWARE_TILES
    case TILES: return body(Tiled<Hardware>());
#endif
    default: return body(Tiled<Emulated>());
    }
}

// Copies samples of x to h as layer 0 reads them.
inline void copy_x(const Mlp &mlp, const void *x, int64_t rows, void *h) {
    const int64_t n = mlp.sizes[0], step = mlp.in_step(0);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t from = r * n;
        if (mlp.x_narrow && mlp.narrow_at(0)) {
            std::memcpy(static_cast<bf16 *>(h) + r * step, static_cast<const bf16 *>(x) + from,
                        n * sizeof(bf16));
        } else if (mlp.x_narrow) {
            load_row(x, from, true, n, static_cast<float *>(h) + r * step);
        } else {
            store_row(static_cast<const float *>(x) + from, h, r * step, mlp.narrow_at(0), n);
        }
        if (step > n) std::fill_n(static_cast<bf16 *>(h) + r * step + n, step - n, bf16(0));
    }
}

// The weights of all layers in panels, and their biases.
struct Panels {
    std::vector<uint32_t *> weight;
    std::vector<float *> bias;
    std::vector<int64_t> packs{0};  // of LANES outputs: those of layer i end before packs[i + 1]

    static int64_t bytes(const Mlp &mlp) {
        int64_t sum = 0;
        for (int64_t i = 0; i < mlp.layers; i++)
            sum += (mlp.in_step(i) + 1) * mlp.out_columns(i) * 4 + 128;
        return sum;
    }
    Panels(const Mlp &mlp, Scratch memory) {
        for (int64_t i = 0; i < mlp.layers; i++) {
            const int64_t N = mlp.out_columns(i);
            weight.push_back(memory.take<uint32_t>(mlp.in_step(i) * mlp.bytes_at(i) / 4 * N));
            bias.push_back(memory.take<float>(N));
            packs.push_back(packs.back() + N / LANES);
        }
    }
    void set_biases(const Mlp &mlp, const float *const *parameters) const {
        for (int64_t i = 0; i < mlp.layers; i++) {
            const int64_t N = mlp.sizes[i + 1];
            std::fill(std::copy(parameters[2 * i + 1], parameters[2 * i + 1] + N, bias[i]),
                      bias[i] + mlp.out_columns(i), 0.0f);
        }
    }
    // Lays out the weights of LANES outputs.
    void pack(const Mlp &mlp, const float *const *parameters, int64_t chunk) const {
        int64_t i = 0;
        while (chunk >= packs[i + 1]) i++;
        by_format(mlp, i, [&](auto format) {
            using Format = decltype(format);
            pack_outputs<Format>(parameters[2 * i], mlp.sizes[i], mlp.sizes[i + 1],
                                 (chunk - packs[i]) * LANES,
                                 reinterpret_cast<typename Format::Word *>(weight[i]));
        });
    }
    void set(const Mlp &mlp, const float *const *parameters, int threads) const {
        set_biases(mlp, parameters);
        each_chunk(packs.back(), mlp.weights(), threads,
                   [&, this](int64_t chunk) { pack(mlp, parameters, chunk); });
    }
};

// h_i from a sample on, which is sample `row` of all that h has memory for, and the first one of x.
inline std::vector<char *> inputs_of(const Mlp &mlp, const void *x, char *h, int64_t row) {
    std::vector<char *> input(mlp.layers);
    for (int64_t i = 0; i < mlp.layers; i++) {
        input[i] = h + row * mlp.in_step(i) * mlp.bytes_at(i);
        h += mlp.h_bytes(i);
    }
    if (mlp.reads_x()) input[0] = static_cast<char *>(const_cast<void *>(x));
    return input;
}

// Takes samples through all layers; input[i] is h_i, and all begin with the first of them.
inline void mlp_samples(const Mlp &mlp, const Panels &panels, const void *x,
                        const std::vector<char *> &input, void *out, int64_t rows) {
    const TileRegion region;
    if (!mlp.reads_x()) copy_x(mlp, x, rows, input[0]);
    for (int64_t i = 0; i < mlp.layers; i++) {
        Target target{};
        const bool last = i == mlp.layers - 1;
        target.narrow = last ? mlp.narrow_at(i) : mlp.narrow_at(i + 1);
        target.step = target.width = last ? mlp.sizes[mlp.layers] : mlp.in_step(i + 1);
        target.to = last ? out : input[i + 1];
        target.bias = panels.bias[i];
        if ((target.relu = mlp.relu_at(i))) {
            target.scale = mlp.dropout.scale;
            target.least = mlp.dropout.least;
            target.drawn_step = mlp.sizes[i + 1];
            if (mlp.dropout.drawn)
                target.drawn = mlp.dropout.drawn[i] + mlp.dropout.row * target.drawn_step;
        }
        by_format(mlp, i, [&](auto format) {
            using Format = decltype(format);
            using Word = typename Format::Word;
            const int64_t K = mlp.in_step(i) / Format::PER_WORD;
            multiply(format, reinterpret_cast<const Word *>(input[i]), K, rows,
                     reinterpret_cast<const Word *>(panels.weight[i]), K, mlp.sizes[i + 1],
                     target);
        });
    }
}

// parameters: W_0, b_0, W_1, ...; packed: what mlp_pack made of them, or null; h: h_bytes() for the
// backward pass, or null where none follows; out (B, sizes[layers]).
inline void mlp_forward(const Mlp &mlp, const void *x, const float *const *parameters, char *packed,
                        char *h, void *out, int threads) {
    Panels panels(mlp, packed ? Scratch{packed} : scratch<0>(Panels::bytes(mlp)));
    if (!packed) panels.set(mlp, parameters, threads);
    const int64_t step = mlp.together(mlp.B, threads);
    each_chunk((mlp.B + step - 1) / step, mlp.work(), threads, [&](int64_t chunk) {
        const int64_t row = chunk * step, rows = std::min(step, mlp.B - row);
        // Without a backward pass, all chunks of a thread go through the same memory.
        Mlp part = mlp;
        part.B = step, part.dropout.row = row;
        const char *const from = at(x, row * mlp.x_bytes());
        const auto input = h ? inputs_of(mlp, from, h, row)
                             : inputs_of(part, from, scratch<1>(part.h_bytes()).next, 0);
        mlp_samples(part, panels, from, input, at(out, row * mlp.out_bytes()), rows);
    });
}

// Lays the parameters out for calls of mlp_forward, into Panels::bytes bytes from a multiple of 64.
inline void mlp_pack(const Mlp &mlp, const float *const *parameters, char *packed, int threads) {
    Panels(mlp, Scratch{packed}).set(mlp, parameters, threads);
}

// The gradient of the last layer before its ReLU, as its products read it.
inline void gate_last(const Mlp &mlp, const void *grad, const void *out, int64_t rows, void *g) {
    const int64_t i = mlp.layers - 1, n = mlp.sizes[i + 1], step = mlp.out_step(i);
    const bool narrow = mlp.narrow_at(i);
    std::vector<float> from(n), y(n);
    for (int64_t r = 0; r < rows; r++) {
        load_row(grad, r * n, narrow, n, from.data());
        if (mlp.relu_last) {
            load_row(out, r * n, narrow, n, y.data());
            for (int64_t k = 0; k < n; k++)
                from[k] = y[k] > 0 ? from[k] * mlp.dropout.scale : 0.0f;
        }
        store_row(from.data(), g, r * step, narrow, n);
        if (step > n) std::fill_n(static_cast<bf16 *>(g) + r * step + n, step - n, bf16(0));
    }
}

// to (rows, n) = or, where `more`, += a block of sums (rows, width) from a column on.
inline void keep(const float *sums, int64_t width, int64_t rows, int64_t column, int64_t n,
                 bool more, float *to) {
    const int64_t count = std::min(width, n - column);
    for (int64_t m = 0; m < rows; m++, to += n, sums += width)
        if (more)
            for (int64_t i = 0; i < count; i++) to[column + i] += sums[i];
        else
            for (int64_t i = 0; i < count; i++) to[column + i] = sums[i];
}

// dW = g^T h and db = 1^T g over the K words of a chunk, for outputs [first, end) of a layer
// n -> N; `more` adds to what is there. g is as `pack_gradient` leaves it, h in panels.
template <class Format>
void weight_gradient(Format, const typename Format::Word *g, const typename Format::Word *h, int64_t K,
                     int64_t first, int64_t end, int64_t n, bool more, float *weight,
                     float *bias) {
    for (int64_t k = 0; k < K; k += DEPTH) {
        const int64_t depth = std::min(DEPTH, K - k);
        by_panel<Format>(n, [&](auto wide, int64_t column) {
            float sums[TILE * Format::PANEL];
            const auto *panel = h + in_panel<Format>(column, k, K, n);
            for (int64_t o = first; o < end; o += TILE) {
                const typename Format::Word *at[TILE];
                const auto *word = g + (o - o % LANES) * K + k * LANES + o % LANES;
                for (int64_t m = 0; m < TILE; m++) at[m] = word + m;
                const int64_t outputs = std::min<int64_t>(TILE, end - o);
                // Where the sums go, while they are computed.
                for (int64_t m = o; m < o + outputs; m++)
                    for (int64_t w = column; w < std::min(n, column + wide() * LANES); w += LANES)
                        __builtin_prefetch(weight + m * n + w, 1);
                tile<Format, wide(), LANES>(at, panel, depth, sums);
                keep(sums, wide() * LANES, outputs, column, n, more || k > 0, weight + o * n);
            }
        });
    }
    for (int64_t o = first; o < end; o += LANES) {
        float sum[LANES] = {};
        for (int64_t k = 0; k < K; k++)
            for (int64_t m = 0; m < LANES; m++) sum[m] += Format::sum(g[o * K + k * LANES + m]);
        for (int64_t m = 0; m < std::min(LANES, end - o); m++)
            bias[o + m] = more ? bias[o + m] + sum[m] : sum[m];
    }
}

template <class Tiles>
void weight_gradient(Tiled<Tiles>, const uint32_t *g, const uint32_t *h, int64_t K, int64_t first,
                     int64_t end, int64_t n, bool more, float *weight, float *bias) {
    constexpr int64_t together = 2 * SIDE;
    for (int64_t o = first; o < end; o++) {
        // Word k of output o, among those of its square.
        const uint32_t *row = g + o / SIDE * SIDE * K + o % SIDE * SIDE;
        Lanes sums = {};
        for (int64_t k = 0; k < K; k += SIDE, row += SIDE * SIDE)
            sums += reinterpret_cast<Lanes>(words(row) << 16) +
                    reinterpret_cast<Lanes>(words(row) & 0xffff0000u);
        float sum = more ? bias[o] : 0;
        for (int64_t i = 0; i < LANES; i++) sum += sums[i];
        bias[o] = sum;
    }
    Configured<Tiles>::rows(together);
    alignas(64) float sums[together * together];
    for (int64_t k = 0; k < K; k += DEPTH, more = true) {
        const int64_t depth = std::min(DEPTH, K - k);
        for (int64_t column = 0; column < n; column += together)
            for (int64_t o = first; o < end; o += together) {
                const uint32_t *upper = g + o * K + k * SIDE;
                tile_block<Tiles, true>(upper, upper + SIDE * K, SIDE, SIDE * SIDE,
                                        h + in_panel<Tiled<Tiles>>(column, k, K, n), depth, sums);
                keep(sums, together, std::min(together, end - o), column, n, more, weight + o * n);
            }
    }
}

// What a backward pass keeps beside h: weights as its products read them, and for those of the
// weights' gradients the inputs h and gradients g of a chunk of samples.
struct Backward {
    std::vector<uint32_t *> weight, g, h;
    std::vector<int64_t> packs{0}, outputs{0};  // chunks of each layer, of packing and of gradients

    static int64_t samples(const Mlp &mlp) { return std::min(up(mlp.B, TOGETHER), CHUNK); }
    static int64_t bytes(const Mlp &mlp) {
        int64_t sum = 0;
        for (int64_t i = 0; i < mlp.layers; i++) {
            const int64_t n = mlp.in_columns(i), N = mlp.out_columns(i);
            sum += 4 * (mlp.out_step(i) * n + samples(mlp) * (n + N)) + 192;
        }
        return sum;
    }
    // `to_x` says whether the gradient of x is asked for.
    Backward(const Mlp &mlp, Scratch memory, bool to_x) {
        for (int64_t i = 0; i < mlp.layers; i++) {
            const int64_t per_word = mlp.narrow_at(i) ? 2 : 1, K = mlp.out_step(i) / per_word;
            weight.push_back(memory.take<uint32_t>(K * mlp.in_columns(i)));
            g.push_back(memory.take<uint32_t>(samples(mlp) / per_word * mlp.out_columns(i)));
            h.push_back(memory.take<uint32_t>(samples(mlp) / per_word * mlp.in_columns(i)));
            packs.push_back(packs.back() + (i > 0 || to_x ? (K + PAIRS - 1) / PAIRS : 0));
            outputs.push_back(outputs.back() + (mlp.sizes[i + 1] + OUTPUTS - 1) / OUTPUTS);
        }
    }

    // Lays out the weights of a chunk of pairs.
    void pack(const Mlp &mlp, const float *const *parameters, int64_t chunk) const {
        int64_t i = 0;
        while (chunk >= packs[i + 1]) i++;
        by_format(mlp, i, [&](auto format) {
            using Format = decltype(format);
            const int64_t n = mlp.sizes[i], N = mlp.sizes[i + 1];
            const int64_t K = mlp.out_step(i) / Format::PER_WORD;
            const int64_t begin = (chunk - packs[i]) * PAIRS;
            for (int64_t k = begin; k < std::min(K, begin + PAIRS); k++) {
                const int64_t o = k * Format::PER_WORD;
                const float *first = parameters[2 * i] + o * n;
                pack_rows<Format, Format::PANEL, Format::COLUMNS>(
                    o < N ? first : nullptr, o + 1 < N ? first + n : nullptr, n, k, K,
                    reinterpret_cast<typename Format::Word *>(weight[i]));
            }
        });
    }

    // The gradients of the weights of a chunk of outputs, from `samples` samples; `more` adds to what
    // is there.
    void weight_gradients(const Mlp &mlp, int64_t samples, bool more, float *const *gradients,
                          int64_t chunk) const {
        const TileRegion region;
        int64_t i = 0;
        while (chunk >= outputs[i + 1]) i++;
        by_format(mlp, i, [&](auto format) {
            using Format = decltype(format);
            using Word = typename Format::Word;
            const int64_t first = (chunk - outputs[i]) * OUTPUTS;
            constexpr int64_t per_word = Format::PER_WORD;
            const int64_t K = up(samples, per_word * Format::DEEP) / per_word;
            weight_gradient(format, reinterpret_cast<const Word *>(g[i]),
                            reinterpret_cast<const Word *>(h[i]), K, first,
                            std::min(first + OUTPUTS, mlp.sizes[i + 1]), mlp.sizes[i], more,
                            gradients[2 * i], gradients[2 * i + 1]);
        });
    }
};

// Takes the gradients of samples through all layers; input[i] is h_i, and all begin with the first of
// them, which is sample `row` of the `samples` that are kept together.
inline void mlp_samples_back(const Mlp &mlp, const Backward &kept, const std::vector<char *> &input,
                             const void *out, const void *grad, void *dx, int64_t samples,
                             int64_t row, int64_t rows) {
    const TileRegion region;
    int64_t widest = 0;
    for (int64_t i = 0; i < mlp.layers; i++) widest = std::max(widest, mlp.out_step(i));
    Scratch memory = scratch<1>(2 * up(TOGETHER * widest * 4, 64));
    char *g = memory.take<char>(TOGETHER * widest * 4);
    char *next = memory.take<char>(TOGETHER * widest * 4);
    gate_last(mlp, grad, out, rows, g);
    for (int64_t i = mlp.layers - 1; i >= 0; i--) {
        by_format(mlp, i, [&](auto format) {
            using Format = decltype(format);
            using Word = typename Format::Word;
            using Number = typename Format::Number;
            constexpr int64_t per_word = Format::PER_WORD;
            constexpr int64_t whole = per_word * Format::DEEP;
            const int64_t K = up(samples, whole) / per_word, k = row / per_word;
            const int64_t words = up(rows, whole) / per_word;
            const int64_t in_step = mlp.in_step(i), out_step = mlp.out_step(i);
            const auto *h_rows = reinterpret_cast<const Number *>(input[i]);
            pack_samples<Format, Format::PANEL, Format::COLUMNS>(
                h_rows, in_step, rows, mlp.sizes[i], k, words, K,
                reinterpret_cast<Word *>(kept.h[i]));
            pack_gradient(format, reinterpret_cast<const Number *>(g), out_step, rows,
                          mlp.sizes[i + 1], k, words, K, reinterpret_cast<Word *>(kept.g[i]));
            if (i == 0 && !dx) return;
            Target target{};
            target.narrow = i ? mlp.narrow_at(i - 1) : mlp.x_narrow;
            target.step = target.width = i ? mlp.out_step(i - 1) : mlp.sizes[0];
            target.to = i ? next : dx;
            if (i) {
                target.gate = h_rows;
                target.gate_narrow = mlp.narrow_at(i);
                target.gate_step = in_step;
                // What was dropped is zero, and so is its gradient.
                target.scale = mlp.dropout.scale;
            }
            const int64_t step = out_step / per_word;
            multiply(format, reinterpret_cast<const Word *>(g), step, rows,
                     reinterpret_cast<const Word *>(kept.weight[i]), step, mlp.sizes[i], target);
        });
        std::swap(g, next);
    }
}

// gradients: dW_0, db_0, dW_1, ...; dx (B, sizes[0]) of x's type, or null.
inline void mlp_backward(const Mlp &mlp, const void *x, const float *const *parameters, char *h,
                         const void *out, const void *grad, float *const *gradients, void *dx,
                         int threads) {
    Backward kept(mlp, scratch<0>(Backward::bytes(mlp)), dx != nullptr);
    each_chunk(kept.packs.back(), mlp.weights(), threads,
               [&](int64_t chunk) { kept.pack(mlp, parameters, chunk); });
    for (int64_t begin = 0; begin < mlp.B; begin += CHUNK) {
        const int64_t samples = std::min(CHUNK, mlp.B - begin), step = mlp.together(samples, threads);
        each_chunk((samples + step - 1) / step, mlp.weights() * samples, threads,
                   [&](int64_t chunk) {
                       const int64_t row = chunk * step, first = begin + row;
                       const int64_t from = first * mlp.x_bytes(), to = first * mlp.out_bytes();
                       mlp_samples_back(mlp, kept, inputs_of(mlp, at(x, from), h, first), at(out, to),
                                        at(grad, to), dx ? at(dx, from) : nullptr, samples, row,
                                        std::min(step, samples - row));
                   });
        each_chunk(kept.outputs.back(), mlp.weights() * samples, threads, [&](int64_t chunk) {
            kept.weight_gradients(mlp, samples, begin > 0, gradients, chunk);
        });
    }
}

} // namespace
