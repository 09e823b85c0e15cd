// Activations: the one list, and one struct per formula with its backward beside it.
//
// forward(x) -> y. backward(dy, y) -> dx, with the derivative taken from the output y, so that a layer keeps y alone; of those
// whose output does not tell, backward(dy, x).
#pragma once

#include <cstdint>

#include "kernels/lists.h"

// name, then what is not as in ActivationInfo.
#define TRAINSTEP_ACTIVATIONS(X)                                                      \
    X(identity)                                                                       \
    X(relu, .two_sided = true)                                                        \
    X(sigmoid)                                                                        \
    X(tanh)                                                                           \
    X(leaky_relu, .two_sided = true, .parameter = "negative_slope", .standard = 0.01) \
    X(elu, .parameter = "alpha", .standard = 1)                                       \
    X(selu)                                                                           \
    X(softplus)                                                                       \
    X(hardtanh, .two_sided = true)                                                    \
    X(hardsigmoid, .two_sided = true)                                                 \
    X(gelu, .of_input = true)                                                         \
    X(gelu_tanh, .of_input = true)                                                    \
    X(silu, .of_input = true)                                                         \
    X(hardswish, .of_input = true)                                                    \
    X(mish, .of_input = true)                                                         \
    X(softmax, .by_rows = true)                                                       \
    X(log_softmax, .by_rows = true)

namespace trainstep {
TRAINSTEP_FAMILY(ActivationKind, TRAINSTEP_ACTIVATIONS)

struct ActivationInfo {
    bool of_input = false;            // backward takes x, not y
    bool by_rows = false;             // an element depends on all of its row
    bool two_sided = false;           // f' has two values, and that of side(y), 0, 1/2 or 1, is that of y
    const char* parameter = nullptr;  // what its one number is called, at least 0, where it has one
    double standard = 0;              // and what it is unless it is given

    // Whether a slope for each element is what backward takes best: not where a bit says as much.
    constexpr bool has_slope() const { return !by_rows && !two_sided; }
};
// Not inline: a copy in each file, since symbols of the same name in the files of two ISA levels would merge.
namespace activation_info {
#define TRAINSTEP_INFO(name, ...) {__VA_ARGS__},
constexpr ActivationInfo kAll[] = {TRAINSTEP_ACTIVATIONS(TRAINSTEP_INFO)};
#undef TRAINSTEP_INFO
}  // namespace activation_info
static constexpr const ActivationInfo& info(ActivationKind kind) { return activation_info::kAll[int(kind)]; }

// An activation with its number.
struct Activation {
    ActivationKind kind = ActivationKind::identity;
    double parameter = 0;
    bool of_slope = false;  // backward takes f'(x) itself, which forward has kept
};

// Kernels of an activation: n elements of any array, or one row of n elements of those that go by rows. dx may be dy, y may be x.
// `source`: x or y, whichever backward takes.
template <class T>
using ActivationForward = void (*)(T* y, const T* x, std::size_t n, T parameter);
template <class T>
using ActivationBackward = void (*)(T* dx, const T* dy, const T* source, std::size_t n, T parameter);
// y = f(x) and slope = f'(x), of those that have a slope for each element: most of what one costs is the other's as well.
template <class T>
using ActivationSlope = void (*)(T* y, T* slope, const T* x, std::size_t n, T parameter);
// y = f(x), or with x null what is there already, and sides = 2 * side(y), a byte each; and backward from them. Of those that are
// two-sided.
template <class T>
using ActivationSides = void (*)(T* y, std::uint8_t* sides, const T* x, std::size_t n, T parameter);
template <class T>
using BackwardOfSides = void (*)(T* dx, const T* dy, const std::uint8_t* sides, std::size_t n, T parameter);

}  // namespace trainstep

#ifdef TRAINSTEP_ISA
#include "kernels/loops.h"
#include "kernels/vmath.h"

namespace trainstep::TRAINSTEP_ISA::activations {

struct identity {  // y = x;  dx = dy
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T = {}) {
        return x;
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T>, T = {}) {
        return dy;
    }
};

