// KernelTable: the whole contract between the compiled kernels and the rest of the library.
//
// Each ISA level compiles the k_*.cpp files once, in a namespace of its own, and fills one table. A kernel works on one thread's
// share: it knows neither threads nor Python, allocates nothing, and checks nothing. Signatures go: outputs, inputs, sizes,
// parameters. d marks a gradient: dx is the gradient of the loss with respect to x.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/activations.h"
#include "kernels/dropout.h"
#include "kernels/gemm.h"
#include "kernels/losses.h"
#include "kernels/metrics.h"
#include "kernels/normalize.h"
#include "kernels/optimizers.h"
#include "kernels/probes.h"
#include "kernels/vmath_list.h"

namespace trainstep {

TRAINSTEP_FAMILY(VmathFunction, TRAINSTEP_VMATH_FUNCTIONS)

// One dtype's kernels.
template <class T>
struct Kernels {
    using Map = void (*)(T* y, const T* x, std::size_t n);

    Map vmath[kVmathFunctionCount];  // y = f(x)
    ActivationForward<T> activation[kActivationKindCount];
    ActivationBackward<T> activation_backward[kActivationKindCount];
    ActivationSlope<T> activation_slope[kActivationKindCount];  // null of those without a slope for each element
    ActivationBackward<T> backward_of_slope;                    // dx = dy * source, whichever activation it is the slope of

    ActivationSides<T> activation_sides[kActivationKindCount];  // null of those that are not two-sided
    BackwardOfSides<T> backward_of_sides[kActivationKindCount];

    void (*sum)(T* y, const T* a, const T* b, std::size_t n);  // y = a + b

    // y = (x - mean) * scale and dx = dy * scale, over rows of `columns` elements.
    void (*standardize)(T* y, const T* x, const T* mean, const T* scale, std::size_t rows, std::size_t columns);
    void (*standardize_backward)(T* dx, const T* dy, const T* scale, std::size_t rows, std::size_t columns);

    // The block of rows [m0, m1) and columns [n0, n1) of a product. scratch: gemm_scratch(blocks) elements.
    void (*gemm)(const Gemm<T>& g, std::size_t m0, std::size_t m1, std::size_t n0, std::size_t n1, const GemmBlocks& blocks,
                 T* scratch);
    std::size_t (*gemm_scratch)(const GemmBlocks& blocks);
    std::size_t gemm_tile_rows, gemm_tile_columns;  // cuts between threads fall on multiples of these

    // The epilogue of a product whose chains lie each in an array of their own: C = activation(sum of them + bias).
    void (*sum_chains)(const Gemm<T>& g, const T* chains, std::size_t count, std::size_t apart);

    // db[n] = sum over m of dz[m, n], for the columns [n0, n1); = or, with accumulate, +=. The rows of dz begin `stride` elements
    // apart.
    void (*column_sum)(T* db, const T* dz, std::size_t stride, std::size_t rows, std::size_t n0, std::size_t n1, bool accumulate);

    void (*loss[kLossCount])(const LossRows<T>& rows);

    // What metrics are made of. See kernels/metrics.h.
    void (*metric_classes)(const ClassRows<T>& rows);
    void (*metric_errors)(const ErrorColumns<T>& columns);

    // Normalisation of rows, and of columns: statistics first, then y; the gradients of gamma and beta first, then dx. See
    // kernels/normalize.h.
    void (*layer_norm)(T* y, T* mean, T* inv_std, T* normalized, const T* x, const T* gamma, const T* beta, std::size_t rows,
                       std::size_t columns, double eps);
    void (*layer_norm_backward)(const LayerNormBackward<T>& a, std::size_t r0, std::size_t r1, double* sums);
    void (*layer_norm_parameters_of_sums)(const LayerNormBackward<T>& a, const double* sums, std::size_t n0, std::size_t n1);
    void (*layer_norm_parameters)(const LayerNormBackward<T>& a, std::size_t n0, std::size_t n1);
    void (*batch_statistics)(const BatchNorm<T>& batch, std::size_t n0, std::size_t n1);
    void (*running_statistics)(const BatchNorm<T>& batch, std::size_t n0, std::size_t n1);
    void (*batch_norm)(const BatchNorm<T>& batch, std::size_t r0, std::size_t r1, std::size_t n0, std::size_t n1);
    void (*batch_norm_backward_parameters)(const BatchNormBackward<T>& batch, std::size_t n0, std::size_t n1);
    void (*batch_norm_backward)(const BatchNormBackward<T>& batch, std::size_t r0, std::size_t r1, std::size_t n0, std::size_t n1);

