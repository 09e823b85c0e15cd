// Arrays at the border: what Python hands in is checked here, before anything is read or written.
//
// Inputs may be strided (they are copied); outputs and arrays that are updated in place must be C-contiguous, aligned, writeable
// and of the exact dtype and shape, and may share memory with an input only where the formula allows it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "kernels/losses.h"
#include "program/gather.h"

namespace trainstep {

namespace py = pybind11;

// Where an array came in: "dense: x", or "step: grads[2]". Every message begins with it, and is made only where there is one.
struct Site {
    const char* function;
    const char* argument;
    std::ptrdiff_t index = -1;

    std::string name() const { return argument + (index < 0 ? "" : "[" + std::to_string(index) + "]"); }
};

[[noreturn]] void value_error(Site site, const std::string& what);
[[noreturn]] void type_error(Site site, const std::string& what);

std::string shape_text(const py::array& a);
std::string shape_text(const std::vector<py::ssize_t>& shape);
std::string dtype_text(const py::array& a);

inline std::vector<py::ssize_t> shape_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

// The object as a NumPy array over the same memory: an array, or anything with __dlpack__ or the buffer protocol. With copy_allowed
// also a list or tuple of numbers, or an object with __array__ (a pandas DataFrame), as NumPy reads it.
py::array as_array(Site site, py::handle object, bool copy_allowed = true);

template <class T>
bool has_dtype(const py::array& a);

// Calls f with a T of the array's dtype: float32 or float64, else TypeError.
template <class F>
auto dispatch_float(Site site, const py::array& a, F&& f) {
    if (has_dtype<float>(a)) return f(float{});
    if (has_dtype<double>(a)) return f(double{});
    type_error(site, "has dtype " + dtype_text(a) + ", expected float32 or float64");
}

// An input of dtype T (float, double, bool): C-contiguous and aligned, copied if it is not so already. TypeError for another dtype.
template <class T>
py::array contiguous(Site site, py::handle object);

// ValueError unless a has that shape; -1 stands for any extent.
void check_shape(Site site, const py::array& a, std::initializer_list<py::ssize_t> shape);

// An array to write: `out` checked for T, shape, layout and overlap with `inputs`, or a new one where out is None. T may be bool or
// int64_t. same_place_allowed: an input that is the very same array may be overwritten (element-wise formulas).
template <class T>
py::array output(Site site, py::handle out, const std::vector<py::ssize_t>& shape, std::initializer_list<const py::array*> inputs,
                 bool same_place_allowed = false);

// An array that is updated in place: ndarray of T, C-contiguous, aligned, writeable.
template <class T>
py::array in_place(Site site, py::handle object);

// ValueError where the two share memory.
void check_apart(Site site, const py::array& a, Site other, const py::array& b);

// Labels as int64, each checked to be in [0, classes).
py::array labels(Site site, py::handle object, py::ssize_t rows, py::ssize_t classes);

// ValueError where one of the n elements of a target is none of its kind.
template <class T>
void check_target(Site site, const T* x, std::size_t n, TargetKind kind);

// n weights of dtype T, finite and at least 0; with `cast` of any real dtype.
template <class T>
py::array weights(Site site, py::handle object, py::ssize_t n, bool cast);

// A table of rows for a model that takes `columns` features: any real dtype, (rows, columns) or (rows, ...) with that many elements
// a row.
Table table(Site site, py::handle object, std::size_t columns, py::object& keep_alive);

// The same, cast to T where it is of another dtype.
template <class T>
Table cast_table(Site site, py::handle object, std::size_t columns, py::object& keep_alive);

template <class T>
const T* data(const py::array& a) {
    return static_cast<const T*>(a.data());
}
template <class T>
T* mutable_data(py::array& a) {
    return static_cast<T*>(a.mutable_data());
}

// The GIL is released for the life of this object.
class WithoutGil {
  public:
    WithoutGil() : state_(PyEval_SaveThread()) {}
    ~WithoutGil() { PyEval_RestoreThread(state_); }
    WithoutGil(const WithoutGil&) = delete;

  private:
    PyThreadState* state_;
};

// Work under this many elements is over before another thread could take the GIL.
inline constexpr py::ssize_t kKeepGil = 20000;
template <class F>
void without_gil_if(bool large, F&& f) {
    if (!large) return f();
    const WithoutGil released;
    f();
}

}  // namespace trainstep
