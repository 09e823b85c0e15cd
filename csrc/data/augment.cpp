#include "data/augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/parallel.h"
#include "runtime/philox.h"

namespace trainstep {

namespace {

// The counter of block `block` of a sample: (block, low half of the sample, epoch, the sample's other 16 bits | place | purpose).
// No other use of a seed has this purpose in the lowest byte.
PhiloxCounter counter_of(std::uint32_t block, std::int64_t sample, SampleStream s) {
    const auto high = std::uint32_t(std::uint64_t(sample) >> 32);
    return {block, std::uint32_t(sample), s.epoch, high << 16 | std::uint32_t(s.place) << 8 | std::uint32_t(Purpose::augment)};
}

PhiloxKey key_of(SampleStream s) { return {std::uint32_t(s.seed), std::uint32_t(s.seed >> 32)}; }

// Uniform numbers are from the blocks before this one, normal ones from here on.
constexpr std::uint32_t kNormalBlocks = std::uint32_t{1} << 31;

// Sixteen blocks at a time, each word in an array of its own: loops that a compiler turns into vectors.
constexpr std::size_t kBlocks = 16, kNormals = 4 * kBlocks;

void random_blocks(std::uint32_t (&c)[4][kBlocks], std::uint32_t first, std::int64_t sample, SampleStream stream) {
    const PhiloxCounter start = counter_of(first, sample, stream);
    PhiloxKey k = key_of(stream);
    for (std::size_t j = 0; j < kBlocks; ++j) {
        c[0][j] = start[0] + std::uint32_t(j);
        for (std::size_t w = 1; w < 4; ++w) c[w][j] = start[w];
    }
    for (int round = 0; round < kPhiloxRounds; ++round, k[0] += kPhiloxWeyl[0], k[1] += kPhiloxWeyl[1]) {
        for (std::size_t j = 0; j < kBlocks; ++j) {
            const std::uint64_t p0 = std::uint64_t{kPhiloxMultiplier[0]} * c[0][j];
            const std::uint64_t p1 = std::uint64_t{kPhiloxMultiplier[1]} * c[2][j];
            c[0][j] = std::uint32_t(p1 >> 32) ^ c[1][j] ^ k[0], c[1][j] = std::uint32_t(p1);
            c[2][j] = std::uint32_t(p0 >> 32) ^ c[3][j] ^ k[1], c[3][j] = std::uint32_t(p0);
        }
    }
}

// The natural logarithm of u in [2^-32, 1], in float, to 1 ULP or so: S. L. Moshier's Cephes (logf).
float log_of(float u) {
    std::uint32_t bits;
    std::memcpy(&bits, &u, sizeof bits);
    const std::uint32_t shifted = bits - 0x3f3504f3;  // the bits of sqrt(1/2): u = m * 2^e with m from there to sqrt(2)
    const auto e = float(std::int32_t(shifted) >> 23);
    bits = (shifted & 0x007fffff) + 0x3f3504f3;
    float m;
    std::memcpy(&m, &bits, sizeof m);
    const float x = m - 1.0f, z = x * x;
    float p = 7.0376836292e-2f;
    p = p * x - 1.1514610310e-1f;
    p = p * x + 1.1676998740e-1f;
    p = p * x - 1.2420140846e-1f;
    p = p * x + 1.4249322787e-1f;
    p = p * x - 1.6668057665e-1f;
    p = p * x + 2.0000714765e-1f;
    p = p * x - 2.4999993993e-1f;
    p = p * x + 3.3333331174e-1f;
    const float y = x * z * p - 2.12194440e-4f * e - 0.5f * z;
    return (x + y) + 0.693359375f * e;
}

// Box and Muller (1958): of two words, one gives the radius and the other a direction. The direction is the angle within a quarter
// turn, from -45 to 45 degrees, and the number of the quarter, 0 to 3, in the two highest bits.
void normal_pair(float& first, float& second, std::uint32_t radius_word, std::uint32_t angle_word) {
    const float u = (float(std::int32_t(radius_word >> 1)) + 0.5f) * 0x1p-31f;
    const float radius = std::sqrt(-2.0f * log_of(u));
    const float a = (float(std::int32_t(angle_word & 0x3fffffff)) * 0x1p-30f - 0.5f) * 1.57079632679489662f, z = a * a;
    const float sine = a + a * z * ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f);
    const float cosine =
        1.0f - 0.5f * z + z * z * ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f);
    const std::uint32_t quarter = angle_word >> 30;
    const float x = quarter & 1 ? sine : cosine, y = quarter & 1 ? cosine : sine;
    first = radius * ((quarter + 1) & 2 ? -x : x);
    second = radius * (quarter & 2 ? -y : y);
}

