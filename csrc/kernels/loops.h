// Loops over arrays: full vectors, then one partial vector. Every remainder of an element-wise kernel is handled here and nowhere
// else.
#pragma once

#include <type_traits>  // types only, no code

#include "kernels/simd.h"

namespace trainstep::TRAINSTEP_ISA {

TRAINSTEP_INLINE std::size_t least(std::size_t a, std::size_t b) { return a < b ? a : b; }

// Calls body(i, full) for whole vectors and body(i, tail) for the rest; body reads and writes through get/put below.
struct Full {};
template <class T>
TRAINSTEP_INLINE Vec<T> get(const T* p, Full) {
    return load(p);
}
template <class T>
TRAINSTEP_INLINE Vec<T> get(const T* p, Tail<T> tail) {
    return load_partial(p, tail);
}
template <class T>
TRAINSTEP_INLINE void put(T* p, Full, Vec<T> v) {
    store<T>(p, v);
}
template <class T>
TRAINSTEP_INLINE void put(T* p, Tail<T> tail, Vec<T> v) {
    store_partial(p, tail, v);
}

// Whole numbers from 0 to 127 as bytes; `left` of them are there from p on (fewer than a vector in a tail, which
// the remainder lets the compiler know).
template <class T, class Part>
TRAINSTEP_INLINE void put_bytes(std::uint8_t* p, Part, std::size_t left, Vec<T> v) {
    typedef std::uint8_t Bytes __attribute__((vector_size(kWidth<T>)));
    const Bytes bytes = __builtin_convertvector(__builtin_convertvector(v, IVec<T>), Bytes);
    __builtin_memcpy(p, &bytes, std::is_same_v<Part, Full> ? sizeof bytes : left % kWidth<T>);
}
template <class T>
TRAINSTEP_INLINE Vec<T> get_bytes(const std::uint8_t* p, Full, std::size_t) {
    return __builtin_convertvector(widen_bytes(p, IVec<T>{}), Vec<T>);
}
template <class T>
TRAINSTEP_INLINE Vec<T> get_bytes(const std::uint8_t* p, Tail<T>, std::size_t left) {
    std::uint8_t bytes[kWidth<T>] = {};
    __builtin_memcpy(bytes, p, left % kWidth<T>);
    return get_bytes<T>(bytes, Full{}, 0);
}

// The lanes that hold elements, and `rest` in the others.
template <class T>
TRAINSTEP_INLINE Vec<T> or_else(Vec<T> v, Full, Vec<T>) {
    return v;
}
template <class T>
TRAINSTEP_INLINE Vec<T> or_else(Vec<T> v, Tail<T> tail, Vec<T> rest) {
    return keep_first(v, tail, rest);
}

// head: elements to take as a partial vector first, less than kWidth, so that the others are aligned.
template <class T, class Body>
TRAINSTEP_INLINE void for_each_vector(std::size_t n, Body body, std::size_t head = 0) {
    constexpr std::size_t width = kWidth<T>;
    std::size_t i = 0;
    if (head != 0 && head < n) {
        body(i, Tail<T>(std::ptrdiff_t(head)));
        i = head;
    }
    for (; i + width <= n; i += width) body(i, Full{});
    if (i < n) body(i, Tail<T>(std::ptrdiff_t(n - i)));
}

// y[i] = f(x[i])
template <class T, class F>
TRAINSTEP_INLINE void map(T* y, const T* x, std::size_t n, F f) {
    for_each_vector<T>(
        n, [=](std::size_t i, auto part) __attribute__((always_inline)) { put<T>(y + i, part, f(get<T>(x + i, part))); });
}

// z[i] = f(x[i], y[i])
template <class T, class F>
TRAINSTEP_INLINE void zip(T* z, const T* x, const T* y, std::size_t n, F f) {
    for_each_vector<T>(n, [=](std::size_t i, auto part)
                              __attribute__((always_inline)) { put<T>(z + i, part, f(get<T>(x + i, part), get<T>(y + i, part))); });
}

}  // namespace trainstep::TRAINSTEP_ISA
