// Dropout on whole arrays.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/table.h"

namespace trainstep {

// The mask of (seed, counter) with elements dropped at `rate`, 0 <= rate < 1; and what is kept is multiplied by.
DropoutMask dropout_mask(double rate, std::uint64_t seed, std::uint32_t counter);
inline double dropout_scale(double rate) { return 1 / (1 - rate); }

// y = x * scale where an element is kept, else 0; kept (n): 1 and 0, or null where it is not wanted. y may be x.
// `first`: where y and x lie in the array that the mask is of.
template <class T>
void dropout(T* y, std::uint8_t* kept, const T* x, std::size_t n, const DropoutMask& mask, T scale, std::size_t first = 0);

// The same with a mask that is there: kept where it is not 0.
template <class T>
void dropout_masked(T* y, const std::uint8_t* kept, const T* x, std::size_t n, T scale);

}  // namespace trainstep
