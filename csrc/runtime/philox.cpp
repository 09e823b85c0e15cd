#include "runtime/philox.h"

#include <cmath>

#include "runtime/parallel.h"

namespace trainstep {

namespace {

// out[i] = f(u_i) with u_i uniform in (0, 1): block i/2 of the stream holds two of them.
template <class T, class F>
void fill(T* out, std::size_t n, PhiloxStream stream, double ns_per_item, F f) {
    parallel_for(n, 1024, ns_per_item, [=](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; i += 2) {
            const PhiloxCounter word = stream.at(i / 2);
            out[i] = T(f(unit(word[0], word[1])));
            if (i + 1 < end) out[i + 1] = T(f(unit(word[2], word[3])));
        }
    });
}

// The two normals of a pair of uniforms (Box and Muller 1958) need the C library's log, cos and sin, which are the same for every
// ISA level of one installation.
template <class T>
void box_muller(T* out, std::size_t n, PhiloxStream stream, double std) {
    constexpr double two_pi = 6.283185307179586476925286766559;
    parallel_for(n, 1024, 20.0, [=](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; i += 2) {
            const PhiloxCounter word = stream.at(i / 2);
            const double radius = std * std::sqrt(-2.0 * std::log(unit(word[0], word[1])));
            const double angle = two_pi * unit(word[2], word[3]);
            out[i] = T(radius * std::cos(angle));
            if (i + 1 < end) out[i + 1] = T(radius * std::sin(angle));
        }
    });
}

}  // namespace

template <class T>
void random_uniform(T* out, std::size_t n, PhiloxStream stream, double low, double high) {
    fill(out, n, stream, 6.0, [=](double u) { return low + (high - low) * u; });
}
template <class T>
void random_normal(T* out, std::size_t n, PhiloxStream stream, double std) {
    box_muller(out, n, stream, std);
}
template void random_uniform(float*, std::size_t, PhiloxStream, double, double);
template void random_uniform(double*, std::size_t, PhiloxStream, double, double);
template void random_normal(float*, std::size_t, PhiloxStream, double);
template void random_normal(double*, std::size_t, PhiloxStream, double);

void random_permutation(std::int64_t* out, std::size_t n, PhiloxStream stream) {
    for (std::size_t i = 0; i < n; ++i) out[i] = std::int64_t(i);
    for (std::size_t i = n; i-- > 1;) {
        const PhiloxCounter word = stream.at(i);
        // 64 random bits scaled to [0, i]: the bias of at most i / 2^64 is far below what any use could see.
        const std::uint64_t bits = std::uint64_t(word[0]) << 32 | word[1];
        const std::size_t j = std::size_t((static_cast<unsigned __int128>(bits) * (i + 1)) >> 64);
        const std::int64_t other = out[j];
        out[j] = out[i];
        out[i] = other;
    }
}

}  // namespace trainstep
