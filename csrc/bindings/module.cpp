// The extension module trainstep._core: one bind_<family> call for each family.
#include <pybind11/pybind11.h>

#include "bindings/bind.h"
#include "runtime/isa.h"
#include "runtime/parallel.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
    m.doc() = "The compiled core of trainstep. Its Python face is trainstep and its submodules.";
    try {
        trainstep::select_isa();
        trainstep::init_threads();
    } catch (const std::invalid_argument& e) {
        throw py::import_error(e.what());
    }
    m.attr("__version__") = TRAINSTEP_VERSION;
    trainstep::bind_runtime(m);
    trainstep::bind_ops(m);
    trainstep::bind_normalize(m);
    trainstep::bind_optim(m);
    trainstep::bind_formulas(m);
    trainstep::bind_norms(m);
    trainstep::bind_capi(m);
    trainstep::bind_metrics(m);
    trainstep::bind_nn(m);
    trainstep::bind_data(m);
    trainstep::bind_probes(m);
}
