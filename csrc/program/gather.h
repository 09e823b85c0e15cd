// Batches from a table of any real dtype: rows are picked, cast and laid out side by side.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trainstep {

// name in NumPy, C++ type
#define TRAINSTEP_INPUT_DTYPES(X) \
    X(bool, bool)                 \
    X(int8, std::int8_t)          \
    X(uint8, std::uint8_t)        \
    X(int16, std::int16_t)        \
    X(uint16, std::uint16_t)      \
    X(int32, std::int32_t)        \
    X(uint32, std::uint32_t) X(int64, std::int64_t) X(uint64, std::uint64_t) X(float32, float) X(float64, double)

#define TRAINSTEP_DTYPE_ENUMERATOR(name, type) name##_,
enum class InputDtype : int { TRAINSTEP_INPUT_DTYPES(TRAINSTEP_DTYPE_ENUMERATOR) };
#undef TRAINSTEP_DTYPE_ENUMERATOR

// A C-contiguous table of rows x columns.
struct Table {
    const void* data;
    InputDtype dtype;
    std::size_t rows, columns;
};

// out[i, :] = table[order[i], :], or table[first + i, :] where order is null, for i = 0 .. rows-1, cast to T.
template <class T>
void gather_rows(T* out, const Table& table, const std::int64_t* order, std::size_t first, std::size_t rows);

}  // namespace trainstep
