#include "bindings/tensors.h"

#include <algorithm>
#include <cstring>

#include "bindings/bind.h"

namespace trainstep {

namespace {

// The parts of DLPack's ABI (dmlc/dlpack, include/dlpack/dlpack.h) that are read here.
struct DLDevice {
    std::int32_t type, id;
};
struct DLDataType {
    std::uint8_t code, bits;
    std::uint16_t lanes;
};
struct DLTensor {
    void* data;
    DLDevice device;
    std::int32_t ndim;
    DLDataType dtype;
    std::int64_t *shape, *strides;
    std::uint64_t byte_offset;
};
struct DLVersion {
    std::uint32_t major, minor;
};
struct DLManagedTensorVersioned {
    DLVersion version;
    void *context, *deleter;
    std::uint64_t flags;
    DLTensor tensor;
};
// A type may offer functions in C, which spare the call of __dlpack__.
struct DLExchange {
    DLVersion version;
    void *previous, *allocator, *managed_from_object, *to_object;
    int (*tensor_from_object)(void* object, DLTensor* out);
};
constexpr std::int32_t kCpu = 1, kPinned = 3;
constexpr std::uint8_t kFloat = 2, kBfloat = 4;
constexpr std::uint64_t kReadOnly = 1;

std::optional<Dtype> dtype_of(DLDataType d) {
    if (d.lanes != 1) return std::nullopt;
    if (d.code == kBfloat && d.bits == 16) return Dtype::bfloat16;
    if (d.code != kFloat) return std::nullopt;
    return d.bits == 32   ? std::optional(Dtype::float32)
           : d.bits == 64 ? std::optional(Dtype::float64)
           : d.bits == 16 ? std::optional(Dtype::float16)
                          : std::nullopt;
}

void set_shape(Tensor& t, const std::int64_t* shape, const std::int64_t* strides, std::size_t ndim, std::int64_t unit) {
    t.shape = shape;
    t.ndim = ndim;
    t.n = 1;
    std::int64_t expected = unit;
    for (std::size_t d = ndim; d-- > 0;) {
        if (strides && shape[d] != 1 && strides[d] != expected) t.contiguous = false;
        expected *= shape[d];
        t.n *= std::size_t(shape[d]);
    }
    if (t.n == 0) t.contiguous = true;
}

Tensor from_dlpack(Site site, const DLTensor& d) {
    if (d.device.type != kCpu && d.device.type != kPinned)
        type_error(site, "is on another device (DLPack type " + std::to_string(d.device.type) + "), expected the CPU");
    Tensor t;
    t.dtype = dtype_of(d.dtype);
    t.bytes = d.dtype.bits / 8u;
    t.data = static_cast<char*>(d.data) + d.byte_offset;
    set_shape(t, d.shape, d.strides, std::size_t(d.ndim), 1);
    return t;
}

// The exchange functions of a type, or null. Types are few; each is asked once.
const DLExchange* exchange_of(PyTypeObject* type) {
    struct Entry {
        PyTypeObject* type;
        const DLExchange* exchange;
    };
    static thread_local std::vector<Entry> known;
    for (const Entry& e : known)
        if (e.type == type) return e.exchange;
    const DLExchange* exchange = nullptr;
    const auto handle = py::handle(reinterpret_cast<PyObject*>(type));
    if (py::hasattr(handle, "__dlpack_c_exchange_api__")) {
        const py::object capsule = handle.attr("__dlpack_c_exchange_api__");
        if (PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api"))
            exchange = static_cast<const DLExchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
        if (exchange && (exchange->version.major != 1 || !exchange->tensor_from_object)) exchange = nullptr;
    }
    if (known.size() < 16) {
        handle.inc_ref();  // so that no other type is ever found at this address
        known.push_back({type, exchange});
    }
    return exchange;
}

// What an array's dtype object says. Arrays mostly share one, so that the last answer is the next one.
struct DtypeAnswer {
    PyObject* descriptor = nullptr;
    std::optional<Dtype> dtype;
    std::size_t bytes = 0;
};
DtypeAnswer ask(PyObject* descriptor) {
    const auto d = py::reinterpret_borrow<py::dtype>(descriptor);
    DtypeAnswer answer{descriptor, std::nullopt, std::size_t(d.itemsize())};
    using api = py::detail::npy_api;
    constexpr int kHalf = 23;  // NPY_HALF, which pybind11 has no name for
    if (d.byteorder() != '=') return answer;
    if (d.num() == api::NPY_FLOAT_) answer.dtype = Dtype::float32;
    if (d.num() == api::NPY_DOUBLE_) answer.dtype = Dtype::float64;
    if (d.num() == kHalf) answer.dtype = Dtype::float16;
    if (d.num() >= 256 && std::string(py::str(d)) == "bfloat16") answer.dtype = Dtype::bfloat16;
    return answer;
}

// From numpy's own struct.
Tensor from_numpy(py::handle object) {
    static thread_local DtypeAnswer last;
    const auto* proxy = py::detail::array_proxy(object.ptr());
    // A dtype object that is freed may leave its address to another one; those of the builtin dtypes are never freed.
    const DtypeAnswer answer = proxy->descr == last.descriptor ? last : ask(proxy->descr);
    if (answer.dtype && *answer.dtype != Dtype::bfloat16) last = answer;
    Tensor t;
    t.owner = py::reinterpret_borrow<py::object>(object);
    t.data = proxy->data;
    t.dtype = answer.dtype;
    t.bytes = answer.bytes;
    static_assert(sizeof(Py_intptr_t) == sizeof(std::int64_t));
    set_shape(t, reinterpret_cast<const std::int64_t*>(proxy->dimensions), nullptr, std::size_t(proxy->nd), 1);
    constexpr int wanted = int(py::array::c_style) | int(py::detail::npy_api::NPY_ARRAY_ALIGNED_);
    t.contiguous = (proxy->flags & wanted) == wanted;
    t.writeable = (proxy->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) != 0;
    return t;
}

}  // namespace

bool Tensor::same_shape(const Tensor& other) const { return ndim == other.ndim && std::equal(shape, shape + ndim, other.shape); }

std::string Tensor::shape_text() const { return trainstep::shape_text(std::vector<py::ssize_t>(shape, shape + ndim)); }

std::string Tensor::dtype_name() const {
    if (dtype) return std::string(kDtypeNames[int(*dtype)]);
    return py::hasattr(owner, "dtype") ? std::string(py::str(owner.attr("dtype"))) : "of another kind";
}

Tensor read_tensor(Site site, py::handle object) {
    PyTypeObject* type = Py_TYPE(object.ptr());
    if (type == py::detail::npy_api::get().PyArray_Type_) return from_numpy(object);
    if (const DLExchange* exchange = exchange_of(type)) {
        DLTensor d;
        if (exchange->tensor_from_object(object.ptr(), &d) != 0) throw py::error_already_set();
        Tensor t = from_dlpack(site, d);
        t.owner = py::reinterpret_borrow<py::object>(object);
        return t;
    }
    if (!py::isinstance<py::array>(object) && py::hasattr(object, "__dlpack__")) {
        py::object capsule;
        try {
            const py::object export_ = object.attr("__dlpack__");
            try {
                capsule = export_(py::arg("max_version") = py::make_tuple(1, 0));
            } catch (py::error_already_set& e) {
                if (!e.matches(PyExc_TypeError)) throw;
                capsule = export_();
            }
        } catch (py::error_already_set& e) {
            type_error(site, "cannot be read as an array: " + std::string(py::str(e.value())) +
                                 (py::hasattr(object, "requires_grad") ? " (detach a tensor that requires grad first)" : ""));
        }
        Tensor t;
        if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
            const auto* managed =
                static_cast<const DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
            if (managed->version.major != 1) type_error(site, "is exported by another version of DLPack, expected 1");
            t = from_dlpack(site, managed->tensor);
            t.writeable = !(managed->flags & kReadOnly);
        } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
            t = from_dlpack(site, *static_cast<const DLTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor")));
        } else {
            type_error(site, "gives no DLPack capsule");
        }
        t.owner = capsule;  // which nobody consumes: it frees the tensor when it goes
        return t;
    }
    return from_numpy(as_array(site, object, false));  // subclasses, the buffer protocol; or the error
}

Tensor read_contiguous(Site site, py::handle object) {
    Tensor t = read_tensor(site, object);
    if (t.contiguous) return t;
    if (t.dtype == Dtype::bfloat16 && !py::isinstance<py::array>(object))
        value_error(site, "is strided, expected a C-contiguous array of bfloat16");
    return from_numpy(as_array(site, object).attr("copy")("C"));
}

void check_in_place(Site site, const Tensor& t) {
    if (!t.dtype || t.dtype == Dtype::float16)
        type_error(site, "has dtype " + t.dtype_name() + ", expected float32, float64 or bfloat16");
    if (!t.writeable) value_error(site, "is read-only, expected a writeable array");
    if (!t.contiguous) value_error(site, "is strided or unaligned, expected a C-contiguous, aligned array");
}

}  // namespace trainstep