// 1 above 0, also of NaN.
template <class T>
TRAINSTEP_INLINE Vec<T> is_above_0(Vec<T> y) {
    return y <= zero<T>() ? zero<T>() : set1<T>(T(1));
}

struct relu {  // y = max(x, 0), NaN for NaN;  dx = dy where y > 0, else 0; a NaN in y goes through
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T = {}) {
        return max(zero<T>(), x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y, T = {}) {
        return y <= zero<T>() ? zero<T>() : dy;
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> side(Vec<T> y) {
        return is_above_0<T>(y);
    }
};

struct sigmoid {  // y = 1 / (1 + exp(-x));  dx = dy * y * (1 - y)
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T) {
        return TRAINSTEP_ISA::sigmoid(x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y, T) {
        return dy * (y * (T(1) - y));
    }
};

struct tanh {  // y = tanh(x);  dx = dy * (1 - y^2)
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T) {
        return TRAINSTEP_ISA::tanh(x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y, T) {
        return dy * ((T(1) - y) * (T(1) + y));  // 1 - y*y would cancel where y is near 1
    }
};

struct leaky_relu {  // y = x where x > 0, else slope * x;  dx = dy, or slope * dy, by the sign of y
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T slope) {
        return x <= zero<T>() ? slope * x : x;
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y, T slope) {
        return y <= zero<T>() ? slope * dy : dy;
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> side(Vec<T> y) {
        return is_above_0<T>(y);
    }
};

struct elu {  // y = x where x > 0, else alpha * (exp(x) - 1);  dx = dy, or dy * (y + alpha)
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T alpha) {
        return x <= zero<T>() ? alpha * expm1(x) : x;
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y, T alpha) {
        return y <= zero<T>() ? dy * (y + alpha) : dy;
    }
};

// y = scale * elu(x, alpha), with the numbers that keep mean 0 and variance 1. Klambauer et al. (NIPS 2017), equation 14.
struct selu {
    template <class T>
    static constexpr T kScale = T(1.0507009873554804934193349852946);
    template <class T>
    static constexpr T kNegative = T(1.7580993408473768599402175208123);  // kScale * alpha
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T) {
        return x <= zero<T>() ? kNegative<T> * expm1(x) : kScale<T> * x;
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y, T) {
        return y <= zero<T>() ? dy * (y + kNegative<T>) : kScale<T> * dy;
    }
};

struct softplus {  // y = log(1 + exp(x));  dx = dy * (1 - exp(-y))
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T) {
        return max(zero<T>(), x) + log1p_to_1<T>(exp_below_max<T>(copysign(x, set1<T>(T(-1)))));
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y, T) {
        return dy * -expm1(-y);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> slope(Vec<T> x) {  // from forward's exp, where both are calculated
        return TRAINSTEP_ISA::sigmoid(x);
    }
};

struct hardtanh {  // y = min(max(x, -1), 1);  dx = dy where -1 < y < 1, else 0; a NaN in y goes through
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T) {
        return min(set1<T>(T(1)), max(set1<T>(T(-1)), x));
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y, T) {
        return abs(y) >= set1<T>(T(1)) ? zero<T>() : dy;
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> side(Vec<T> y) {
        return abs(y) >= set1<T>(T(1)) ? set1<T>(T(1)) : zero<T>();
    }
};

// x / 6, rounded as the division is where x * 2^-27 (double: 2^-57) is no denormal, and else to one ULP; a division takes ten times
// as long. 1 / 6 is 1 + 2^-bits times what it is cut off to after a mantissa's bits; from below no infinity meets its opposite.
template <class T>
TRAINSTEP_INLINE Vec<T> sixth(Vec<T> x) {
    constexpr T cut = sizeof(T) == 4 ? T(0x1.555554p-3) : T(0x1.5555555555555p-3), rest = T(sizeof(T) == 4 ? 0x1p-24 : 0x1p-54);
    return kHasFma ? fma(x, set1<T>(cut), x * (cut * rest)) : x / T(6);
}

