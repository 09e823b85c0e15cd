// Elements of one dtype where another is calculated with: through buffers of one block, which are whole vectors long.
#pragma once

#include "kernels/loops.h"
#include "kernels/storage.h"

namespace trainstep::TRAINSTEP_ISA::storage {

// What may be read as a whole block: `from` itself or, where it has fewer elements, a copy of them in `buffer`.
template <class I>
TRAINSTEP_INLINE const I* whole_block(const I* from, I* buffer, std::size_t count) {
    return count == kBlock ? from : static_cast<const I*>(__builtin_memcpy(buffer, from, count * sizeof(I)));
}
// Where a whole block may be written: `to` itself or, where there is room for fewer elements, `buffer`. Then `finish` puts them
// there.
template <class I>
struct WholeBlock {
    I* to;
    std::size_t count;
    alignas(64) I buffer[kBlock];

    TRAINSTEP_INLINE WholeBlock(I* to_, std::size_t count_) : to(to_), count(count_) {}
    TRAINSTEP_INLINE I* data() { return count == kBlock ? to : buffer; }
    TRAINSTEP_INLINE void finish() {
        if (count < kBlock) __builtin_memcpy(to, buffer, count * sizeof(I));
    }
};

// `count` elements in T, from where an array of another dtype lies. x has room for a block.
template <class T>
void load_as(T* x, const void* from, Dtype dtype, std::size_t first, std::size_t count) {
    const auto copy = [&](const auto* typed) __attribute__((always_inline)) {
        for (std::size_t i = 0; i < count; ++i) x[i] = T(typed[first + i]);
    };
    if (dtype == Dtype::float32) return copy(static_cast<const float*>(from));
    if (dtype == Dtype::float64) return copy(static_cast<const double*>(from));
    alignas(64) std::uint16_t part[kBlock];
    const std::uint16_t* const bits = whole_block(static_cast<const std::uint16_t*>(from) + first, part, count);
    if constexpr (sizeof(T) == 4) {
        const bool brain = dtype == Dtype::bfloat16;
        for (std::size_t i = 0; i < kBlock; i += kWidth<float>)
            store<float>(x + i, brain ? from_bfloat16(widen(bits + i)) : from_float16(widen(bits + i)));
    } else {
        alignas(64) float value[kBlock];
        load_as<float>(value, bits, dtype, 0, count);
        for (std::size_t i = 0; i < count; ++i) x[i] = T(value[i]);
    }
}

// A bfloat16 parameter and its float32 master. Where the two do not agree, somebody has written to the parameter.
inline void take_written(float* master, const std::uint16_t* parameter, std::size_t count) {
    alignas(64) std::uint16_t part[kBlock];
    const std::uint16_t* const bits = whole_block(parameter, part, count);
    for_each_vector<float>(count, [&](std::size_t i, auto part) __attribute__((always_inline)) {
        const F32 own = get<float>(master + i, part);
        const U32 given = widen(bits + i);
        put<float>(master + i, part, (I32)(to_bfloat16(own) == given) ? own : from_bfloat16(given));
    });
}
inline void store_bfloat16(std::uint16_t* parameter, const float* master, std::size_t count) {
    WholeBlock<std::uint16_t> block(parameter, count);
    std::uint16_t* const bits = block.data();
    for_each_vector<float>(count, [&](std::size_t i, auto part) __attribute__((always_inline)) {
        narrow(bits + i, to_bfloat16(get<float>(master + i, part)));
    });
    block.finish();
}

// A whole state, for who reads or sets it from outside: rounded to nearest.
inline void load_whole_state(float* x, const LowBitState& s, std::size_t n) {
    alignas(64) std::uint8_t part[kBlock];
    alignas(64) float block[kBlock];
    for (std::size_t first = 0; first < n; first += kBlock) {
        const std::size_t count = n - first < kBlock ? n - first : kBlock;
        if (s.format == StateFormat::bfloat16) {
            load_as<float>(block, s.data, Dtype::bfloat16, first, count);
        } else {
            const std::uint8_t* const codes = whole_block(static_cast<const std::uint8_t*>(s.data) + first, part, count);
            const std::uint8_t exponent = s.exponents[first / kBlock];
            for (std::size_t i = 0; i < kBlock; i += 2 * kWidth<float>) {
                const Pair pair =
                    s.with_sign ? BlockOfCodes<true>(exponent).decode(codes + i) : BlockOfCodes<false>(exponent).decode(codes + i);
                store<float>(block + i, (F32)pair.first);
                store<float>(block + i + kWidth<float>, (F32)pair.second);
            }
        }
        __builtin_memcpy(x + first, block, count * sizeof *x);
    }
}
inline void store_whole_state(const LowBitState& s, const float* x, std::size_t n) {
    alignas(64) float block[kBlock];
    for (std::size_t first = 0; first < n; first += kBlock) {
        const std::size_t count = n - first < kBlock ? n - first : kBlock;
        if (s.format == StateFormat::bfloat16) {
            store_bfloat16(static_cast<std::uint16_t*>(s.data) + first, x + first, count);
            continue;
        }
        __builtin_memcpy(block, x + first, count * sizeof *x);
        for (std::size_t i = count; i < kBlock; ++i) block[i] = 0;
        Largest largest;
        for (std::size_t i = 0; i < kBlock; i += kWidth<float>) largest.add(load(block + i), true);
        const std::uint8_t exponent = s.exponents[first / kBlock] = largest.exponent();
        WholeBlock<std::uint8_t> codes(static_cast<std::uint8_t*>(s.data) + first, count);
        const auto encode = [&](auto block_of_codes) __attribute__((always_inline)) {
            const auto added = [&](std::size_t i) __attribute__((always_inline)) { return (U32)load(block + i) + kOneStep / 2; };
            for (std::size_t i = 0; i < kBlock; i += 2 * kWidth<float>)
                block_of_codes.encode(codes.data() + i, {added(i), added(i + kWidth<float>)});
            if (exponent == kNonFinite) block_of_codes.fill_nan(codes.data());
        };
        s.with_sign ? encode(BlockOfCodes<true>(exponent)) : encode(BlockOfCodes<false>(exponent));
        codes.finish();
    }
}

}  // namespace trainstep::TRAINSTEP_ISA::storage
