#include "ops/elementwise.h"

#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {
constexpr std::size_t kGrain = 4096;   // elements: whole cache lines and whole vectors on every level
constexpr double kNsPerElement = 0.4;  // exp, tanh and their like on AVX-512 (the heads in kernels/vmath.h)
}  // namespace

template <class T>
void map(typename Kernels<T>::Map f, T* y, const T* x, std::size_t n) {
    parallel_for(n, kGrain, kNsPerElement, [=](std::size_t begin, std::size_t end) { f(y + begin, x + begin, end - begin); });
}

template <class T>
void activation_backward(Activation f, T* dx, const T* dy, const T* y, std::size_t n) {
    const auto kernel = kernels().of<T>().activation_backward[int(f)];
    parallel_for(n, kGrain, kNsPerElement,
                 [=](std::size_t begin, std::size_t end) { kernel(dx + begin, dy + begin, y + begin, end - begin); });
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
template void map(Kernels<double>::Map, double*, const double*, std::size_t);
template void activation_backward(Activation, float*, const float*, const float*, std::size_t);
template void activation_backward(Activation, double*, const double*, const double*, std::size_t);
template void standardize(float*, const float*, const float*, const float*, std::size_t, std::size_t);
template void standardize(double*, const double*, const double*, const double*, std::size_t, std::size_t);
template void standardize_backward(float*, const float*, const float*, std::size_t, std::size_t);
template void standardize_backward(double*, const double*, const double*, std::size_t, std::size_t);

}  // namespace trainstep