// The normal numbers 64 g to 64 g + 63 of a sample.
void normals(float (&z)[kNormals], std::uint32_t g, std::int64_t sample, SampleStream stream) {
    alignas(64) std::uint32_t words[4][kBlocks];
    random_blocks(words, kNormalBlocks + std::uint32_t(kBlocks) * g, sample, stream);
    for (std::size_t j = 0; j < kBlocks; ++j) normal_pair(z[j], z[kBlocks + j], words[0][j], words[1][j]);
    for (std::size_t j = 0; j < kBlocks; ++j) normal_pair(z[2 * kBlocks + j], z[3 * kBlocks + j], words[2][j], words[3][j]);
}

}  // namespace

void sample_uniform(double* out, const std::int64_t* sample, std::size_t n, std::size_t k, SampleStream stream) {
    parallel_for(n, 16, 12.0 * double(k), [=](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            for (std::size_t j = 0; j < k; j += 2) {
                const PhiloxCounter word = philox4x32(counter_of(std::uint32_t(j / 2), sample[i], stream), key_of(stream));
                out[i * k + j] = unit(word[0], word[1]);
                if (j + 1 < k) out[i * k + j + 1] = unit(word[2], word[3]);
            }
        }
    });
}

// Student's t with 2 alpha degrees of freedom is sqrt(2 alpha (u^(-1/alpha) - 1)) cos(2 pi v), and 1/2 + t / (2 sqrt(2 alpha +
// t^2)) is beta(alpha, alpha): R. W. Bailey, Polar generation of random variates with the t-distribution (Mathematics of
// Computation 62, 1994), and L. Devroye, Random variate generation in one line of code (WSC 1996).
void sample_beta(double* out, const std::int64_t* sample, std::size_t n, double alpha, SampleStream stream) {
    constexpr double two_pi = 6.283185307179586476925286766559;
    parallel_for(n, 16, 100.0, [=](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const PhiloxCounter word = philox4x32(counter_of(0, sample[i], stream), key_of(stream));
            const double u = unit(word[0], word[1]), cosine = std::cos(two_pi * unit(word[2], word[3]));
            // For a small alpha this is infinite, and the number 0 or 1, as it should be.
            const double square = std::expm1(-std::log(u) / alpha) * cosine * cosine;
            out[i] = 0.5 + std::copysign(0.5 / std::sqrt(1.0 + 1.0 / square), cosine);
        }
    });
}

template <class T>
void sample_noise(T* x, const std::int64_t* sample, std::size_t n, std::size_t k, double std, SampleStream stream) {
    const T size = T(std);
    parallel_for(n, 1, 4.0 * double(k), [=](std::size_t begin, std::size_t end) {
        alignas(64) float z[kNormals];
        for (std::size_t i = begin; i < end; ++i) {
            T* row = x + i * k;
            for (std::size_t j = 0; j < k; j += kNormals) {
                normals(z, std::uint32_t(j / kNormals), sample[i], stream);
                const std::size_t count = std::min(kNormals, k - j);
                for (std::size_t m = 0; m < count; ++m) row[j + m] += size * T(z[m]);
            }
        }
    });
}
template void sample_noise(float*, const std::int64_t*, std::size_t, std::size_t, double, SampleStream);
template void sample_noise(double*, const std::int64_t*, std::size_t, std::size_t, double, SampleStream);

