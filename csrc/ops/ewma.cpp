#include "ops/ewma.h"

#include "kernels/table.h"
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

template void ewma(float*, const float*, std::size_t, std::size_t, double, bool);
template void ewma(double*, const double*, std::size_t, std::size_t, double, bool);

}  // namespace trainstep
