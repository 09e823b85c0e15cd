// Wide<T>: the lanes of a Vec<T> in double precision: for sums of so many terms that their error
// would grow, and for what is left of them where they cancel.
#pragma once

#include "kernels/loops.h"

namespace trainstep::TRAINSTEP_ISA {

template <class T>
struct Wide;
template <>
struct Wide<float> {
    F64 low, high;
};
template <>
struct Wide<double> {
    F64 low;
};

TRAINSTEP_INLINE Wide<float> wide(F32 x) { return {widen_low(x), widen_high(x)}; }
TRAINSTEP_INLINE Wide<double> wide(F64 x) { return {x}; }

TRAINSTEP_INLINE F32 rounded(Wide<float> x) { return rounded_halves(x.low, x.high); }
TRAINSTEP_INLINE F64 rounded(Wide<double> x) { return x.low; }

// kWidth<T> doubles in memory, in an order of their own.
template <class T>
TRAINSTEP_INLINE Wide<T> load_wide(const double* p) {
    if constexpr (sizeof(T) == 4)
        return {load(p), load(p + kWidth<double>)};
    else
        return {load(p)};
}
template <class T>
TRAINSTEP_INLINE void store_wide(double* p, Wide<T> x) {
    store<double>(p, x.low);
    if constexpr (sizeof(T) == 4) store<double>(p + kWidth<double>, x.high);
}

// Every lane holds x.
template <class T>
TRAINSTEP_INLINE Wide<T> wide1(double x) {
    if constexpr (sizeof(T) == 4)
        return {set1<double>(x), set1<double>(x)};
    else
        return {set1<double>(x)};
}

// f of the lanes.
template <class T, class F, class... Others>
TRAINSTEP_INLINE Wide<T> each(F f, Wide<T> a, Others... others) {
    if constexpr (sizeof(T) == 4)
        return {f(a.low, others.low...), f(a.high, others.high...)};
    else
        return {f(a.low, others.low...)};
}

template <class T>
TRAINSTEP_INLINE Wide<T> operator+(Wide<T> a, Wide<T> b) {
    return each<T>([](F64 x, F64 y) __attribute__((always_inline)) { return x + y; }, a, b);
}
template <class T>
TRAINSTEP_INLINE Wide<T> operator-(Wide<T> a, Wide<T> b) {
    return each<T>([](F64 x, F64 y) __attribute__((always_inline)) { return x - y; }, a, b);
}
template <class T>
TRAINSTEP_INLINE Wide<T> operator*(Wide<T> a, Wide<T> b) {
    return each<T>([](F64 x, F64 y) __attribute__((always_inline)) { return x * y; }, a, b);
}
template <class T>
TRAINSTEP_INLINE Wide<T> operator*(double factor, Wide<T> a) {
    return each<T>([=](F64 x) __attribute__((always_inline)) { return factor * x; }, a);
}
template <class T>
TRAINSTEP_INLINE Wide<T> fma(Wide<T> a, Wide<T> b, Wide<T> c) {
    return each<T>([](F64 x, F64 y, F64 z) __attribute__((always_inline)) { return fma(x, y, z); }, a, b, c);
}
template <class T>
TRAINSTEP_INLINE double reduce_add(Wide<T> a) {
    if constexpr (sizeof(T) == 4)
        return reduce_add<double>(a.low + a.high);
    else
        return reduce_add<double>(a.low);
}

// Calls body(j, part, count) over the columns [n0, n1): for `count` vectors from column j on, all whole or one partial. A sum down
// the columns is so a chain of its own for each of them, whichever columns are its neighbours.
template <int vectors>
struct Strip {
    static constexpr int count = vectors;
};
template <class T, class Body>
TRAINSTEP_INLINE void for_each_strip(std::size_t n0, std::size_t n1, Body body) {
    constexpr std::size_t width = 2 * kWidth<T>;
    std::size_t j = n0;
    for (; j + width <= n1; j += width) body(j, Full{}, Strip<2>{});
    for_each_vector<T>(n1 - j, [=](std::size_t i, auto part) __attribute__((always_inline)) { body(j + i, part, Strip<1>{}); });
}

}  // namespace trainstep::TRAINSTEP_ISA
