// What augmentation draws, and the two ways in which it moves the pixels of an image.
//
// Every number is a function of (seed, epoch, sample, place in the list of transforms): which other samples are in the batch, their
// order and the threads change nothing. So are its bits, on every ISA level: additions, products and square roots alone, but for
// the sine and cosine of a rotation and the power of a beta number, which are the C library's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trainstep {

struct SampleStream {
    std::uint64_t seed;
    std::uint32_t epoch;
    std::uint8_t place;
};

// Samples are counted from 0 to this.
inline constexpr std::int64_t kMostSamples = std::int64_t{1} << 48;

// out[i, :] are the first k uniform numbers in (0, 1) of sample[i].
void sample_uniform(double* out, const std::int64_t* sample, std::size_t n, std::size_t k, SampleStream stream);

// out[i] is beta(alpha, alpha) distributed: a function of the first two uniform numbers of sample[i].
void sample_beta(double* out, const std::int64_t* sample, std::size_t n, double alpha, SampleStream stream);

// x[i, j] += std * z, j = 0 .. k-1, where z is the j-th normal number of sample[i]. z has the resolution of float; |z| < 6.67.
template <class T>
void sample_noise(T* x, const std::int64_t* sample, std::size_t n, std::size_t k, double std, SampleStream stream);

// Images lie in rows of pixels, a pixel is `channels` values (or bytes, in shift_images).
struct ImageShape {
    std::size_t height, width, channels;
};

// out[i] is x[i] turned by angle[i], in radians, against the clock, and scale[i] times as large, about its centre. The value of a
// pixel is that of x at the place that it comes from, between the four pixels around it (bilinear); `fill` lies outside of x.
template <class T>
void warp(T* out, const T* x, std::size_t n, ImageShape image, const double* angle, const double* scale, T fill);

// out[i, r, c] = x[i, r + down[i], c + right[i]], or fill, one pixel, where that lies outside.
void shift_images(char* out, const char* x, std::size_t n, ImageShape image, const std::int64_t* down, const std::int64_t* right,
                  const char* fill);

}  // namespace trainstep