struct hardsigmoid {  // y = min(max(x + 3, 0), 6) / 6;  dx = dy / 6 where 0 < y < 1, else 0; a NaN in y goes through
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T) {
        return sixth<T>(min(set1<T>(T(6)), max(zero<T>(), x + T(3))));
    }
    // v, but 0 where y is 0 or 1.
    template <class T>
    static TRAINSTEP_INLINE Vec<T> between(Vec<T> y, Vec<T> v) {
        const Vec<T> above_0 = y <= zero<T>() ? zero<T>() : v;
        return y >= set1<T>(T(1)) ? zero<T>() : above_0;
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y, T) {
        return between<T>(y, sixth<T>(dy));
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> side(Vec<T> y) {
        return between<T>(y, set1<T>(T(0.5)));
    }
};

// a * b, and 0 where a is 0, whatever b is: what a gate of 0 lets through of infinity.
template <class T>
TRAINSTEP_INLINE Vec<T> gated(Vec<T> a, Vec<T> b) {
    return a == zero<T>() ? zero<T>() : a * b;
}

// The normal distribution: how much of it lies below x, and x times its density there. The smaller side is exp(-r^2 / 2) times
// erfc(r / sqrt(2)) exp(r^2 / 2) / 2, r = |x|; that, times r + middle, is a polynomial in (r - middle) / (r + middle) (minimax for
// float, interpolated at Chebyshev's points for double, to values of 60 digits, up to `most`, where exp is 0; relative error float
// 1.9e-8, double 3.4e-17).
template <class T>
struct NormalConstants;
template <>
struct NormalConstants<float> {
    static constexpr float most = 14.422f, middle = 4.0f;
    static constexpr float side[] = {0.755285144f,    -0.607896626f,   0.387136519f,   -0.186522752f,   0.0604075603f,
                                     -0.00752791343f, -0.00352638238f, 0.00156931055f, 0.000197294241f, -0.000121896373f};
};
template <>
struct NormalConstants<double> {
    static constexpr double most = 38.62, middle = 5.5;
    static constexpr double side[] = {
        0.77376963427640677,     -0.68518342057433801,    0.53559648906249424,     -0.36704906529362513,   0.21787243285797558,
        -0.10970308995856737,    0.045097580814653426,    -0.013923510567660637,   0.0024429826760410359,  0.00026960401514853233,
        -0.0003245226548883651,  7.1414790300171595e-05,  1.6319971349561943e-05,  -1.211874416170966e-05, 4.4642481020981507e-07,
        1.4836365675905201e-06,  -2.6795137946040115e-07, -1.7742857481013525e-07, 5.0446364239143617e-08, 2.2917231621131378e-08,
        -5.7370504099282252e-09, -2.6055433600697286e-09};
};
template <class T>
struct Normal {
    Vec<T> below, x_density;

    TRAINSTEP_INLINE explicit Normal(Vec<T> x) {
        using C = NormalConstants<T>;
        const Vec<T> one = set1<T>(T(1)), r = min(set1<T>(C::most), abs(x)), half = T(-0.5) * r;
        const Vec<T> exponent = half * r, lost = rounded_away<T>(half, r, exponent), rounded = exp_in_range<T>(exponent);
        const Vec<T> bell = fma(rounded, lost, rounded), inverse = one / (r + C::middle);
        const Vec<T> t = fma(inverse, set1<T>(-2 * C::middle), one);
        const Vec<T> side = bell * (inverse * polynomial<T>(t, C::side));
        below = x < zero<T>() ? side : one - side;
        x_density = copysign(T(0.39894228040143267794) * r, x) * bell;
    }
};

// y = x * P(x), P the normal distribution;  dx = dy * (P(x) + x * p(x)), p its density. Hendrycks, Gimpel: Gaussian error linear
// units (2016), section 2.
struct gelu {
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T) {
        return gated<T>(Normal<T>(x).below, x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> x, T) {
        const Normal<T> normal(x);
        return dy * (normal.below + normal.x_density);
    }
};

