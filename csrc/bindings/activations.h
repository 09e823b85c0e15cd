// Activations as Python names them.
#pragma once

#include <pybind11/pybind11.h>

#include "kernels/activations.h"

namespace trainstep {

// An activation with its one number; None is what that is unless given. ValueError where it is not finite and at least 0.
Activation with_parameter(const std::string& function, ActivationKind kind, pybind11::handle parameter);

// None (the identity), a name, or a list [name, number].
Activation activation_named(const char* function, const char* argument, pybind11::handle named);

}  // namespace trainstep
