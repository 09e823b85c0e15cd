// Vec<T>: one hardware vector of float or double, on the GCC/Clang vector extensions.
//
// One source serves every ISA level: the width comes from the compiler flags of the level, the arithmetic operators from the
// language (+ - * / < == ?: act lane by lane). An intrinsic appears only here, behind a name, where the language has no word for
// it. Included by per-ISA files only; everything lives in namespace trainstep::TRAINSTEP_ISA, so that no two levels share a symbol.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>  // integer_sequence: types only, no code

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef TRAINSTEP_ISA
#error "TRAINSTEP_ISA names the namespace of the ISA level; CMakeLists.txt defines it for every k_*.cpp"
#endif

#define TRAINSTEP_INLINE inline __attribute__((always_inline))

namespace trainstep::TRAINSTEP_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;  // SSE2, NEON
#endif

// Number of vector registers: it bounds the tile of the matrix product.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kVectorRegisters = 32;
#else
inline constexpr int kVectorRegisters = 16;
#endif

#if defined(__FMA__) || defined(__aarch64__)
inline constexpr bool kHasFma = true;
#else
inline constexpr bool kHasFma = false;
#endif

template <class T>
struct VecTraits;
template <>
struct VecTraits<float> {
    typedef float vec __attribute__((vector_size(kVectorBytes)));
    typedef std::int32_t integer __attribute__((vector_size(kVectorBytes)));  // same lanes: comparison results, bit patterns
    typedef std::int32_t lane;
    typedef std::uint32_t natural __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VecTraits<double> {
    typedef double vec __attribute__((vector_size(kVectorBytes)));
    typedef std::int64_t integer __attribute__((vector_size(kVectorBytes)));
    typedef std::int64_t lane;
    typedef std::uint64_t natural __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VecTraits<T>::vec;
template <class T>
using IVec = typename VecTraits<T>::integer;  // comparison of two Vec<T> gives an IVec<T>: all ones where true
template <class T>
using UVec = typename VecTraits<T>::natural;  // bit patterns to calculate with: a sum wraps, >> brings in zeros
template <class T>
inline constexpr int kWidth = kVectorBytes / int(sizeof(T));

using F32 = Vec<float>;
using F64 = Vec<double>;
using I32 = IVec<float>;
using I64 = IVec<double>;

// Every lane holds x. (x - 0 keeps -0.0, which 0 + x would not.)
template <class T>
TRAINSTEP_INLINE Vec<T> set1(T x) {
    return x - Vec<T>{};
}
template <class T>
TRAINSTEP_INLINE IVec<T> iset1(typename VecTraits<T>::lane x) {
    return x - IVec<T>{};
}
template <class T>
TRAINSTEP_INLINE Vec<T> zero() {
    return Vec<T>{};
}

// The same bits under the other type.
TRAINSTEP_INLINE I32 as_bits(F32 x) { return (I32)x; }
TRAINSTEP_INLINE I64 as_bits(F64 x) { return (I64)x; }
TRAINSTEP_INLINE F32 as_float(I32 x) { return (F32)x; }
TRAINSTEP_INLINE F64 as_float(I64 x) { return (F64)x; }

// 0, 1, 2, ...
template <class T>
TRAINSTEP_INLINE IVec<T> lane_index() {
    IVec<T> r{};
    for (int i = 0; i < kWidth<T>; ++i) r[i] = i;
    return r;
}

// --- loads and stores; no alignment is asked for -----------------------------------------------------------------------------

template <class T>
struct Unaligned {
    typedef T type __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};

template <class T>
TRAINSTEP_INLINE Vec<T> load(const T* p) {
    return *reinterpret_cast<const typename Unaligned<T>::type*>(p);
}
template <class T>
TRAINSTEP_INLINE void store(T* p, Vec<T> v) {
    *reinterpret_cast<typename Unaligned<T>::type*>(p) = v;
}

// Tail: the first n lanes, 0 <= n <= kWidth. Made once, used for many loads and stores; untouched lanes load as 0 and fault on
// nothing.
#if defined(__AVX512F__)
template <class T>
struct Tail {
    std::uint32_t mask;
    TRAINSTEP_INLINE explicit Tail(std::ptrdiff_t n) : mask((1u << n) - 1u) {}
};
TRAINSTEP_INLINE F32 load_partial(const float* p, Tail<float> t) { return (F32)_mm512_maskz_loadu_ps((__mmask16)t.mask, p); }
TRAINSTEP_INLINE F64 load_partial(const double* p, Tail<double> t) { return (F64)_mm512_maskz_loadu_pd((__mmask8)t.mask, p); }
TRAINSTEP_INLINE void store_partial(float* p, Tail<float> t, F32 v) { _mm512_mask_storeu_ps(p, (__mmask16)t.mask, (__m512)v); }
TRAINSTEP_INLINE void store_partial(double* p, Tail<double> t, F64 v) { _mm512_mask_storeu_pd(p, (__mmask8)t.mask, (__m512d)v); }
#elif defined(__AVX2__)
template <class T>
struct Tail;
template <>
struct Tail<float> {
    I32 mask;
    TRAINSTEP_INLINE explicit Tail(std::ptrdiff_t n) : mask(lane_index<float>() < iset1<float>(std::int32_t(n))) {}
};
template <>
struct Tail<double> {
    I64 mask;
    TRAINSTEP_INLINE explicit Tail(std::ptrdiff_t n) : mask(lane_index<double>() < iset1<double>(n)) {}
};
TRAINSTEP_INLINE F32 load_partial(const float* p, Tail<float> t) { return (F32)_mm256_maskload_ps(p, (__m256i)t.mask); }
TRAINSTEP_INLINE F64 load_partial(const double* p, Tail<double> t) { return (F64)_mm256_maskload_pd(p, (__m256i)t.mask); }
TRAINSTEP_INLINE void store_partial(float* p, Tail<float> t, F32 v) { _mm256_maskstore_ps(p, (__m256i)t.mask, (__m256)v); }
TRAINSTEP_INLINE void store_partial(double* p, Tail<double> t, F64 v) { _mm256_maskstore_pd(p, (__m256i)t.mask, (__m256d)v); }
#else
template <class T>
struct Tail {
    int n;
    TRAINSTEP_INLINE explicit Tail(std::ptrdiff_t count) : n(int(count)) {}
};
template <class T>
TRAINSTEP_INLINE Vec<T> load_partial(const T* p, Tail<T> t) {
    Vec<T> v{};
    for (int i = 0; i < kWidth<T>; ++i)
        if (i < t.n) v[i] = p[i];
    return v;
}
template <class T>
TRAINSTEP_INLINE void store_partial(T* p, Tail<T> t, Vec<T> v) {
    for (int i = 0; i < kWidth<T>; ++i)
        if (i < t.n) p[i] = v[i];
}
#endif

// v in the first lanes, `rest` in the lanes past the tail.
#if defined(__AVX512F__)
TRAINSTEP_INLINE F32 keep_first(F32 v, Tail<float> t, F32 rest) {
    return (F32)_mm512_mask_mov_ps((__m512)rest, (__mmask16)t.mask, (__m512)v);
}
TRAINSTEP_INLINE F64 keep_first(F64 v, Tail<double> t, F64 rest) {
    return (F64)_mm512_mask_mov_pd((__m512d)rest, (__mmask8)t.mask, (__m512d)v);
}
#elif defined(__AVX2__)
TRAINSTEP_INLINE F32 keep_first(F32 v, Tail<float> t, F32 rest) { return t.mask ? v : rest; }
TRAINSTEP_INLINE F64 keep_first(F64 v, Tail<double> t, F64 rest) { return t.mask ? v : rest; }
#else
TRAINSTEP_INLINE F32 keep_first(F32 v, Tail<float> t, F32 rest) { return lane_index<float>() < iset1<float>(t.n) ? v : rest; }
TRAINSTEP_INLINE F64 keep_first(F64 v, Tail<double> t, F64 rest) { return lane_index<double>() < iset1<double>(t.n) ? v : rest; }
#endif

// A byte for each lane as a number from 0 to 255.
#if defined(__AVX512F__)
TRAINSTEP_INLINE I32 widen_bytes(const std::uint8_t* p, I32) {
    return (I32)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128((const __m128i*)p));
}
TRAINSTEP_INLINE I64 widen_bytes(const std::uint8_t* p, I64) {
    return (I64)_mm512_maskz_cvtepu8_epi64(0xff, _mm_loadl_epi64((const __m128i*)p));
}
#elif defined(__AVX2__)
TRAINSTEP_INLINE I32 widen_bytes(const std::uint8_t* p, I32) {
    return (I32)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
}
TRAINSTEP_INLINE I64 widen_bytes(const std::uint8_t* p, I64) { return (I64)_mm256_cvtepu8_epi64(_mm_loadu_si32(p)); }
#else
template <class Integers>
TRAINSTEP_INLINE Integers widen_bytes(const std::uint8_t* p, Integers v) {
    for (std::size_t i = 0; i < sizeof v / sizeof v[0]; ++i) v[i] = p[i];
    return v;
}
#endif

// --- arithmetic that has no operator (the maskz forms with a full mask: g++ 12 warns of its own plain ones, PR 105593) -------

// a * b + c, rounded once where the level has FMA and twice where it has not (generic on x86-64).
#if defined(__AVX512F__)
TRAINSTEP_INLINE F32 fma(F32 a, F32 b, F32 c) { return (F32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
TRAINSTEP_INLINE F64 fma(F64 a, F64 b, F64 c) { return (F64)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
TRAINSTEP_INLINE F32 sqrt(F32 a) { return (F32)_mm512_maskz_sqrt_ps(0xffff, (__m512)a); }
TRAINSTEP_INLINE F64 sqrt(F64 a) { return (F64)_mm512_maskz_sqrt_pd(0xff, (__m512d)a); }
#elif defined(__AVX2__)
TRAINSTEP_INLINE F32 fma(F32 a, F32 b, F32 c) { return (F32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
TRAINSTEP_INLINE F64 fma(F64 a, F64 b, F64 c) { return (F64)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }
TRAINSTEP_INLINE F32 sqrt(F32 a) { return (F32)_mm256_sqrt_ps((__m256)a); }
TRAINSTEP_INLINE F64 sqrt(F64 a) { return (F64)_mm256_sqrt_pd((__m256d)a); }
#elif defined(__aarch64__)
TRAINSTEP_INLINE F32 fma(F32 a, F32 b, F32 c) { return (F32)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
TRAINSTEP_INLINE F64 fma(F64 a, F64 b, F64 c) { return (F64)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
TRAINSTEP_INLINE F32 sqrt(F32 a) { return (F32)vsqrtq_f32((float32x4_t)a); }
TRAINSTEP_INLINE F64 sqrt(F64 a) { return (F64)vsqrtq_f64((float64x2_t)a); }
#else
TRAINSTEP_INLINE F32 fma(F32 a, F32 b, F32 c) { return a * b + c; }
TRAINSTEP_INLINE F64 fma(F64 a, F64 b, F64 c) { return a * b + c; }
TRAINSTEP_INLINE F32 sqrt(F32 a) { return (F32)_mm_sqrt_ps((__m128)a); }
TRAINSTEP_INLINE F64 sqrt(F64 a) { return (F64)_mm_sqrt_pd((__m128d)a); }
#endif

TRAINSTEP_INLINE F32 abs(F32 x) { return as_float(as_bits(x) & iset1<float>(0x7fffffff)); }
TRAINSTEP_INLINE F64 abs(F64 x) { return as_float(as_bits(x) & iset1<double>(0x7fffffffffffffff)); }

// |magnitude| with the sign of `sign`.
TRAINSTEP_INLINE F32 copysign(F32 magnitude, F32 sign) {
    return as_float((as_bits(magnitude) & iset1<float>(0x7fffffff)) | (as_bits(sign) & iset1<float>(INT32_MIN)));
}
TRAINSTEP_INLINE F64 copysign(F64 magnitude, F64 sign) {
    return as_float((as_bits(magnitude) & iset1<double>(0x7fffffffffffffff)) | (as_bits(sign) & iset1<double>(INT64_MIN)));
}

// a > b ? a : b, so a NaN in either operand gives b: put the operand whose NaN must survive second. (The intrinsics say the same
// in one instruction; g++ 12 makes two of the expression.)
#if defined(__AVX512F__)
TRAINSTEP_INLINE F32 max(F32 a, F32 b) { return (F32)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b); }
TRAINSTEP_INLINE F64 max(F64 a, F64 b) { return (F64)_mm512_maskz_max_pd(0xff, (__m512d)a, (__m512d)b); }
TRAINSTEP_INLINE F32 min(F32 a, F32 b) { return (F32)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b); }
TRAINSTEP_INLINE F64 min(F64 a, F64 b) { return (F64)_mm512_maskz_min_pd(0xff, (__m512d)a, (__m512d)b); }
#elif defined(__AVX2__)
TRAINSTEP_INLINE F32 max(F32 a, F32 b) { return (F32)_mm256_max_ps((__m256)a, (__m256)b); }
TRAINSTEP_INLINE F64 max(F64 a, F64 b) { return (F64)_mm256_max_pd((__m256d)a, (__m256d)b); }
TRAINSTEP_INLINE F32 min(F32 a, F32 b) { return (F32)_mm256_min_ps((__m256)a, (__m256)b); }
TRAINSTEP_INLINE F64 min(F64 a, F64 b) { return (F64)_mm256_min_pd((__m256d)a, (__m256d)b); }
#else
TRAINSTEP_INLINE F32 max(F32 a, F32 b) { return a > b ? a : b; }
TRAINSTEP_INLINE F64 max(F64 a, F64 b) { return a > b ? a : b; }
TRAINSTEP_INLINE F32 min(F32 a, F32 b) { return a < b ? a : b; }
TRAINSTEP_INLINE F64 min(F64 a, F64 b) { return a < b ? a : b; }
#endif

// -1, 0 or 1 with the sign of x; 0 for 0, NaN for NaN.
template <class T>
TRAINSTEP_INLINE Vec<T> sign(Vec<T> x) {
    return x == zero<T>() ? x : (x != x ? x : copysign(set1<T>(T(1)), x));
}

// --- powers of two (AVX-512 has them as instructions; elsewhere a few operations on the exponent field) ----------------------

template <class T>
inline constexpr int kMantissaBits = sizeof(T) == 4 ? 23 : 52;
// x + kRounder rounds x to an integer, for |x| < 2^(kMantissaBits - 1), and leaves that integer in the low bits of the sum.
template <class T>
inline constexpr T kRounder = T(3LL << (kMantissaBits<T> - 1));

// a * b - product: what a product lost in rounding, exactly where nothing is denormal (of double without FMA to the last bit of
// the rest). Without FMA from the halves of mantissas (Dekker: A floating-point technique for extending the available precision,
// Numerische Mathematik 18, 1971).
template <class T>
TRAINSTEP_INLINE Vec<T> rounded_away(Vec<T> a, Vec<T> b, Vec<T> product) {
    if constexpr (kHasFma) return fma(a, b, -product);
    const UVec<T> upper = ~UVec<T>{} << (kMantissaBits<T> / 2 + 1);
    const Vec<T> a_high = (Vec<T>)((UVec<T>)a & upper), b_high = (Vec<T>)((UVec<T>)b & upper);
    const Vec<T> a_low = a - a_high, b_low = b - b_high;
    return (((a_high * b_high - product) + a_high * b_low) + a_low * b_high) + a_low * b_low;
}

// x * 2^n, rounded once, for an x near 1 (or NaN) and an integral n as far out as the result may overflow or be denormal;
// n comes as shifted = n + kRounder, which is what rounding to n leaves.
#if defined(__AVX512F__)
TRAINSTEP_INLINE F32 ldexp(F32 x, F32 shifted) {
    return (F32)_mm512_maskz_scalef_ps(0xffff, (__m512)x, (__m512)(shifted - set1<float>(kRounder<float>)));
}
TRAINSTEP_INLINE F64 ldexp(F64 x, F64 shifted) {
    return (F64)_mm512_maskz_scalef_pd(0xff, (__m512d)x, (__m512d)(shifted - set1<double>(kRounder<double>)));
}
#else
template <class T>
TRAINSTEP_INLINE Vec<T> ldexp_in_two_steps(Vec<T> x, Vec<T> shifted) {
    constexpr int field = kMantissaBits<T>;
    const UVec<T> bits = (UVec<T>)shifted, one = (UVec<T>)set1<T>(T(1));
    const UVec<T> half = (bits << (field - 1)) & (~UVec<T>{} << field);  // floor(n / 2) in the place of the exponent
    return x * (Vec<T>)(one + half) * (Vec<T>)(one + ((bits << field) - half));
}
TRAINSTEP_INLINE F32 ldexp(F32 x, F32 shifted) { return ldexp_in_two_steps<float>(x, shifted); }
TRAINSTEP_INLINE F64 ldexp(F64 x, F64 shifted) { return ldexp_in_two_steps<double>(x, shifted); }
#endif

// x = mantissa * 2^exponent with 0.75 <= mantissa < 1.5, denormals included. The exponent is -inf for +-0, +inf for +inf and NaN
// for x < 0 and NaN, so that log(x) = log(mantissa) + exponent * log(2) holds for every x; the mantissa is then finite or NaN.
template <class T>
struct Parts {
    Vec<T> mantissa, exponent;
};
#if defined(__AVX512F__)
inline constexpr auto kPositiveOrNan = _MM_MANTISSA_SIGN_ENUM(3);  // the mantissa of -0 is 1, that of any other negative is NaN
TRAINSTEP_INLINE Parts<float> frexp(F32 x) {
    const __m512 m = _mm512_maskz_getmant_ps(0xffff, (__m512)x, _MM_MANT_NORM_p75_1p5, kPositiveOrNan);
    return {(F32)m, (F32)_mm512_maskz_getexp_ps(0xffff, (__m512)x) - (F32)_mm512_maskz_getexp_ps(0xffff, m)};
}
TRAINSTEP_INLINE Parts<double> frexp(F64 x) {
    const __m512d m = _mm512_maskz_getmant_pd(0xff, (__m512d)x, _MM_MANT_NORM_p75_1p5, kPositiveOrNan);
    return {(F64)m, (F64)_mm512_maskz_getexp_pd(0xff, (__m512d)x) - (F64)_mm512_maskz_getexp_pd(0xff, m)};
}
#else
template <class T>
TRAINSTEP_INLINE Parts<T> frexp_by_bits(Vec<T> x) {
    constexpr int field = kMantissaBits<T>, bias = sizeof(T) == 4 ? 127 : 1023;
    constexpr T smallest_normal = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022), two_to_field = T(1LL << field);
    const Vec<T> inf = set1<T>(T(__builtin_inf())), nan = set1<T>(T(__builtin_nan("")));
    const UVec<T> lowest = (UVec<T>)set1<T>(T(0.75)), to_one = (UVec<T>)set1<T>(T(1)) - lowest;
    const IVec<T> denormal = x < set1<T>(smallest_normal);
    const UVec<T> bits = (UVec<T>)(denormal ? x * set1<T>(two_to_field) : x) + to_one;
    const Vec<T> biased = (Vec<T>)((bits >> field) | (UVec<T>)set1<T>(two_to_field));  // 2^field + exponent + bias
    const Vec<T> n = biased - (denormal ? set1<T>(two_to_field + T(bias + field)) : set1<T>(two_to_field + T(bias)));
    return {(Vec<T>)((bits & ~(~UVec<T>{} << field)) + lowest), x > zero<T>() ? (x < inf ? n : x) : (x == zero<T>() ? -inf : nan)};
}
TRAINSTEP_INLINE Parts<float> frexp(F32 x) { return frexp_by_bits<float>(x); }
TRAINSTEP_INLINE Parts<double> frexp(F64 x) { return frexp_by_bits<double>(x); }
#endif

// --- reductions over the lanes, in one fixed tree: lane i meets lane i + width/2, and so on ----------------------------------

// Lanes turned by `by` places: lane i of the result is lane i + by.
template <class T, int by, int... i>
TRAINSTEP_INLINE Vec<T> rotate(Vec<T> v, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(v, v, ((i + by) % kWidth<T>)...);
}
template <class T, int half, class Op>
TRAINSTEP_INLINE T reduce_halves(Vec<T> v, Op op) {
    if constexpr (half == 0)
        return v[0];
    else
        return reduce_halves<T, half / 2>(op(v, rotate<T, half>(v, std::make_integer_sequence<int, kWidth<T>>{})), op);
}
template <class T>
TRAINSTEP_INLINE T reduce_add(Vec<T> v) {
    return reduce_halves<T, kWidth<T> / 2>(v, [](Vec<T> a, Vec<T> b) __attribute__((always_inline)) { return a + b; });
}
template <class T>
TRAINSTEP_INLINE T reduce_max(Vec<T> v) {
    return reduce_halves<T, kWidth<T> / 2>(v, [](Vec<T> a, Vec<T> b) __attribute__((always_inline)) { return max(a, b); });
}

// The lower and the upper half of a vector of float in double precision, and both rounded back. (g++ 12 takes
// __builtin_convertvector apart into quarters.)
#if defined(__AVX512F__)
TRAINSTEP_INLINE F64 widen_low(F32 x) { return (F64)_mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, (__m512)x, 0)); }
TRAINSTEP_INLINE F64 widen_high(F32 x) {
    return (F64)_mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, (__m512)x, 1));
}
TRAINSTEP_INLINE F32 rounded_halves(F64 low, F64 high) {
    const __m256 half[2] = {_mm512_maskz_cvtpd_ps(0xff, (__m512d)low), _mm512_maskz_cvtpd_ps(0xff, (__m512d)high)};
    return (F32)_mm512_maskz_insertf32x8(0xffff, _mm512_castps256_ps512(half[0]), half[1], 1);
}
#elif defined(__AVX2__)
TRAINSTEP_INLINE F64 widen_low(F32 x) { return (F64)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)x)); }
TRAINSTEP_INLINE F64 widen_high(F32 x) { return (F64)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)x, 1)); }
TRAINSTEP_INLINE F32 rounded_halves(F64 low, F64 high) {
    return (F32)_mm256_set_m128(_mm256_cvtpd_ps((__m256d)high), _mm256_cvtpd_ps((__m256d)low));
}
#else
typedef float HalfF32 __attribute__((vector_size(kVectorBytes / 2)));
template <int half>
TRAINSTEP_INLINE F64 widen_half(F32 x) {
    HalfF32 halves[2];
    __builtin_memcpy(halves, &x, sizeof x);
    return __builtin_convertvector(halves[half], F64);
}
TRAINSTEP_INLINE F64 widen_low(F32 x) { return widen_half<0>(x); }
TRAINSTEP_INLINE F64 widen_high(F32 x) { return widen_half<1>(x); }
TRAINSTEP_INLINE F32 rounded_halves(F64 low, F64 high) {
    const HalfF32 halves[2] = {__builtin_convertvector(low, HalfF32), __builtin_convertvector(high, HalfF32)};
    F32 result;
    __builtin_memcpy(&result, halves, sizeof result);
    return result;
}
#endif

