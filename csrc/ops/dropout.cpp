#include "ops/dropout.h"

#include <algorithm>
#include <cmath>

#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {
constexpr std::size_t kGrain = 4096;                               // elements: whole groups of 64 that are drawn together
constexpr double kNsPerElement = 0.45, kNsPerElementMasked = 0.1;  // on one core of a Zen 4 with AVX-512
}  // namespace

DropoutMask dropout_mask(double rate, std::uint64_t seed, std::uint32_t counter) {
    const double threshold = std::min(std::nearbyint(rate * 0x1p32), 0x1p32 - 1);
    return {seed, counter, std::uint32_t(threshold)};
}

template <class T>
void dropout(T* y, std::uint8_t* kept, const T* x, std::size_t n, const DropoutMask& mask, T scale, std::size_t first) {
    const auto kernel = kernels().of<T>().dropout;
    parallel_for(n, kGrain, kNsPerElement, [=](std::size_t begin, std::size_t end) {
        kernel(y + begin, kept ? kept + begin : nullptr, x + begin, first + begin, end - begin, mask, scale);
    });
}

template <class T>
void dropout_masked(T* y, const std::uint8_t* kept, const T* x, std::size_t n, T scale) {
    const auto kernel = kernels().of<T>().dropout_masked;
    parallel_for(n, kGrain, kNsPerElementMasked,
                 [=](std::size_t begin, std::size_t end) { kernel(y + begin, kept + begin, x + begin, end - begin, scale); });
}

template void dropout(float*, std::uint8_t*, const float*, std::size_t, const DropoutMask&, float, std::size_t);
template void dropout(double*, std::uint8_t*, const double*, std::size_t, const DropoutMask&, double, std::size_t);
template void dropout_masked(float*, const std::uint8_t*, const float*, std::size_t, float);
template void dropout_masked(double*, const std::uint8_t*, const double*, std::size_t, double);

}  // namespace trainstep
