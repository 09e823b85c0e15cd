#include "bindings/arrays.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "bindings/bind.h"

namespace trainstep {

namespace {

std::string at(Site site) { return std::string(site.function) + ": " + site.name() + " "; }

bool is_aligned(const py::array& a) { return (a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0; }
bool is_c_contiguous(const py::array& a) { return (a.flags() & py::array::c_style) != 0; }
py::array contiguous_or_copy(const py::array& a) {
    return is_c_contiguous(a) && is_aligned(a) ? a : py::array(a.attr("copy")("C"));
}

// The bytes [first, last) that an array touches.
struct Extent {
    const char *first, *last;
};
Extent extent(const py::array& a) {
    const char* first = static_cast<const char*>(a.data());
    if (a.size() == 0) return {first, first};
    const char* last = first + a.itemsize();
    for (py::ssize_t d = 0; d < a.ndim(); ++d) {
        const py::ssize_t reach = (a.shape(d) - 1) * a.strides(d);
        (reach < 0 ? first : last) += reach;
    }
    return {first, last};
}
bool overlap(const py::array& a, const py::array& b) {
    const Extent x = extent(a), y = extent(b);
    return x.first < y.last && y.first < x.last;
}

std::string tuple_text(const py::ssize_t* shape, std::size_t n) {
    std::string text = "(";
    for (std::size_t i = 0; i < n; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + (n == 1 ? ",)" : ")");
}

template <class T>
void check_writable(Site site, const py::array& a) {
    if (!has_dtype<T>(a)) type_error(site, "has dtype " + dtype_text(a) + ", expected " + std::string(py::str(py::dtype::of<T>())));
    if (!a.writeable()) value_error(site, "is read-only, expected a writeable array");
    if (!is_c_contiguous(a) || !is_aligned(a)) value_error(site, "is strided or unaligned, expected a C-contiguous, aligned array");
}

}  // namespace

void value_error(Site site, const std::string& what) { throw py::value_error(at(site) + what); }
void type_error(Site site, const std::string& what) { throw py::type_error(at(site) + what); }

std::string shape_text(const py::array& a) { return tuple_text(a.shape(), std::size_t(a.ndim())); }
std::string shape_text(const std::vector<py::ssize_t>& shape) { return tuple_text(shape.data(), shape.size()); }
std::string dtype_text(const py::array& a) { return py::str(a.dtype()); }

py::array as_array(Site site, py::handle object, bool copy_allowed) {
    if (py::isinstance<py::array>(object)) {
        // A mask says that numbers are not to be used; of the subclasses of ndarray, only masked arrays have one.
        if (Py_TYPE(object.ptr()) != py::detail::npy_api::get().PyArray_Type_ && py::hasattr(object, "mask"))
            type_error(site, "is a " + type_name(object) + ", expected an array without a mask");
        return py::reinterpret_borrow<py::array>(object);
    }
    const auto numpy = [] { return py::module_::import("numpy"); };
    try {
        if (py::hasattr(object, "__dlpack__")) return numpy().attr("from_dlpack")(object);
        if (PyObject_CheckBuffer(object.ptr()) && !py::isinstance<py::bytes>(object))
            return numpy().attr("asarray")(py::reinterpret_steal<py::object>(PyMemoryView_FromObject(object.ptr())));
        if (copy_allowed && (py::isinstance<py::list>(object) || py::isinstance<py::tuple>(object)))
            return numpy().attr("array")(object);
        if (copy_allowed && py::hasattr(object, "__array__") && !py::isinstance<py::type>(object))
            return as_array(site, numpy().attr("asanyarray")(object));  // it may have a mask
    } catch (py::error_already_set& e) {
        type_error(site, "cannot be read as an array: " + std::string(py::str(e.value())) +
                             (py::hasattr(object, "requires_grad") ? " (detach a tensor that requires grad first)" : ""));
    }
    type_error(site, "is a " + type_name(object) + ", expected a NumPy array, or an object with __dlpack__" +
                         (copy_allowed ? ", __array__" : "") + " or the buffer protocol");
}

template <class T>
bool has_dtype(const py::array& a) {
    const py::dtype d = a.dtype();
    if (std::is_same_v<T, bool>) return d.num() == py::detail::npy_api::NPY_BOOL_;
    if (std::is_same_v<T, std::int64_t>) return d.kind() == 'i' && d.itemsize() == 8 && d.byteorder() == '=';
    return d.num() == (sizeof(T) == 4 ? py::detail::npy_api::NPY_FLOAT_ : py::detail::npy_api::NPY_DOUBLE_) && d.byteorder() == '=';
}
template bool has_dtype<bool>(const py::array&);
template bool has_dtype<std::int64_t>(const py::array&);
template bool has_dtype<float>(const py::array&);
template bool has_dtype<double>(const py::array&);

template <class T>
py::array contiguous(Site site, py::handle object) {
    py::array a = as_array(site, object);
    if (!has_dtype<T>(a)) type_error(site, "has dtype " + dtype_text(a) + ", expected " + std::string(py::str(py::dtype::of<T>())));
    return contiguous_or_copy(a);
}
template py::array contiguous<bool>(Site, py::handle);
template py::array contiguous<float>(Site, py::handle);
template py::array contiguous<double>(Site, py::handle);

void check_shape(Site site, const py::array& a, std::initializer_list<py::ssize_t> shape) {
    bool fits = std::size_t(a.ndim()) == shape.size(), empty = false;
    for (py::ssize_t d = 0; fits && d < a.ndim(); ++d) {
        const py::ssize_t wanted = shape.begin()[d];
        fits = wanted < 0 || a.shape(d) == wanted;
        empty = empty || a.shape(d) == 0;
    }
    if (fits && !empty) return;  // the messages are made only where they are wanted
    if (fits) value_error(site, "has shape " + shape_text(a) + ", expected no extent of 0");
    std::string wanted = "(";
    for (py::ssize_t extent : shape) wanted += (wanted.size() > 1 ? ", " : "") + (extent < 0 ? "any" : std::to_string(extent));
    value_error(site, "has shape " + shape_text(a) + ", expected " + wanted + (shape.size() == 1 ? ",)" : ")"));
}

template <class T>
py::array output(Site site, py::handle out, const std::vector<py::ssize_t>& shape, std::initializer_list<const py::array*> inputs,
                 bool same_place_allowed) {
    if (out.is_none()) return py::array(py::dtype::of<T>(), shape);
    if (!py::isinstance<py::array>(out)) type_error(site, "is no NumPy array");
    py::array a = as_array(site, out);
    check_writable<T>(site, a);
    if (std::size_t(a.ndim()) != shape.size() || !std::equal(shape.begin(), shape.end(), a.shape()))
        value_error(site, "has shape " + shape_text(a) + ", expected " + shape_text(shape));
    for (const py::array* input : inputs)
        if (overlap(a, *input) && !(same_place_allowed && a.data() == input->data()))
            value_error(site, "shares memory with an input, expected memory of its own");
    return a;
}
template py::array output<bool>(Site, py::handle, const std::vector<py::ssize_t>&, std::initializer_list<const py::array*>, bool);
template py::array output<std::int64_t>(Site, py::handle, const std::vector<py::ssize_t>&, std::initializer_list<const py::array*>,
                                        bool);
template py::array output<float>(Site, py::handle, const std::vector<py::ssize_t>&, std::initializer_list<const py::array*>, bool);
template py::array output<double>(Site, py::handle, const std::vector<py::ssize_t>&, std::initializer_list<const py::array*>, bool);

template <class T>
py::array in_place(Site site, py::handle object) {
    py::array a = as_array(site, object, false);
    check_writable<T>(site, a);
    return a;
}
template py::array in_place<float>(Site, py::handle);
template py::array in_place<double>(Site, py::handle);

void check_apart(Site site, const py::array& a, Site other, const py::array& b) {
    if (overlap(a, b)) value_error(site, "shares memory with " + other.name() + ", expected memory of its own");
}

py::array labels(Site site, py::handle object, py::ssize_t rows, py::ssize_t classes) {
    py::array a = as_array(site, object);
    const char kind = a.dtype().kind();
    if (kind != 'i' && kind != 'u') type_error(site, "has dtype " + dtype_text(a) + ", expected integer class indices");
    check_shape(site, a, {rows});
    const bool as_it_is = kind == 'i' && a.itemsize() == sizeof(std::int64_t) && a.dtype().byteorder() == '=';
    py::array result = contiguous_or_copy(as_it_is ? a : py::array(a.attr("astype")("int64")));
    const std::int64_t* label = data<std::int64_t>(result);
    const auto most = std::uint64_t(classes - 1);
    std::uint64_t outside = 0;  // its top bit is set by a label below 0, or above the last class
    for (py::ssize_t i = 0; i < rows; ++i) outside |= std::uint64_t(label[i]) | (most - std::uint64_t(label[i]));
    for (py::ssize_t i = 0; outside >> 63 != 0 && i < rows; ++i)
        if (label[i] < 0 || label[i] >= classes)
            value_error(site, "holds " + std::to_string(label[i]) + " at row " + std::to_string(i) + ", expected 0 <= label < " +
                                  std::to_string(classes));
    return result;
}

namespace {

// ValueError at the first element that does not fit.
template <class T, class Fits>
void check_elements(Site site, const T* x, std::size_t n, const char* wanted, Fits fits) {
    for (std::size_t first = 0; first < n; first += 256) {  // without a branch for each
        const std::size_t end = std::min(n, first + 256);
        unsigned wrong = 0;
        for (std::size_t i = first; i < end; ++i) wrong |= unsigned(!fits(x[i]));
        for (std::size_t i = first; wrong && i < end; ++i)
            if (!fits(x[i]))
                value_error(site, "holds " + std::to_string(x[i]) + " at element " + std::to_string(i) + ", expected " + wanted);
    }
}
template <class T>
bool finite_from_0(T x) {
    return (x >= 0) & (x <= std::numeric_limits<T>::max());  // no branch
}

}  // namespace

template <class T>
void check_target(Site site, const T* x, std::size_t n, TargetKind kind) {
    switch (kind) {
        case TargetKind::numbers:
            return check_elements(site, x, n, "numbers", [](T v) { return v == v; });
        case TargetKind::probabilities:
            return check_elements(site, x, n, "finite probabilities of at least 0", finite_from_0<T>);
        case TargetKind::counts:
            return check_elements(site, x, n, "finite counts of at least 0", finite_from_0<T>);
        case TargetKind::fractions:
            return check_elements(site, x, n, "numbers from 0 to 1", [](T v) { return (v >= 0) & (v <= 1); });
        case TargetKind::signs:
            return check_elements(site, x, n, "-1 or 1", [](T v) { return (v == -1) | (v == 1); });
    }
}
template void check_target(Site, const float*, std::size_t, TargetKind);
template void check_target(Site, const double*, std::size_t, TargetKind);

Table table(Site site, py::handle object, std::size_t columns, py::object& keep_alive) {
    py::array a = as_array(site, object);
    std::size_t row = 1;
    for (py::ssize_t d = 1; d < a.ndim(); ++d) row *= std::size_t(a.shape(d));
    if (a.ndim() < 2 || row != columns)
        value_error(site, "has shape " + shape_text(a) + ", expected (rows, " + std::to_string(columns) + ")");
    if (a.shape(0) == 0) value_error(site, "has shape " + shape_text(a) + ", expected at least one row");
    const char kind = a.dtype().kind();
    const py::ssize_t size = a.itemsize();
    InputDtype dtype{};
    const auto is = [&](char k, py::ssize_t bytes, InputDtype found) {
        const bool same = kind == k && size == bytes && (a.dtype().byteorder() == '=' || a.dtype().byteorder() == '|');
        if (same) dtype = found;
        return same;
    };
    const bool known = is('f', 4, InputDtype::float32_) || is('f', 8, InputDtype::float64_) || is('u', 1, InputDtype::uint8_) ||
                       is('i', 8, InputDtype::int64_) || is('i', 4, InputDtype::int32_) || is('b', 1, InputDtype::bool_) ||
                       is('i', 1, InputDtype::int8_) || is('i', 2, InputDtype::int16_) || is('u', 2, InputDtype::uint16_) ||
                       is('u', 4, InputDtype::uint32_) || is('u', 8, InputDtype::uint64_);
    if (!known) {
        // float16, long double, foreign byte order: rare enough to be cast as a whole.
        if (kind != 'f' && kind != 'i' && kind != 'u') type_error(site, "has dtype " + dtype_text(a) + ", expected a real dtype");
        return table(site, a.attr("astype")("float64"), columns, keep_alive);
    }
    a = contiguous_or_copy(a);
    keep_alive = a;
    return {a.data(), dtype, std::size_t(a.shape(0)), columns};
}

template <class T>
Table cast_table(Site site, py::handle object, std::size_t columns, py::object& keep_alive) {
    const Table from = table(site, object, columns, keep_alive);
    constexpr InputDtype wanted = sizeof(T) == 4 ? InputDtype::float32_ : InputDtype::float64_;
    if (from.dtype == wanted) return from;
    py::array_t<T> cast({py::ssize_t(from.rows), py::ssize_t(columns)});
    gather_rows(cast.mutable_data(), from, nullptr, 0, from.rows);
    keep_alive = cast;
    return {cast.data(), wanted, from.rows, columns};
}
template Table cast_table<float>(Site, py::handle, std::size_t, py::object&);
template Table cast_table<double>(Site, py::handle, std::size_t, py::object&);

template <class T>
py::array weights(Site site, py::handle object, py::ssize_t n, bool cast) {
    py::array a = as_array(site, object);
    check_shape(site, a, {n});
    py::object kept = a;
    if (cast && !has_dtype<T>(a)) cast_table<T>(site, a.reshape({n, py::ssize_t(1)}), 1, kept);
    a = contiguous<T>(site, kept);
    check_elements(site, data<T>(a), std::size_t(n), "finite weights of at least 0", finite_from_0<T>);
    return a;
}
template py::array weights<float>(Site, py::handle, py::ssize_t, bool);
template py::array weights<double>(Site, py::handle, py::ssize_t, bool);

}  // namespace trainstep
