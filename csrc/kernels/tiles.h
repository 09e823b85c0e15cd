// AMX's tiles under plain names. Eight registers of 16 rows of 64 bytes, all of full size. (Written as instructions: g++'s
// intrinsics are macros that take a tile's number only as a digit.)
//
// A build with TRAINSTEP_SOFTWARE_TILES has them in memory instead, to test what is built upon them where there is no AMX.
#pragma once

#include "kernels/simd.h"

namespace trainstep::TRAINSTEP_ISA::tiles {

#ifndef TRAINSTEP_SOFTWARE_TILES

struct alignas(64) Shape {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t bytes_of_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Between these calls this thread has tiles; outside a switch to another thread has nothing of them to save.
inline void begin() {
    const Shape shape;
    asm volatile("ldtilecfg\t%0" ::"m"(shape));
}
inline void end() { asm volatile("tilerelease"); }

template <int tile>
TRAINSTEP_INLINE void zero() {
    asm volatile("tilezero\t%%tmm%c0" ::"i"(tile));
}
template <int tile>
TRAINSTEP_INLINE void load(const void* from, std::size_t row_bytes) {
    asm volatile("tileloadd\t(%0,%1), %%tmm%c2" ::"r"(from), "r"(row_bytes), "i"(tile) : "memory");
}
template <int tile>
TRAINSTEP_INLINE void store(void* to, std::size_t row_bytes) {
    asm volatile("tilestored\t%%tmm%c2, (%0,%1)" ::"r"(to), "r"(row_bytes), "i"(tile) : "memory");
}
// c += a @ b, of float32 sums and bf16 pairs.
template <int c, int a, int b>
TRAINSTEP_INLINE void multiply_add() {
    asm volatile("tdpbf16ps\t%%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}

#else

struct Registers {
    alignas(64) std::uint32_t at[8][16][16];
    bool configured;
};
inline thread_local Registers registers{};

inline void begin() { registers.configured = true; }
inline void end() { registers = {}; }

inline auto& tile_at(int tile) {
    if (!registers.configured) __builtin_trap();
    return registers.at[tile];
}
template <int tile>
void zero() {
    __builtin_memset(tile_at(tile), 0, 16 * 64);
}
template <int tile>
void load(const void* from, std::size_t row_bytes) {
    for (std::size_t r = 0; r < 16; ++r) __builtin_memcpy(tile_at(tile)[r], static_cast<const char*>(from) + r * row_bytes, 64);
}
template <int tile>
void store(void* to, std::size_t row_bytes) {
    for (std::size_t r = 0; r < 16; ++r) __builtin_memcpy(static_cast<char*>(to) + r * row_bytes, tile_at(tile)[r], 64);
}
// As the processor: the even and the odd products of all pairs are added up each by themselves, and then the two sums to c's;
// denormal numbers count as 0.
template <int c, int a, int b>
void multiply_add() {
    typedef UVec<float> U32;
    const auto flushed = [](F32 x) { return (F32)((U32)x & ((U32)(((U32)x & 0x7f800000) != 0) | 0x80000000)); };
    const auto row = [](std::uint32_t* at) { return (U32)TRAINSTEP_ISA::load(reinterpret_cast<float*>(at)); };
    for (int m = 0; m < 16; ++m) {
        F32 even{}, odd{};
        for (int k = 0; k < 16; ++k) {
            const U32 x = U32{} + tile_at(a)[m][k], y = row(tile_at(b)[k]);
            even = flushed(fma(flushed((F32)(x << 16)), flushed((F32)(y << 16)), even));
            odd = flushed(fma(flushed((F32)(x & 0xffff0000)), flushed((F32)(y & 0xffff0000)), odd));
        }
        auto* const sum = reinterpret_cast<float*>(tile_at(c)[m]);
        TRAINSTEP_ISA::store<float>(sum, flushed(TRAINSTEP_ISA::load(sum) + flushed(even + odd)));
    }
}

#endif

}  // namespace trainstep::TRAINSTEP_ISA::tiles
