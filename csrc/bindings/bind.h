// One function per family; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <string_view>

namespace trainstep {

namespace py = pybind11;

void bind_runtime(py::module_& m);
void bind_ops(py::module_& m);
void bind_optim(py::module_& m);
void bind_formulas(py::module_& m);
void bind_norms(py::module_& m);
void bind_normalize(py::module_& m);
void bind_capi(py::module_& m);
void bind_metrics(py::module_& m);
void bind_nn(py::module_& m);
void bind_data(py::module_& m);
void bind_probes(py::module_& m);

inline std::string type_name(py::handle object) { return py::str(py::type::handle_of(object).attr("__name__")); }

inline std::string ascii(py::handle object) { return py::str(py::reinterpret_steal<py::object>(PyObject_ASCII(object.ptr()))); }

template <std::size_t n>
py::tuple names_tuple(const std::string_view (&names)[n]) {
    py::tuple result(n);
    for (std::size_t i = 0; i < n; ++i) result[i] = py::str(names[i].data(), names[i].size());
    return result;
}

// The index of a name in a family's table; ValueError with the choices where it is not there. None is index 0 where allowed.
template <std::size_t n>
int name_index(const char* function, const char* argument, const std::string_view (&names)[n], py::handle name,
               bool none_is_first = false) {
    if (none_is_first && name.is_none()) return 0;
    if (!py::isinstance<py::str>(name))
        throw py::type_error(std::string(function) + ": " + argument + " is a " + type_name(name) + ", expected a name");
    Py_ssize_t length = 0;
    const char* text = PyUnicode_AsUTF8AndSize(name.ptr(), &length);
    if (!text) PyErr_Clear();  // no UTF-8: no name of ours
    for (std::size_t i = 0; text && i < n; ++i)
        if (names[i] == std::string_view(text, std::size_t(length))) return int(i);
    std::string message = std::string(function) + ": " + argument + " is " + ascii(name) + ", expected one of";
    for (std::size_t i = 0; i < n; ++i) message += (i ? ", " : " ") + std::string(names[i]);
    throw py::value_error(message);
}

}  // namespace trainstep
