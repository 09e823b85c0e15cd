// The probes behind `trainstep bench`: what this machine can do at most.
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "ops/probes.h"

namespace trainstep {

namespace {

constexpr std::string_view kFloatNames[] = {"float32", "float64"};

// Longer samples, more of them or a larger working set are a slip of the pen: nothing can interrupt them.
void check(const char* function, const char* argument, double value, double most) {
    if (!(value > 0 && value <= most))
        value_error({function, argument}, "is " + std::string(py::str(py::float_(value))) + ", expected more than 0 and at most " +
                                              std::string(py::str(py::float_(most))));
}

}  // namespace

void bind_probes(py::module_& m) {
    m.attr("streams") = names_tuple(kStreamNames);
    m.def(
        "fma_probe",
        [](py::handle dtype, double seconds, int samples) {
            const int index = name_index("fma_probe", "dtype", kFloatNames, dtype);
            check("fma_probe", "seconds", seconds, 10);
            check("fma_probe", "samples", samples, 10000);
            const WithoutGil released;
            return index == 0 ? fma_probe<float>(seconds, samples) : fma_probe<double>(seconds, samples);
        },
        py::arg("dtype"), py::arg("seconds"), py::arg("samples"));
    m.def(
        "stream_probe",
        [](py::handle stream, double bytes, double seconds, int samples) {
            const auto which = Stream(name_index("stream_probe", "stream", kStreamNames, stream));
            check("stream_probe", "bytes", bytes, 1e12);
            check("stream_probe", "seconds", seconds, 10);
            check("stream_probe", "samples", samples, 10000);
            const WithoutGil released;
            return stream_probe(which, std::size_t(bytes), seconds, samples);
        },
        py::arg("stream"), py::arg("bytes"), py::arg("seconds"), py::arg("samples"));
    m.def(
        "round_trip_probe",
        [](int samples) {
            check("round_trip_probe", "samples", samples, 10000);
            const WithoutGil released;
            return round_trip_probe(samples);
        },
        py::arg("samples"));
}

}  // namespace trainstep
