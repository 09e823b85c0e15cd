#include "ops/ewma.h"

#include "kernels/table.h"
#include "ops/elementwise.h"
#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

template <class T>
void ewma(T* y, const T* x, std::size_t rows, std::size_t columns, double beta, bool bias_correction) {
    constexpr std::size_t grain = 128 / sizeof(T);  // two vectors of any level
    constexpr double ns_per_element = 0.25;         // on one core of a Zen 4 with AVX-512
    const auto kernel = kernels().of<T>().ewma;
    parallel_for(columns, grain, ns_per_element * double(rows),
                 [=](std::size_t begin, std::size_t end) { kernel(y, x, rows, columns, begin, end, beta, bias_correction); });
}

template <class T>
void approach(T* average, const T* x, std::size_t n, double rate) {
    if (rate == 1) return copy(average, x, n);
    const auto kernel = kernels().of<T>().approach;
    constexpr double ns = 0.1;  // bound by memory
    parallel_for(n, 4096, ns,
                 [=](std::size_t begin, std::size_t end) { kernel(average + begin, x + begin, end - begin, T(rate)); });
}

template void ewma(float*, const float*, std::size_t, std::size_t, double, bool);
template void ewma(double*, const double*, std::size_t, std::size_t, double, bool);
template void approach(float*, const float*, std::size_t, double);
template void approach(double*, const double*, std::size_t, double);

}  // namespace trainstep