// The squares of x's lanes, added to sums in double precision.
TRAINSTEP_INLINE F64 add_squares(F64 sums, F64 x) { return fma(x, x, sums); }
TRAINSTEP_INLINE F64 add_squares(F64 sums, F32 x) {
    const F64 low = widen_low(x), high = widen_high(x);
    return fma(low, low, fma(high, high, sums));
}

// --- integers of 8 and 16 bits in memory, of 32 in registers; products of 32 bits by 32 --------------------------------------

using U32 = UVec<float>;

// kWidth<float> integers of 16 bits in memory as 32 bits each, and back; what goes back fits. (g++ 12 takes __builtin_convertvector
// apart into scalars here.)
#if defined(__AVX512F__)
TRAINSTEP_INLINE U32 widen(const std::uint16_t* p) {
    return (U32)_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256((const __m256i*)p));
}
TRAINSTEP_INLINE void narrow(std::uint16_t* p, U32 v) { _mm512_mask_cvtepi32_storeu_epi16(p, 0xffff, (__m512i)v); }
#elif defined(__AVX2__)
TRAINSTEP_INLINE U32 widen(const std::uint16_t* p) { return (U32)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)); }
TRAINSTEP_INLINE void narrow(std::uint16_t* p, U32 v) {
    _mm_storeu_si128((__m128i*)p, _mm_packus_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1)));
}
#elif defined(__x86_64__)
TRAINSTEP_INLINE U32 widen(const std::uint16_t* p) {
    return (U32)_mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i*)p), _mm_setzero_si128());
}
TRAINSTEP_INLINE void narrow(std::uint16_t* p, U32 v) {  // SSE2 packs signed numbers only
    const __m128i bits = (__m128i)((I32)(v << 16) >> 16);
    _mm_storel_epi64((__m128i*)p, _mm_packs_epi32(bits, bits));
}
#else
typedef std::uint16_t HalfU16 __attribute__((vector_size(kVectorBytes / 2)));
TRAINSTEP_INLINE U32 widen(const std::uint16_t* p) {
    HalfU16 v;
    __builtin_memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, U32);
}
TRAINSTEP_INLINE void narrow(std::uint16_t* p, U32 v) {
    const HalfU16 bits = __builtin_convertvector(v, HalfU16);
    __builtin_memcpy(p, &bits, sizeof bits);
}
#endif