// s = sigmoid(x) and its slope s * (1 - s), both from the smaller of s and 1 - s: where s is near 1, 1 - s would be its rounding.
// And
// -|x|, cut off where exp is 0.
template <class T>
struct Logistic {
    Vec<T> value, slope, bounded;

    TRAINSTEP_INLINE explicit Logistic(Vec<T> x) {
        const Vec<T> one = set1<T>(T(1));
        bounded = max(set1<T>(VmathConstants<T>::exp_min), copysign(x, -one));
        const Vec<T> e = exp_in_range<T>(bounded), smaller = fma(-e, e / (one + e), e), larger = one - smaller;
        value = x < zero<T>() ? smaller : larger;
        slope = smaller * larger;
    }
};

// The same with P(x) = (1 + tanh(u)) / 2 = sigmoid(2 u), u = sqrt(2 / pi) * (x + 0.044715 x^3).
struct gelu_tanh {
    template <class T>
    static constexpr T kLinear = T(1.5957691216057307118);  // of 2 u
    template <class T>
    static constexpr T kCubic = T(0.071354816272600248);
    template <class T>
    static TRAINSTEP_INLINE Vec<T> twice_u(Vec<T> x) {
        return x * fma(kCubic<T> * x, x, set1<T>(kLinear<T>));
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T) {
        return gated<T>(Logistic<T>(twice_u<T>(x)).value, x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> x, T) {
        const Logistic<T> gate(twice_u<T>(x));
        return dy * (gate.value + gated<T>(gate.slope, x * fma(3 * kCubic<T> * x, x, set1<T>(kLinear<T>))));
    }
};

// y = x * s, s = sigmoid(x);  dx = dy * (s + x * s * (1 - s)). Where s or 1 - s is 0, any finite number does for x.
struct silu {
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T) {
        const Logistic<T> s(x);
        return s.value * (x < zero<T>() ? s.bounded : x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> x, T) {
        const Logistic<T> s(x);
        return dy * fma(s.slope, copysign(s.bounded, x), s.value);
    }
};

struct hardswish {  // y = x * hardsigmoid(x);  dx = 0 up to -3, dy * (x / 3 + 1 / 2), from 3 on dy
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T none) {
        return gated<T>(hardsigmoid::forward<T>(x, none), x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> x, T) {
        const Vec<T> from_left = x <= set1<T>(T(-3)) ? zero<T>() : dy * (T(2) * sixth<T>(x) + T(0.5));
        return x >= set1<T>(T(3)) ? dy : from_left;
    }
};

// y = x * t, t = tanh(softplus(x)) = n / (n + 2) with e = exp(x), n = e * (e + 2);  dx = dy * (t + x * (1 - t^2) * sigmoid(x)), and
// (1 - t^2) * sigmoid(x) = r^2 * e * (1 + e) with r = 1 - t = 2 / (n + 2). Misra (BMVC 2020), equations 1 and 2. From x = 30 on t
// is 1 and the rest of the slope 0.
struct mish {
    template <class T>
    struct Gate {
        Vec<T> e, t, r;
        TRAINSTEP_INLINE explicit Gate(Vec<T> x) {
            e = exp_below_max<T>(min(set1<T>(T(30)), x));
            const Vec<T> n = e * (e + T(2)), inverse = T(1) / (n + T(2));
            t = n * inverse, r = inverse + inverse;
        }
    };
    template <class T>
    static TRAINSTEP_INLINE Vec<T> forward(Vec<T> x, T) {
        return gated<T>(Gate<T>(x).t, x);
    }
    template <class T>
    static TRAINSTEP_INLINE Vec<T> backward(Vec<T> dy, Vec<T> x, T) {
        const Gate<T> gate(x);
        const Vec<T> slope = (gate.r * gate.e) * fma(gate.r, gate.e, gate.r);
        return dy * (gate.t + (x >= set1<T>(T(30)) ? zero<T>() : gated<T>(slope, x)));
    }
};

template <class T>
TRAINSTEP_INLINE Vec<T> row_max(const T* x, std::size_t n) {
    Vec<T> most = set1<T>(-T(__builtin_inf()));
    for_each_vector<T>(n, [&](std::size_t j, auto part)
                              __attribute__((always_inline)) { most = max(or_else<T>(get<T>(x + j, part), part, most), most); });
    return set1<T>(reduce_max<T>(most));
}

// The sum of f(j, part) over a row. Sums of 64 vectors are added up, so that the rounding error hardly grows with the row: of one
// running sum, 60,000 equal terms were off by 250 eps.
template <class T, class F>
TRAINSTEP_INLINE Vec<T> row_sum(std::size_t n, F f) {
    constexpr std::size_t kBlock = 64 * kWidth<T>;
    Vec<T> sum = zero<T>();
    for (std::size_t i = 0; i < n; i += kBlock) {
        Vec<T> part_sum = zero<T>();
        for_each_vector<T>(n - i < kBlock ? n - i : kBlock, [&](std::size_t j, auto part) __attribute__((always_inline)) {
            part_sum = part_sum + or_else<T>(f(i + j, part), part, zero<T>());
        });
        sum = sum + part_sum;
    }
    return set1<T>(reduce_add<T>(sum));
}

struct softmax {  // y_j = exp(x_j - max x) / sum_k exp(x_k - max x);  dx = y * (dy - sum(dy * y))
    template <class T>
    static void forward_row(T* y, const T* x, std::size_t n, T) {
        const Vec<T> most = row_max<T>(x, n);
        const Vec<T> sum = row_sum<T>(n, [=](std::size_t j, auto part) __attribute__((always_inline)) {
            const Vec<T> e = exp_below_max<T>(get<T>(x + j, part) - most);
            put<T>(y + j, part, e);
            return e;
        });
        // The quotient as the division rounds it (but for denormals), from the inverse and what is left over, in a third of the
        // time.
        const Vec<T> inverse = T(1) / sum;
        map<T>(y, y, n, [=](Vec<T> v) __attribute__((always_inline)) {
            if constexpr (!kHasFma) return v / sum;
            const Vec<T> about = v * inverse;
            return fma(fma(-about, sum, v), inverse, about);
        });
    }
    template <class T>
    static void backward_row(T* dx, const T* dy, const T* y, std::size_t n, T) {
        const Vec<T> sum = row_sum<T>(
            n, [=](std::size_t j, auto part) __attribute__((always_inline)) { return get<T>(dy + j, part) * get<T>(y + j, part); });
        zip<T>(dx, dy, y, n, [=](Vec<T> d, Vec<T> v) __attribute__((always_inline)) { return v * (d - sum); });
    }
};

struct log_softmax {  // y_j = (x_j - max x) - log(sum_k exp(x_k - max x));  dx = dy - exp(y) * sum(dy)
    template <class T>
    static void forward_row(T* y, const T* x, std::size_t n, T) {
        const Vec<T> most = row_max<T>(x, n);
        const Vec<T> log_sum = log(row_sum<T>(n, [=](std::size_t j, auto part) __attribute__((always_inline)) {
            return exp_below_max<T>(get<T>(x + j, part) - most);
        }));
        map<T>(y, x, n, [=](Vec<T> v) __attribute__((always_inline)) { return (v - most) - log_sum; });
    }
    template <class T>
    static void backward_row(T* dx, const T* dy, const T* y, std::size_t n, T) {
        const Vec<T> sum =
            row_sum<T>(n, [=](std::size_t j, auto part) __attribute__((always_inline)) { return get<T>(dy + j, part); });
        zip<T>(dx, dy, y, n, [=](Vec<T> d, Vec<T> v) __attribute__((always_inline)) { return d - exp(v) * sum; });
    }
};

}  // namespace trainstep::TRAINSTEP_ISA::activations
#endif
