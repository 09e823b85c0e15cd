// config(), threads and random numbers.
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/precisions.h"
#include "kernels/table.h"
#include "ops/dense.h"
#include "runtime/caches.h"
#include "runtime/isa.h"
#include "runtime/parallel.h"
#include "runtime/philox.h"

namespace trainstep {

namespace {

#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__;
#else
constexpr const char* kCompiler = "g++ " __VERSION__;
#endif

py::dict config() {
    py::list compiled, supported;
    py::dict flags, bases;
    for (const IsaLevel& level : isa_levels()) {
        compiled.append(level.name);
        if (level.supported()) supported.append(level.name);
        flags[level.name] = level.flags;
        bases[level.name] = level.base;
    }
    py::dict result;
    result["version"] = TRAINSTEP_VERSION;
    result["isa"] = selected_isa().name;
    result["isa_reason"] = selected_isa_reason();
    result["isa_levels"] = compiled;
    result["isa_supported"] = supported;
    result["isa_base"] = bases;
    result["openmp"] = has_openmp();
    result["num_threads"] = num_threads();
    result["matmul_precision"] = precision_name(matmul_precision());
    result["bf16_products"] = kernels().gemm_pieces_units;
    result["compiler"] = kCompiler;
    result["flags"] = flags;
    return result;
}

template <class F>
void fill(const char* function, py::handle out, F f) {
    const Site site{function, "out"};
    py::array a = as_array(site, out, false);
    dispatch_float(site, a, [&](auto tag) {
        using T = decltype(tag);
        py::array target = in_place<T>(site, a);
        f(mutable_data<T>(target), std::size_t(target.size()));
    });
}

}  // namespace

void bind_runtime(py::module_& m) {
    m.def("config", config);
    m.def("get_num_threads", num_threads);
    m.def(
        "set_num_threads",
        [](int n) {
            if (n < 0 || n > 4096)
                throw py::value_error("set_num_threads: n is " + std::to_string(n) +
                                      ", expected 1 <= n <= 4096, or 0 for the default");
            return set_num_threads(n);
        },
        py::arg("n"));
    m.attr("matmul_precisions") = names_tuple(kMatmulPrecisionNames);
    // The name of a precision or of one of its aliases, or None; refused where arrays of that dtype cannot have it.
    m.def(
        "matmul_precision_named",
        [](const std::string& function, py::handle name, const std::string& dtype) {
            const auto precision = precision_named(function.c_str(), name);
            if (dtype == "float64") precision_of_call<double>(function.c_str(), precision);
            return precision_name(precision);
        },
        py::arg("function"), py::arg("name"), py::arg("dtype") = "float32");
    m.def("get_matmul_precision", [] { return precision_name(matmul_precision()); });
    m.def(
        "set_matmul_precision",
        [](py::handle name) {
            const auto precision = precision_named("set_matmul_precision", name);
            if (!precision) throw py::type_error("set_matmul_precision: precision is None, expected a name");
            set_matmul_precision(*precision);
        },
        py::arg("precision"));
    m.def("threads_worth", threads_worth, py::arg("ns"), py::arg("share"), py::arg("most"));
    m.def("set_caches", [](std::size_t l1, std::size_t l2) { set_caches({l1, l2}); }, py::arg("l1"), py::arg("l2"));
    m.def("caches", [] { return py::make_tuple(caches().l1, caches().l2); });
    m.def("share_always", share_always, py::arg("on"));
    m.def(
        "philox4x32",
        [](std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
            const PhiloxCounter word = philox4x32(counter, key);
            return py::make_tuple(word[0], word[1], word[2], word[3]);
        },
        py::arg("counter"), py::arg("key"));
    m.def(
        "random_uniform",
        [](py::handle out, std::uint64_t seed, std::uint32_t stream, double low, double high) {
            fill("random_uniform", out,
                 [=](auto* x, std::size_t n) { random_uniform(x, n, {seed, Purpose::init, stream}, low, high); });
        },
        py::arg("out"), py::arg("seed"), py::arg("stream"), py::arg("low"), py::arg("high"));
    m.def(
        "random_normal",
        [](py::handle out, std::uint64_t seed, std::uint32_t stream, double std) {
            fill("random_normal", out, [=](auto* x, std::size_t n) { random_normal(x, n, {seed, Purpose::init, stream}, std); });
        },
        py::arg("out"), py::arg("seed"), py::arg("stream"), py::arg("std"));
    m.def(
        "permutation",
        [](std::size_t n, std::uint64_t seed, std::uint32_t epoch) {
            py::array_t<std::int64_t> order{py::ssize_t(n)};
            random_permutation(order.mutable_data(), n, {seed, Purpose::shuffle, epoch});
            return order;
        },
        py::arg("n"), py::arg("seed"), py::arg("epoch"));
}

}  // namespace trainstep