// Whether any bit of any lane is set.
TRAINSTEP_INLINE bool any_bit(UVec<float> x) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)x, (__m512i)x) != 0;
#else
    const float any = reduce_halves<float, kWidth<float> / 2>(
        (F32)x, [](F32 a, F32 b) __attribute__((always_inline)) { return (F32)((UVec<float>)a | (UVec<float>)b); });
    return __builtin_bit_cast(std::uint32_t, any) != 0;
#endif
}

// Vectors of 16 bits, twice as many lanes: the upper halves of two vectors of 32 (the lower ones are 0 on the way back), bytes with
// and without a sign (what goes back fits), and a - b or 0 where that is less.
typedef std::uint16_t U16 __attribute__((vector_size(kVectorBytes)));
typedef std::int16_t I16 __attribute__((vector_size(kVectorBytes)));
struct Pair {
    U32 first, second;
};
TRAINSTEP_INLINE U16 load16(const std::uint16_t* p) {
    U16 v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
TRAINSTEP_INLINE void store16(std::uint16_t* p, U16 v) { __builtin_memcpy(p, &v, sizeof v); }
#if defined(__AVX512F__)
template <int... i>
TRAINSTEP_INLINE Pair as_upper_halves(U16 v, std::integer_sequence<int, i...>) {
    return {(U32)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, (__m512i)U16{(i / 2)...}, (__m512i)v),
            (U32)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, (__m512i)U16{(16 + i / 2)...}, (__m512i)v)};
}
TRAINSTEP_INLINE Pair as_upper_halves(U16 v) { return as_upper_halves(v, std::make_integer_sequence<int, 32>{}); }
template <int... i>
TRAINSTEP_INLINE U16 upper_halves(Pair p, std::integer_sequence<int, i...>) {
    return (U16)_mm512_permutex2var_epi16((__m512i)p.first, (__m512i)U16{(2 * i + 1)...}, (__m512i)p.second);
}
TRAINSTEP_INLINE U16 upper_halves(Pair p) { return upper_halves(p, std::make_integer_sequence<int, 32>{}); }
TRAINSTEP_INLINE U16 widen(const std::uint8_t* p) {
    return (U16)_mm512_maskz_cvtepu8_epi16(0xffffffff, _mm256_loadu_si256((const __m256i*)p));
}
TRAINSTEP_INLINE U16 widen_signed(const std::uint8_t* p) {
    return (U16)_mm512_maskz_cvtepi8_epi16(0xffffffff, _mm256_loadu_si256((const __m256i*)p));
}
TRAINSTEP_INLINE void narrow(std::uint8_t* p, U16 v) {
    _mm256_storeu_si256((__m256i*)p, _mm512_maskz_cvtepi16_epi8(0xffffffff, (__m512i)v));
}
TRAINSTEP_INLINE U16 subtract_or_0(U16 a, U16 b) { return (U16)_mm512_maskz_subs_epu16(0xffffffff, (__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
TRAINSTEP_INLINE Pair as_upper_halves(U16 v) {  // the unpacking works within halves of the vector
    const __m256i zero = _mm256_setzero_si256(), sorted = _mm256_permute4x64_epi64((__m256i)v, 0xd8);
    return {(U32)_mm256_unpacklo_epi16(zero, sorted), (U32)_mm256_unpackhi_epi16(zero, sorted)};
}
TRAINSTEP_INLINE U16 upper_halves(Pair p) {
    return (U16)_mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)(p.first >> 16), (__m256i)(p.second >> 16)), 0xd8);
}
TRAINSTEP_INLINE U16 widen(const std::uint8_t* p) { return (U16)_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p)); }
TRAINSTEP_INLINE U16 widen_signed(const std::uint8_t* p) { return (U16)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)); }
TRAINSTEP_INLINE void narrow(std::uint8_t* p, U16 v) {
    _mm_storeu_si128((__m128i*)p, _mm_packus_epi16(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1)));
}
TRAINSTEP_INLINE U16 subtract_or_0(U16 a, U16 b) { return (U16)_mm256_subs_epu16((__m256i)a, (__m256i)b); }
#elif defined(__x86_64__)
TRAINSTEP_INLINE Pair as_upper_halves(U16 v) {
    const __m128i zero = _mm_setzero_si128();
    return {(U32)_mm_unpacklo_epi16(zero, (__m128i)v), (U32)_mm_unpackhi_epi16(zero, (__m128i)v)};
}
TRAINSTEP_INLINE U16 upper_halves(Pair p) {
    return (U16)_mm_packs_epi32((__m128i)((I32)p.first >> 16), (__m128i)((I32)p.second >> 16));
}
TRAINSTEP_INLINE U16 widen(const std::uint8_t* p) {
    return (U16)_mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i*)p), _mm_setzero_si128());
}
TRAINSTEP_INLINE U16 widen_signed(const std::uint8_t* p) { return (U16)((I16)(widen(p) << 8) >> 8); }
TRAINSTEP_INLINE void narrow(std::uint8_t* p, U16 v) { _mm_storel_epi64((__m128i*)p, _mm_packus_epi16((__m128i)v, (__m128i)v)); }
TRAINSTEP_INLINE U16 subtract_or_0(U16 a, U16 b) { return (U16)_mm_subs_epu16((__m128i)a, (__m128i)b); }
#else
TRAINSTEP_INLINE Pair as_upper_halves(U16 v) {
    HalfU16 half[2];
    __builtin_memcpy(half, &v, sizeof v);
    return {__builtin_convertvector(half[0], U32) << 16, __builtin_convertvector(half[1], U32) << 16};
}
TRAINSTEP_INLINE U16 upper_halves(Pair p) {
    const HalfU16 half[2] = {__builtin_convertvector(p.first >> 16, HalfU16), __builtin_convertvector(p.second >> 16, HalfU16)};
    U16 v;
    __builtin_memcpy(&v, half, sizeof v);
    return v;
}
typedef std::uint8_t U8 __attribute__((vector_size(kVectorBytes / 2)));
TRAINSTEP_INLINE U16 widen(const std::uint8_t* p) {
    U8 v;
    __builtin_memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, U16);
}
TRAINSTEP_INLINE U16 widen_signed(const std::uint8_t* p) { return (U16)((I16)(widen(p) << 8) >> 8); }
TRAINSTEP_INLINE void narrow(std::uint8_t* p, U16 v) {
    const U8 bytes = __builtin_convertvector(v, U8);
    __builtin_memcpy(p, &bytes, sizeof bytes);
}
TRAINSTEP_INLINE U16 subtract_or_0(U16 a, U16 b) { return a > b ? a - b : U16{}; }
#endif

