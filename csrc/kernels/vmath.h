// exp, expm1, log, log1p, tanh, sigmoid, erf of a vector of float or double, over the whole range: denormal arguments and results,
// +-0 (its sign is kept), +-inf and NaN included. No branch, no table, no libm: polynomials, and selects between lanes.
//
// Each function is one template on the scalar type; VmathConstants<T> holds what differs. "Max error" is the largest found, in ULP
// of the exact value, rounded up: over all 2^32 float32 inputs (make sweep, which fails where it is another; reference: float64),
// and in samples of doubles: 86 million of all exponents, most from 2^-10 to 2^8 (make sweep; long double), and 24 million
// (libquadmath). avx2 and avx512 give the same bits; generic, without FMA, rounds more often.
#pragma once

#include "kernels/simd.h"
#include "kernels/vmath_list.h"

namespace trainstep::TRAINSTEP_ISA {

// Polynomials are written from the constant term up. Each is a minimax fit, by Remez exchange in 60-digit arithmetic (mpmath),
// weighted so as to bound the relative error of the function it serves, and fitted anew as each coefficient was rounded to T.
template <class T>
struct VmathConstants;

template <>
struct VmathConstants<float> {
    static constexpr float log2_e = 1.44269504f, ln2_hi = 0.693145752f, ln2_lo = 1.42860677e-06f;  // ln2_hi: 16 bits
    static constexpr float exp_min = -104.0f, exp_max = 89.0f;                                     // from here on: 0, inf
    static constexpr float expm1_min = -18.0f, expm1_same = 0x1p-25f;  // from here on: -1; below: expm1(x) = x
    static constexpr float tanh_max = 9.1f, erf_max = 3.95f, erf_split = 0.9f;
    // (exp(r) - 1 - r) / r^2, |r| <= log(2) / 2
    static constexpr float exp_tail[] = {0.49999997f, 0.16666539f, 0.0416677557f, 0.00836710352f, 0.00138363126f};
    // (log(1 + f) - f) / f^2, -0.25 <= f <= 0.5
    static constexpr float log_tail[] = {-0.5f,        0.333334625f,  -0.250001937f, 0.199903637f,  -0.166425332f,
                                         0.144757614f, -0.132106379f, 0.105928108f,  -0.0460420996f};
    // (log(1 + x) - x) / x^2 in x - 1/2, 0 <= x <= 1: minimax for float, by least squares weighted anew, interpolated at
    // Chebyshev's points for double; of log(1 + x) a relative error of 7.5e-9 and 8.1e-17
    static constexpr float log1p_tail[] = {-0.378139555f, 0.179224908f,   -0.0932320952f, 0.0510880314f, -0.0289002899f,
                                           0.0166686531f, -0.0102147199f, 0.0068941866f,  -0.0032215321f};
    // erf(x) / x - 1 in x^2, |x| <= erf_split; log(1 - erf(x)) in x, erf_split <= x <= erf_max
    static constexpr float erf_small[] = {0.128379151f,  -0.376125038f,  0.112819217f,
                                          -0.026770493f, 0.00499895914f, -0.000602079963f};
    static constexpr float erf_large[] = {-0.00182229793f, -1.12039769f,  -0.650453925f,
                                          -0.091322735f,   0.0156525746f, -0.00126139121f};
};

template <>
struct VmathConstants<double> {
    static constexpr double log2_e = 1.4426950408889634, ln2_hi = 0.6931471805598903, ln2_lo = 5.497923018708371e-14;  // 42 bits
    static constexpr double exp_min = -746.0, exp_max = 710.0;
    static constexpr double expm1_min = -38.0, expm1_same = 0x1p-54;
    static constexpr double tanh_max = 19.1, erf_max = 5.95, erf_split = 1.0;
    static constexpr double exp_tail[] = {0.5,
                                          0.16666666666666677,
                                          0.04166666666666651,
                                          0.008333333333321053,
                                          0.0013888888888986817,
                                          0.00019841269888265655,
                                          2.480158709944946e-05,
                                          2.7557241512238308e-06,
                                          2.75574425471714e-07,
                                          2.511014848068542e-08,
                                          2.0881927404453816e-09};
    static constexpr double log_tail[] = {-0.5,
                                          0.3333333333333375,
                                          -0.25000000000010797,
                                          0.19999999999851442,
                                          -0.1666666666375172,
                                          0.14285714299672267,
                                          -0.12500000294241048,
                                          0.11111110796062758,
                                          -0.09999985435478828,
                                          0.09090892026006511,
                                          -0.08333704969961916,
                                          0.0769340776835921,
                                          -0.07138616659306087,
                                          0.06643190750979187,
                                          -0.06249176849590288,
                                          0.060828330278357816,
                                          -0.059712411989887554,
                                          0.05076952795430251,
                                          -0.02945920732707311,
                                          0.008116528561962785};
    static constexpr double log1p_tail[] = {
        -0.37813956756734241,   0.17922493693603653,     -0.093230366363697706,   0.051083446105597174,    -0.028943183160898694,
        0.016788742474342987,   -0.0099099009314545881,  0.0059290122087137815,   -0.0035856609565145196,  0.0021876343824754102,
        -0.0013445805520089585, 0.00083149871685525047,  -0.00051616644924109103, 0.00032236837193372325,  -0.00020650866041071594,
        0.00013000268852996185, -6.7265753270599204e-05, 4.2500000481329037e-05,  -5.4843610903843872e-05, 3.4964999995177531e-05};
    static constexpr double erf_small[] = {0.12837916709551256,   -0.37612638903183343,    0.11283791670936949,
                                           -0.02686617064195855,  0.005223977596726496,    -0.0008548325484237606,
                                           0.0001205528046136397, -1.4924464664060418e-05, 1.644413417756923e-06,
                                           -1.61838282050893e-07, 1.3615819711200265e-08,  -7.605829417316514e-10};
    static constexpr double erf_large[] = {
        -1.0634316403777268e-06, -1.1283687136611094,     -0.6366675726365542,   -0.1026376655467179,     0.01886541167920231,
        0.0005840306598627843,   -0.0020987465419484916,  0.0009199267361659374, -0.00023064209265508522, 2.7997253528508025e-05,
        3.6107310467490886e-06,  -2.6728549675704005e-06, 6.877196663055989e-07, -1.0821587957947748e-07, 1.0902831826413612e-08,
        -6.517836992415884e-10,  1.770337773033235e-11};
};

// c[first] + c[first + step] x + c[first + 2 step] x^2 + ...
template <class T, int step = 1, int first = 0, int n>
TRAINSTEP_INLINE Vec<T> horner(Vec<T> x, const T (&c)[n]) {
    if constexpr (first + step >= n)
        return set1<T>(c[first]);
    else
        return fma(horner<T, step, first + step>(x, c), x, set1<T>(c[first]));
}

// c[0] + c[1] x + c[2] x^2 + ... From 9 terms on as even + odd part, two chains half as long: the loop's other iterations no longer
// fill the wait (float64 log: 7.3 -> 5.2 ns generic, 1.73 -> 1.37 avx2; with fewer terms it gains nothing).
template <class T, int n>
TRAINSTEP_INLINE Vec<T> polynomial(Vec<T> x, const T (&c)[n]) {
    if constexpr (n < 9)
        return horner<T>(x, c);
    else
        return fma(horner<T, 2, 1>(x * x, c), x, horner<T, 2, 0>(x * x, c));
}

// x = n log(2) + r with an integer n and |r| <= log(2) / 2 (Cody and Waite: log(2) in two parts, n ln2_hi is exact).
template <class T>
struct Reduced {
    using C = VmathConstants<T>;
    Vec<T> shifted;     // n + kRounder
    Vec<T> n, r_hi, r;  // r = r_hi - n ln2_lo; r_hi is exact

