#include "bindings/precisions.h"

#include <string>

#include "bindings/bind.h"

namespace trainstep {

std::optional<MatmulPrecision> precision_named(const char* function, py::handle named) {
    if (named.is_none()) return {};
    if (!py::isinstance<py::str>(named))
        throw py::type_error(std::string(function) + ": precision is a " + type_name(named) + ", expected a name");
    Py_ssize_t length = 0;
    const char* const text = PyUnicode_AsUTF8AndSize(named.ptr(), &length);
    if (!text) PyErr_Clear();  // no UTF-8: no name of ours
    const std::string_view name = text ? std::string_view(text, std::size_t(length)) : std::string_view();
    std::string names, aliases;
    for (std::size_t i = 0; i < kMatmulPrecisionCount; ++i) {
        const std::string_view own = kMatmulPrecisionNames[i], alias = kMatmulPrecisionAliases[i];
        if (!name.empty() && (name == own || name == alias)) return MatmulPrecision(i);
        names += (names.empty() ? "" : ", ") + std::string(own);
        if (!alias.empty()) aliases += (aliases.empty() ? "" : ", ") + std::string(alias) + " (" + std::string(own) + ")";
    }
    throw py::value_error(std::string(function) + ": precision is " + ascii(named) + ", expected one of " + names + ", " + aliases);
}

py::object precision_name(std::optional<MatmulPrecision> precision) {
    if (!precision) return py::none();
    const std::string_view name = kMatmulPrecisionNames[int(*precision)];
    return py::str(name.data(), name.size());
}

void refuse_pieces_of_double(const char* function, MatmulPrecision precision) {
    throw py::value_error(std::string(function) + ": precision is '" + std::string(kMatmulPrecisionNames[int(precision)]) +
                          "', expected 'float32' with float64 arrays");
}

}  // namespace trainstep