// The lower 32 bits of a * b.
TRAINSTEP_INLINE U32 multiply_low(U32 a, std::uint32_t b) {
#if defined(__x86_64__) && !defined(__AVX2__)  // SSE2 has only products of 64 bits, of every other lane
    const __m128i factor = _mm_set1_epi32(int(b)), even = _mm_mul_epu32((__m128i)a, factor),
                  odd = _mm_mul_epu32(_mm_srli_epi64((__m128i)a, 32), factor);
    return ((U32)even & (U32)_mm_set1_epi64x(0xffffffff)) | (U32)_mm_slli_epi64(odd, 32);
#else
    return a * b;
#endif
}

// All 64 bits of a * b, of the lower half of each lane of a; the upper half does not count.
using U64 = UVec<double>;
TRAINSTEP_INLINE U64 multiply_wide(U64 a, std::uint32_t b) {
#if defined(__AVX512F__)
    return (U64)_mm512_maskz_mul_epu32(0xff, (__m512i)a, _mm512_set1_epi64(b));
#elif defined(__AVX2__)
    return (U64)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__x86_64__)
    return (U64)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#elif defined(__aarch64__)
    return (U64)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(b));
#else
    return (a & 0xffffffff) * std::uint64_t(b);
#endif
}

// The compiler must take v for a value that it does not know, so that it folds, fuses and drops nothing that is made from it. No
// instruction comes of it.
#if defined(__aarch64__)
#define TRAINSTEP_VECTOR_REGISTER "+w"
#else
#define TRAINSTEP_VECTOR_REGISTER "+v"
#endif
TRAINSTEP_INLINE void opaque(F32& v) { asm volatile("" : TRAINSTEP_VECTOR_REGISTER(v)); }
TRAINSTEP_INLINE void opaque(F64& v) { asm volatile("" : TRAINSTEP_VECTOR_REGISTER(v)); }

}  // namespace trainstep::TRAINSTEP_ISA
