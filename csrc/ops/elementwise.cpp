#include "ops/elementwise.h"

#include <algorithm>

#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {
constexpr std::size_t kGrain = 4096;   // elements: whole cache lines and whole vectors on every level
constexpr double kNsPerElement = 0.4;  // exp, tanh and their like on AVX-512 (the heads in kernels/vmath.h)
constexpr double kNsPerSum = 0.1;
}  // namespace

template <class T>
void map(typename Kernels<T>::Map f, T* y, const T* x, std::size_t n) {
    parallel_for(n, kGrain, kNsPerElement, [=](std::size_t begin, std::size_t end) { f(y + begin, x + begin, end - begin); });
}

template <class T>
ActivationCall<T> activation_call(const Activation& f) {
    return {f.kind, T(f.parameter), kernels().of<T>().activation[int(f.kind)]};
}
template <class T>
DerivativeCall<T> derivative_call(const Activation& f) {
    const Kernels<T>& k = kernels().of<T>();
    return {f.kind, T(f.parameter), f.of_slope ? k.backward_of_slope : k.activation_backward[int(f.kind)]};
}

namespace {
// run(first element, elements) for every row, or for runs of elements that do not depend on each other.
template <class F>
void for_rows_or_elements(ActivationKind kind, std::size_t rows, std::size_t columns, F run) {
    if (info(kind).by_rows)
        parallel_for(rows, 1, kNsPerElement * double(columns), [=](std::size_t begin, std::size_t end) {
            for (std::size_t r = begin; r < end; ++r) run(r * columns, columns);
        });
    else
        parallel_for(rows * columns, kGrain, kNsPerElement, [=](std::size_t begin, std::size_t end) { run(begin, end - begin); });
}
}  // namespace

template <class T>
void activation(const Activation& f, T* y, const T* x, std::size_t rows, std::size_t columns) {
    const ActivationCall<T> call = activation_call<T>(f);
    for_rows_or_elements(f.kind, rows, columns,
                         [=](std::size_t at, std::size_t n) { call.kernel(y + at, x + at, n, call.parameter); });
}

template <class T>
void activation_with_slope(const Activation& f, T* y, T* slope, const T* x, std::size_t n) {
    const auto kernel = kernels().of<T>().activation_slope[int(f.kind)];
    parallel_for(n, kGrain, kNsPerElement, [=](std::size_t begin, std::size_t end) {
        kernel(y + begin, slope + begin, x + begin, end - begin, T(f.parameter));
    });
}

template <class T>
void activation_backward(const Activation& f, T* dx, const T* dy, const T* source, std::size_t rows, std::size_t columns) {
    const DerivativeCall<T> call = derivative_call<T>(f);
    for_rows_or_elements(f.kind, rows, columns,
                         [=](std::size_t at, std::size_t n) { call.kernel(dx + at, dy + at, source + at, n, call.parameter); });
}

template <class T>
void activation_sides(const Activation& f, T* y, std::uint8_t* sides, const T* x, std::size_t n) {
    const auto kernel = kernels().of<T>().activation_sides[int(f.kind)];
    parallel_for(n, kGrain, kNsPerSum, [=](std::size_t begin, std::size_t end) {
        kernel(y + begin, sides + begin, x ? x + begin : nullptr, end - begin, T(f.parameter));
    });
}

template <class T>
void backward_of_sides(const Activation& f, T* dx, const T* dy, const std::uint8_t* sides, std::size_t n) {
    const auto kernel = kernels().of<T>().backward_of_sides[int(f.kind)];
    parallel_for(n, kGrain, kNsPerSum, [=](std::size_t begin, std::size_t end) {
        kernel(dx + begin, dy + begin, sides + begin, end - begin, T(f.parameter));
    });
}

template <class T>
void copy(T* y, const T* x, std::size_t n) {
    parallel_for(n, kGrain, kNsPerSum, [=](std::size_t begin, std::size_t end) { std::copy(x + begin, x + end, y + begin); });
}

template <class T>
void sum(T* y, const T* a, const T* b, std::size_t n) {
    const auto kernel = kernels().of<T>().sum;
    parallel_for(n, kGrain, kNsPerSum,
                 [=](std::size_t begin, std::size_t end) { kernel(y + begin, a + begin, b + begin, end - begin); });
}

template <class T>
void standardize(T* y, const T* x, const T* mean, const T* scale, std::size_t rows, std::size_t columns) {
    const auto kernel = kernels().of<T>().standardize;
    parallel_for(rows, 1, kNsPerElement * double(columns), [=](std::size_t begin, std::size_t end) {
        kernel(y + begin * columns, x + begin * columns, mean, scale, end - begin, columns);
    });
}

template <class T>
void standardize_backward(T* dx, const T* dy, const T* scale, std::size_t rows, std::size_t columns) {
    const auto kernel = kernels().of<T>().standardize_backward;
    parallel_for(rows, 1, kNsPerElement * double(columns), [=](std::size_t begin, std::size_t end) {
        kernel(dx + begin * columns, dy + begin * columns, scale, end - begin, columns);
    });
}

template void map(Kernels<float>::Map, float*, const float*, std::size_t);
template void copy(float*, const float*, std::size_t);
template void copy(double*, const double*, std::size_t);
template void sum(float*, const float*, const float*, std::size_t);
template void sum(double*, const double*, const double*, std::size_t);
template void map(Kernels<double>::Map, double*, const double*, std::size_t);
#define TRAINSTEP_INSTANTIATE(T)                                                                        \
    template ActivationCall<T> activation_call<T>(const Activation&);                                   \
    template DerivativeCall<T> derivative_call<T>(const Activation&);                                   \
    template void activation(const Activation&, T*, const T*, std::size_t, std::size_t);                \
    template void activation_with_slope(const Activation&, T*, T*, const T*, std::size_t);              \
    template void activation_sides(const Activation&, T*, std::uint8_t*, const T*, std::size_t);        \
    template void backward_of_sides(const Activation&, T*, const T*, const std::uint8_t*, std::size_t); \
    template void activation_backward(const Activation&, T*, const T*, const T*, std::size_t, std::size_t);
TRAINSTEP_INSTANTIATE(float)
TRAINSTEP_INSTANTIATE(double)
#undef TRAINSTEP_INSTANTIATE
template void standardize(float*, const float*, const float*, const float*, std::size_t, std::size_t);
template void standardize(double*, const double*, const double*, const double*, std::size_t, std::size_t);
template void standardize_backward(float*, const float*, const float*, std::size_t, std::size_t);
template void standardize_backward(double*, const double*, const double*, std::size_t, std::size_t);

}  // namespace trainstep