namespace {

// One image. The place in x of the pixel at (r, c), counted from the centre, is (r, c) turned back and divided by the scale; rows
// count downwards, so that (down, right) goes to (cos down + sin right, cos right - sin down).
template <class T>
void warp_image(T* out, const T* x, ImageShape image, double angle, double scale, T fill) {
    const std::size_t height = image.height, width = image.width, channels = image.channels;
    const double sine = std::sin(angle) / scale, cosine = std::cos(angle) / scale;
    const double middle_row = 0.5 * double(height - 1), middle_column = 0.5 * double(width - 1);
    for (std::size_t r = 0; r < height; ++r) {
        const double down = double(r) - middle_row;
        const double row_start = middle_row + cosine * down, column_start = middle_column - sine * down;
        for (std::size_t c = 0; c < width; ++c, out += channels) {
            const double right = double(c) - middle_column;
            const double row = row_start + sine * right, column = column_start + cosine * right;
            if (!(row > -1 && row < double(height) && column > -1 && column < double(width))) {
                for (std::size_t k = 0; k < channels; ++k) out[k] = fill;
                continue;
            }
            // Truncation is the floor of what is not negative.
            const auto top = std::ptrdiff_t(row + 1) - 1, left = std::ptrdiff_t(column + 1) - 1;
            const T below = T(row - double(top)), beyond = T(column - double(left));
            const bool has_top = top >= 0, has_bottom = top + 1 < std::ptrdiff_t(height);
            const bool has_left = left >= 0, has_right = left + 1 < std::ptrdiff_t(width);
            const auto at = [&](bool inside, std::ptrdiff_t i, std::ptrdiff_t j, std::size_t k) {
                return inside ? x[(std::size_t(i) * width + std::size_t(j)) * channels + k] : fill;
            };
            for (std::size_t k = 0; k < channels; ++k) {
                const T a = at(has_top && has_left, top, left, k), b = at(has_top && has_right, top, left + 1, k);
                const T d = at(has_bottom && has_left, top + 1, left, k), e = at(has_bottom && has_right, top + 1, left + 1, k);
                // a + (b - a) t, not (1 - t) a + t b: where all four are the same, so is the result.
                const T upper = a + (b - a) * beyond, lower = d + (e - d) * beyond;
                out[k] = upper + (lower - upper) * below;
            }
        }
    }
}

}  // namespace

template <class T>
void warp(T* out, const T* x, std::size_t n, ImageShape image, const double* angle, const double* scale, T fill) {
    const std::size_t size = image.height * image.width * image.channels;
    parallel_for(n, 1, 5.0 * double(size), [=](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) warp_image(out + i * size, x + i * size, image, angle[i], scale[i], fill);
    });
}
template void warp(float*, const float*, std::size_t, ImageShape, const double*, const double*, float);
template void warp(double*, const double*, std::size_t, ImageShape, const double*, const double*, double);

void shift_images(char* out, const char* x, std::size_t n, ImageShape image, const std::int64_t* down, const std::int64_t* right,
                  const char* fill) {
    const auto height = std::int64_t(image.height), width = std::int64_t(image.width);
    const std::size_t pixel = image.channels, row = image.width * pixel, size = image.height * row;
    const auto blank = [=](char* to, std::int64_t pixels) {
        for (std::int64_t c = 0; c < pixels; ++c, to += pixel) std::memcpy(to, fill, pixel);
    };
    parallel_for(n, 1, 5.0 * double(height) + 0.1 * double(size), [=](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            // Columns from to .. until come from x.
            const std::int64_t from = std::clamp<std::int64_t>(-right[i], 0, width);
            const std::int64_t until = std::clamp<std::int64_t>(width - right[i], from, width);
            for (std::int64_t r = 0; r < height; ++r) {
                char* to = out + i * size + std::size_t(r) * row;
                const std::int64_t source = r + down[i];
                if (source < 0 || source >= height) {
                    blank(to, width);
                    continue;
                }
                blank(to, from);
                if (from < until)
                    std::memcpy(to + std::size_t(from) * pixel,
                                x + i * size + std::size_t(source) * row + std::size_t(from + right[i]) * pixel,
                                std::size_t(until - from) * pixel);
                blank(to + std::size_t(until) * pixel, width - until);
            }
        }
    });
}

}  // namespace trainstep