    // y = x * scale where an element is kept, else 0: drawn for the n elements from `first` on, or from a mask that is there.
    void (*dropout)(T* y, std::uint8_t* kept, const T* x, std::size_t first, std::size_t n, const DropoutMask& mask, T scale);
    void (*dropout_masked)(T* y, const std::uint8_t* kept, const T* x, std::size_t n, T scale);

    // Moving averages down the columns [n0, n1).
    void (*ewma)(T* y, const T* x, std::size_t rows, std::size_t columns, std::size_t n0, std::size_t n1, double beta,
                 bool bias_correction);
    // average += rate * (x - average).
    void (*approach)(T* average, const T* x, std::size_t n, T rate);

    // One update of a span, in place. direction: the pass before it, of the rules with a trust ratio; null for the others.
    void (*optimizer[kOptimizerKindCount])(const StepSpan<T>& span);
    void (*direction[kOptimizerKindCount])(const StepSpan<T>& span, SquareSums& sums);

    // What is asked of weights besides a small loss. See kernels/penalty.h.
    double (*penalty_sum)(const T* w, std::size_t n, double l1, double l2);
    void (*add_penalty_slope)(T* g, const T* w, std::size_t n, T l1, T l2);
    void (*keep)(T* x, const T* mask, std::size_t n);
    void (*limit_units)(T* w, std::size_t rows, std::size_t columns, std::size_t n0, std::size_t n1, double max_norm);

    double (*sum_of_squares)(const void* x, Dtype dtype, std::size_t n, double scale);  // of scale * x
    T (*max_abs)(const T* x, std::size_t n);
    void (*scale)(T* x, std::size_t n, T factor);
    void (*clamp)(T* x, std::size_t n, T limit);

    // `rounds` rounds of multiply-adds in registers, each of fma_probe_flops; what it returns is of no meaning.
    T (*fma_probe)(std::size_t rounds);
    double fma_probe_flops;
};

struct KernelTable {
    Kernels<float> f32;
    Kernels<double> f64;

    // A product of pieces, as gemm. See kernels/pieces.h.
    void (*gemm_pieces)(const Gemm<float>& g, std::size_t m0, std::size_t m1, std::size_t n0, std::size_t n1,
                        const GemmBlocks& blocks, float* scratch);
    std::size_t (*gemm_pieces_scratch)(const GemmBlocks& blocks);
    std::size_t gemm_pieces_tile_rows, gemm_pieces_tile_columns;
    // All of B ahead of such products: how many bytes that takes, which must be 0 at first; and columns [n0, n1) and elements [k0,
    // k1) of it, which begin at multiples of pieces_grain and end there or with B: false where a number is not finite, then it is
    // not to be used.
    std::size_t (*packed_pieces)(const Gemm<float>& g);
    bool (*pack_pieces)(void* packed, const Gemm<float>& g, std::size_t n0, std::size_t n1, std::size_t k0, std::size_t k1);
    std::size_t pieces_grain;
    double gemm_pieces_rate;        // multiply-adds of pieces in the time of one of float32
    const char* gemm_pieces_units;  // what they are calculated with, for config()

    // One pass over n floats of each of the stream's arrays; n is a multiple of kStreamGrain. The result is of no meaning.
    float (*stream_probe[kStreamCount])(float* const* arrays, std::size_t n);

    // x = a state that is stored in fewer bits, and back, to nearest.
    void (*load_state)(float* x, const LowBitState& state, std::size_t n);
    void (*store_state)(const LowBitState& state, const float* x, std::size_t n);

    template <class T>
    const Kernels<T>& of() const {
        if constexpr (sizeof(T) == 4)
            return f32;
        else
            return f64;
    }
};

}  // namespace trainstep
