// trainstep.optim: norms of many arrays, and clipping in place.
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/optim_values.h"
#include "bindings/tensors.h"
#include "ops/optimizer_step.h"
#include "runtime/isa.h"

namespace trainstep {

namespace {

struct Arrays {
    std::vector<Tensor> tensors;
    std::vector<NormArray> norms;
    StepPlan plan;
};
Arrays float_arrays(const char* me, py::handle object, bool in_place) {
    if (!py::isinstance<py::iterable>(object) || py::isinstance<py::str>(object) || py::isinstance<py::array>(object) ||
        py::hasattr(object, "__dlpack__"))
        type_error({me, "arrays"}, "is a " + type_name(object) + ", expected a list of arrays");
    Arrays all;
    std::vector<std::size_t> sizes;
    for (const py::handle item : py::reinterpret_borrow<py::iterable>(object)) {
        const Site site{me, "arrays", std::ptrdiff_t(all.tensors.size())};
        Tensor t = in_place ? read_tensor(site, item) : read_contiguous(site, item);
        if (t.dtype != Dtype::float32 && t.dtype != Dtype::float64)
            type_error(site, "has dtype " + t.dtype_name() + ", expected float32 or float64");
        if (in_place) check_in_place(site, t);
        all.norms.push_back({t.data, *t.dtype});
        sizes.push_back(t.n);
        all.tensors.push_back(std::move(t));
    }
    all.plan = StepPlan(sizes);
    return all;
}
double norm_of(const Arrays& arrays) {
    std::vector<double> sums;
    return global_norm(arrays.norms, arrays.plan, sums);
}
template <class F>
void for_each_piece_in_place(const Arrays& arrays, F f) {
    constexpr double kNsPerElement = 0.1;
    parallel_for(arrays.plan.pieces(), 1, kNsPerElement * double(arrays.plan.length()) / double(arrays.plan.pieces() + 1),
                 [&](std::size_t begin, std::size_t end) {
                     for (std::size_t i = begin; i < end; ++i) {
                         const StepPlan::Piece& piece = arrays.plan.piece(i);
                         const Tensor& t = arrays.tensors[piece.array];
                         const std::size_t n = piece.elements.end - piece.elements.begin;
                         if (t.dtype == Dtype::float32)
                             f(piece.array, static_cast<float*>(t.data) + piece.elements.begin, n);
                         else
                             f(piece.array, static_cast<double*>(t.data) + piece.elements.begin, n);
                     }
                 });
}
void multiply(const Arrays& arrays, const std::vector<double>& factors) {
    for_each_piece_in_place(arrays, [&]<class T>(std::size_t array, T* x, std::size_t n) {
        if (factors[array] != 1) kernels().of<T>().scale(x, n, T(factors[array]));
    });
}

}  // namespace

void bind_norms(py::module_& m) {
    m.def(
        "global_norm",
        [](py::handle arrays_in) {
            const Arrays arrays = float_arrays("global_norm", arrays_in, false);
            const WithoutGil released;
            return norm_of(arrays);
        },
        py::arg("arrays"));
    m.def(
        "clip_by_global_norm_",
        [](py::handle arrays_in, py::handle max_norm) {
            const double most = number_above_0("clip_by_global_norm_", "max_norm", max_norm);
            const Arrays arrays = float_arrays("clip_by_global_norm_", arrays_in, true);
            const WithoutGil released;
            const double norm = norm_of(arrays);
            multiply(arrays, std::vector<double>(arrays.tensors.size(), clip_factor(most, norm)));
            return norm;
        },
        py::arg("arrays"), py::arg("max_norm"));
    m.def(
        "clip_by_norm_",
        [](py::handle arrays_in, py::handle max_norm) {
            const double most = number_above_0("clip_by_norm_", "max_norm", max_norm);
            const Arrays arrays = float_arrays("clip_by_norm_", arrays_in, true);
            std::vector<double> norms, factors;
            {
                const WithoutGil released;
                for (const Tensor& t : arrays.tensors) {
                    std::vector<double> sums;
                    norms.push_back(global_norm({{t.data, *t.dtype}}, StepPlan({t.n}), sums));
                    factors.push_back(clip_factor(most, norms.back()));
                }
                multiply(arrays, factors);
            }
            return norms;
        },
        py::arg("arrays"), py::arg("max_norm"));
    m.def(
        "clip_by_value_",
        [](py::handle arrays_in, py::handle limit) {
            const double most = number_above_0("clip_by_value_", "limit", limit);
            const Arrays arrays = float_arrays("clip_by_value_", arrays_in, true);
            const WithoutGil released;
            for_each_piece_in_place(arrays,
                                    [&]<class T>(std::size_t, T* x, std::size_t n) { kernels().of<T>().clamp(x, n, T(most)); });
        },
        py::arg("arrays"), py::arg("limit"));
}

}  // namespace trainstep
