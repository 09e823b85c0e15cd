#include "bindings/activations.h"

#include <cmath>

#include "bindings/bind.h"
#include "bindings/optim_values.h"

namespace trainstep {

Activation with_parameter(const std::string& function, ActivationKind kind, py::handle parameter) {
    const ActivationInfo& a = info(kind);
    if (parameter.is_none()) return {kind, a.standard};
    if (!a.parameter) throw py::type_error(function + ": takes no parameter");
    const double value = number(function, a.parameter, parameter);
    if (!std::isfinite(value) || value < 0)
        throw py::value_error(function + ": " + a.parameter + " is " + std::string(py::str(parameter)) +
                              ", expected a finite number of at least 0");
    return {kind, value};
}

Activation activation_named(const char* function, const char* argument, py::handle named) {
    const bool has_number = py::isinstance<py::list>(named) && py::len(named) == 2;
    const auto parts = has_number ? py::tuple(py::reinterpret_borrow<py::list>(named)) : py::make_tuple(named, py::none());
    return with_parameter(function, ActivationKind(name_index(function, argument, kActivationKindNames, parts[0], true)), parts[1]);
}

}  // namespace trainstep
