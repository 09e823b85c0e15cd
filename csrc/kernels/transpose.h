// Blocks of kWidth x kWidth elements, transposed in registers.
#pragma once

#include "kernels/loops.h"

namespace trainstep::TRAINSTEP_ISA {

template <class T, int half, int... i>
TRAINSTEP_INLINE void swap_blocks(Vec<T>& x, Vec<T>& y, std::integer_sequence<int, i...>) {
    constexpr int width = kWidth<T>;
    const Vec<T> low = __builtin_shufflevector(x, y, (i & half ? width + (i ^ half) : i)...);
    y = __builtin_shufflevector(x, y, (i & half ? width + i : (i ^ half))...);
    x = low;
}
template <class T, int half>
TRAINSTEP_INLINE void transpose_rounds(Vec<T>* rows) {
    if constexpr (half > 0) {
        constexpr int width = kWidth<T>;
#pragma GCC unroll 16
        for (int i = 0; i < width; ++i)
            if (!(i & half)) swap_blocks<T, half>(rows[i], rows[i + half], std::make_integer_sequence<int, width>{});
        transpose_rounds<T, half / 2>(rows);
    }
}

// rows[i][j] becomes rows[j][i], in log2(kWidth) rounds, each of which swaps off-diagonal blocks of half the size of the round
// before.
template <class T>
TRAINSTEP_INLINE void transpose(Vec<T>* rows) {
    transpose_rounds<T, kWidth<T> / 2>(rows);
}

// The transpose of a block of `rows` <= kWidth rows of `columns` <= kWidth elements: `columns` rows of kWidth elements, those from
// `rows` on of no meaning.
template <class T>
TRAINSTEP_INLINE void transpose_in(T* out, std::size_t out_stride, const T* in, std::size_t in_stride, std::size_t rows,
                                   std::size_t columns) {
    constexpr int width = kWidth<T>;
    Vec<T> block[width];
    const auto load_rows = [&](auto part) __attribute__((always_inline)) {
#pragma GCC unroll 16
        for (int i = 0; i < width; ++i)
            block[i] = get<T>(in + (std::size_t(i) < rows ? std::size_t(i) : rows - 1) * in_stride, part);
    };
    columns == std::size_t(width) ? load_rows(Full{}) : load_rows(Tail<T>(std::ptrdiff_t(columns)));
    transpose<T>(block);
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i)
        if (std::size_t(i) < columns) store<T>(out + i * out_stride, block[i]);
}

// The way back: `columns` rows of kWidth elements become the first `rows` rows of `columns` elements.
template <class T>
TRAINSTEP_INLINE void transpose_out(T* out, std::size_t out_stride, const T* in, std::size_t in_stride, std::size_t rows,
                                    std::size_t columns) {
    constexpr int width = kWidth<T>;
    Vec<T> block[width];
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) block[i] = std::size_t(i) < columns ? load(in + i * in_stride) : zero<T>();
    transpose<T>(block);
    const auto store_rows = [&](auto part) __attribute__((always_inline)) {
#pragma GCC unroll 16
        for (int i = 0; i < width; ++i)
            if (std::size_t(i) < rows) put<T>(out + i * out_stride, part, block[i]);
    };
    columns == std::size_t(width) ? store_rows(Full{}) : store_rows(Tail<T>(std::ptrdiff_t(columns)));
}

}  // namespace trainstep::TRAINSTEP_ISA
