// How float32 products are calculated, as Python names it.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "kernels/precision.h"
#include "ops/dense.h"

namespace trainstep {

// None, a name, or another name for it (PyTorch's and JAX's).
std::optional<MatmulPrecision> precision_named(const char* function, pybind11::handle named);
// The name, or None.
pybind11::object precision_name(std::optional<MatmulPrecision> precision);

[[noreturn]] void refuse_pieces_of_double(const char* function, MatmulPrecision precision);

// What a call on arrays of T uses. ValueError where another than float32 is given for double, which has no pieces.
template <class T>
MatmulPrecision precision_of_call(const char* function, std::optional<MatmulPrecision> given) {
    if constexpr (sizeof(T) == 8) {
        if (given && *given != MatmulPrecision::float32) refuse_pieces_of_double(function, *given);
        return MatmulPrecision::float32;
    } else {
        return given.value_or(matmul_precision());
    }
}

}  // namespace trainstep
