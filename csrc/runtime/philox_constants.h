// What Philox4x32-10 is made of, for the scalar form (philox.h) and the vectors of kernels/dropout.h. No code, so that a file
// compiled per ISA level may include it.
#pragma once

#include <cstdint>

namespace trainstep {

inline constexpr std::uint32_t kPhiloxMultiplier[2] = {0xD2511F53, 0xCD9E8D57}, kPhiloxWeyl[2] = {0x9E3779B9, 0xBB67AE85};
inline constexpr int kPhiloxRounds = 10;

// What a stream of numbers is for. The purpose is a part of the counter, so that no two uses of a seed share a number.
enum class Purpose : std::uint32_t { init = 0, shuffle = 1, rounding = 2, dropout = 3, augment = 4 };

}  // namespace trainstep
