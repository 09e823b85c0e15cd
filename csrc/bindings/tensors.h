// Arrays of the optimizers at the border: float32, float64, bfloat16 or float16, from NumPy, __dlpack__ or the buffer protocol.
// Read again at every step, since a tensor's storage can move; so this is quick, and leaves the checks of shape and layout to the
// caller.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "kernels/storage.h"

namespace trainstep {

struct Tensor {
    void* data = nullptr;
    std::optional<Dtype> dtype;  // none: another one, which dtype_name tells
    const std::int64_t* shape = nullptr;
    std::size_t ndim = 0, n = 1;
    std::size_t bytes = 0;  // of one element
    bool contiguous = true, writeable = true;
    py::object owner;  // keeps data and shape where they are

    bool same_shape(const Tensor& other) const;
    std::string shape_text() const;
    std::string dtype_name() const;
};

// TypeError where the object is no array on the CPU.
Tensor read_tensor(Site site, py::handle object);

// The same, and a copy where it is strided.
Tensor read_contiguous(Site site, py::handle object);

// Throws unless the tensor has one of the dtypes, is C-contiguous, aligned and writeable.
void check_in_place(Site site, const Tensor& tensor);

}  // namespace trainstep