    TRAINSTEP_INLINE explicit Reduced(Vec<T> x) {
        shifted = fma(x, set1<T>(C::log2_e), set1<T>(kRounder<T>));
        n = shifted - set1<T>(kRounder<T>);
        r_hi = fma(n, set1<T>(-C::ln2_hi), x);
        r = fma(n, set1<T>(-C::ln2_lo), r_hi);
    }
    // unit * 2^n, a normal number; unit is a power of two.
    TRAINSTEP_INLINE Vec<T> power(T unit) const {
        return (Vec<T>)((UVec<T>)set1<T>(unit) + ((UVec<T>)shifted << kMantissaBits<T>));
    }
    // exp(r), in the order of sums that is shortest with FMA or else rounds least without.
    TRAINSTEP_INLINE Vec<T> exp_r() const {
        const Vec<T> one = set1<T>(T(1)), tail = polynomial<T>(r, C::exp_tail);
        return kHasFma ? fma(fma(tail, r, one), r, one) : one + (r + tail * (r * r));
    }
    // (2^n exp(r) - 1) / 2; halved, for 2^n itself may overflow. The large terms, 2^n r_hi and 2^n - 1, meet first: where they
    // cancel (n = +-1), their sum is exact.
    TRAINSTEP_INLINE Vec<T> half_expm1() const {
        const Vec<T> half = power(T(0.5)), large = fma(half, r_hi, half - set1<T>(T(0.5)));
        return fma(half, fma(n, set1<T>(-C::ln2_lo), polynomial<T>(r, C::exp_tail) * (r * r)), large);
    }
};

// exp(x) where exp_min <= x <= exp_max, or NaN.
template <class T>
TRAINSTEP_INLINE Vec<T> exp_in_range(Vec<T> x) {
    const Reduced<T> k(x);
    return ldexp(k.exp_r(), k.shifted);
}

// exp(x) where x <= exp_max or NaN.
template <class T>
TRAINSTEP_INLINE Vec<T> exp_below_max(Vec<T> x) {
    return exp_in_range<T>(max(set1<T>(VmathConstants<T>::exp_min), x));
}

// exp(x) = 2^n exp(r).
// Max error: float 0.92, double 0.91 (generic: 1.01, 1.00).
template <class T>
TRAINSTEP_INLINE Vec<T> exp_of(Vec<T> x) {
    return exp_below_max<T>(min(set1<T>(VmathConstants<T>::exp_max), x));
}

// expm1(x) = exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1).
// Max error: float 1.24, double 1.25 (generic: 1.24, 1.24).
template <class T>
TRAINSTEP_INLINE Vec<T> expm1_of(Vec<T> x) {
    using C = VmathConstants<T>;
    const Vec<T> half = Reduced<T>(min(set1<T>(C::exp_max), max(set1<T>(C::expm1_min), x))).half_expm1();
    return abs(x) < set1<T>(C::expm1_same) ? x : half + half;
}

// n log(2) + log(1 + f), -0.25 <= f <= 0.5; ln2_lo > 0, so that n = +-inf gives +-inf.
template <class T>
TRAINSTEP_INLINE Vec<T> log_of_parts(Vec<T> n, Vec<T> f) {
    using C = VmathConstants<T>;
    const Vec<T> small = fma(polynomial<T>(f, C::log_tail), f * f, n * set1<T>(C::ln2_lo));
    return fma(n, set1<T>(C::ln2_hi), f + small);
}

// log(x) = n log(2) + log(1 + f), x = 2^n (1 + f); log(0) = -inf, log(x < 0) = NaN.
// Max error: float 1.18, double 1.17 (generic: 1.29, 1.32).
template <class T>
TRAINSTEP_INLINE Vec<T> log_of(Vec<T> x) {
    const Parts<T> p = frexp(x);
    return log_of_parts<T>(p.exponent, p.mantissa - set1<T>(T(1)));
}

// log1p(x) = log(1 + x), where what 1 + x lost in rounding (nothing that counts, from 2^25 on) is added to f; log1p(-1) = -inf.
// Max error: float 1.18, double 1.17 (generic: 1.29, 1.28).
template <class T>
TRAINSTEP_INLINE Vec<T> log1p_of(Vec<T> x) {
    const Vec<T> one = set1<T>(T(1)), sum = one + x, lost = x - (sum - one);
    const Parts<T> p = frexp(sum);
    const Vec<T> scale = (Vec<T>)((UVec<T>)p.mantissa - (UVec<T>)sum + (UVec<T>)one);  // 2^-n
    const Vec<T> f = (p.mantissa - one) + (x < set1<T>(T(0x1p25)) ? lost * scale : zero<T>());
    return copysign(log_of_parts<T>(p.exponent, f), x);
}

// log(1 + x) where 0 <= x <= 1, or NaN. (softplus with it, in samples: float 1.7, double 2.0 ULP.)
template <class T>
TRAINSTEP_INLINE Vec<T> log1p_to_1(Vec<T> x) {
    return fma(polynomial<T>(x - T(0.5), VmathConstants<T>::log1p_tail), x * x, x);
}

// tanh(x) = h / (1 + h), h = expm1(2 |x|) / 2; as b - b b / (1 + h), b = min(h, 1), which rounds the quotient's errors away.
// Odd; 1 from tanh_max on; of neighbouring floats, only some with 0.40 < |x| < 0.55 turn back, by 1 ULP.
// Max error: float 1.75, double 1.75 (generic: 1.81, 1.88).
template <class T>
TRAINSTEP_INLINE Vec<T> tanh_of(Vec<T> x) {
    const Vec<T> a = min(set1<T>(VmathConstants<T>::tanh_max), abs(x)), one = set1<T>(T(1));
    const Vec<T> h = Reduced<T>(a + a).half_expm1(), b = min(one, h);
    return copysign(fma(-b, b / (one + h), b), x);
}

// sigmoid(x) = 1 / (1 + exp(-x)) = b - b e / (1 + e), e = exp(-|x|), b = e for x < 0 and 1 otherwise.
// Max error: float 1.65, double 1.68 (generic: 1.87, 1.89).
template <class T>
TRAINSTEP_INLINE Vec<T> sigmoid_of(Vec<T> x) {
    const Vec<T> one = set1<T>(T(1)), e = exp_below_max<T>(copysign(x, -one)), b = x < zero<T>() ? e : one;
    return fma(-b, e / (one + e), b);
}

// erf(x) = x + x p(x^2) up to erf_split, 1 - exp(q(|x|)) from there on, with the sign of x; +-1 from erf_max on.
// Max error: float 1.43, double 1.37 (generic: 1.66, 1.53).
template <class T>
TRAINSTEP_INLINE Vec<T> erf_of(Vec<T> x) {
    using C = VmathConstants<T>;
    const Vec<T> a = abs(x), small = fma(polynomial<T>(x * x, C::erf_small), x, x);
    const Reduced<T> k(polynomial<T>(min(set1<T>(C::erf_max), a), C::erf_large));
    const Vec<T> large = fma(-k.power(T(1)), k.exp_r(), set1<T>(T(1)));
    return a < set1<T>(C::erf_split) ? small : copysign(large, x);
}

#define TRAINSTEP_DEFINE(name)                                       \
    TRAINSTEP_INLINE F32 name(F32 x) { return name##_of<float>(x); } \
    TRAINSTEP_INLINE F64 name(F64 x) { return name##_of<double>(x); }
TRAINSTEP_VMATH_FUNCTIONS(TRAINSTEP_DEFINE)
#undef TRAINSTEP_DEFINE

}  // namespace trainstep::TRAINSTEP_ISA
