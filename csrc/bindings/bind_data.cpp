// What trainstep.data calls. Its Python side makes the arguments: what is checked here guards memory.
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "data/augment.h"
#include "runtime/parallel.h"

namespace trainstep {

namespace {

template <class T>
using Given = py::array_t<T, py::array::c_style | py::array::forcecast>;
using Samples = Given<std::int64_t>;
using Numbers = Given<double>;

void check_samples(const char* function, const Samples& samples) {
    if (samples.ndim() != 1) value_error({function, "samples"}, "has shape " + shape_text(samples) + ", expected (any,)");
    for (py::ssize_t i = 0; i < samples.size(); ++i)
        if (samples.data()[i] < 0 || samples.data()[i] >= kMostSamples)
            value_error({function, "samples"},
                        "holds " + std::to_string(samples.data()[i]) + ", expected 0 to " + std::to_string(kMostSamples - 1));
}

// Numbers and shifts of images: one of each for every row of x.
void check_rows(Site site, const py::array& a, const py::array& x) {
    if (a.ndim() != 1 || x.ndim() == 0 || a.shape(0) != x.shape(0))
        value_error(site, "has shape " + shape_text(a) + ", x has shape " + shape_text(x));
}

ImageShape image_shape(const char* function, const py::array& x) {
    if (x.ndim() != 4) value_error({function, "x"}, "has shape " + shape_text(x) + ", expected (rows, height, width, channels)");
    return {std::size_t(x.shape(1)), std::size_t(x.shape(2)), std::size_t(x.shape(3))};
}

py::array uniform(const Samples& samples, std::uint32_t k, std::uint64_t seed, std::uint32_t epoch, std::uint8_t place) {
    check_samples("sample_uniform", samples);
    py::array_t<double> out({samples.size(), py::ssize_t(k)});
    double* to = out.mutable_data();
    without_gil_if(out.size() > kKeepGil / 16,
                   [&] { sample_uniform(to, samples.data(), std::size_t(samples.size()), k, {seed, epoch, place}); });
    return out;
}

py::array beta(const Samples& samples, double alpha, std::uint64_t seed, std::uint32_t epoch, std::uint8_t place) {
    check_samples("sample_beta", samples);
    py::array_t<double> out(samples.size());
    sample_beta(out.mutable_data(), samples.data(), std::size_t(samples.size()), alpha, {seed, epoch, place});
    return out;
}

void noise(py::handle x_in, const Samples& samples, double std, std::uint64_t seed, std::uint32_t epoch, std::uint8_t place) {
    const char* me = "sample_noise";
    check_samples(me, samples);
    py::array x = as_array({me, "x"}, x_in, false);
    dispatch_float({me, "x"}, x, [&](auto tag) {
        using T = decltype(tag);
        py::array to = in_place<T>({me, "x"}, x);
        check_rows({me, "samples"}, samples, to);
        const auto n = std::size_t(samples.size());
        T* values = mutable_data<T>(to);
        const std::size_t k = n ? std::size_t(to.size()) / n : 0;
        without_gil_if(to.size() > kKeepGil / 4, [&] { sample_noise(values, samples.data(), n, k, std, {seed, epoch, place}); });
    });
}

py::array warp_op(py::handle x_in, const Numbers& angle, const Numbers& scale, double fill) {
    const char* me = "warp";
    const py::array x_any = as_array({me, "x"}, x_in);
    return dispatch_float({me, "x"}, x_any, [&](auto tag) -> py::array {
        using T = decltype(tag);
        const py::array x = contiguous<T>({me, "x"}, x_any);
        const ImageShape image = image_shape(me, x);
        check_rows({me, "angle"}, angle, x), check_rows({me, "scale"}, scale, x);
        py::array out(py::dtype::of<T>(), shape_of(x));
        T* to = mutable_data<T>(out);
        without_gil_if(x.size() > kKeepGil / 4,
                       [&] { warp(to, data<T>(x), std::size_t(x.shape(0)), image, angle.data(), scale.data(), T(fill)); });
        return out;
    });
}

py::array shift_op(const py::array& x_in, const Samples& down, const Samples& right, const py::array& fill_in) {
    const char* me = "shift_images";
    const py::array x = x_in.flags() & py::array::c_style ? x_in : py::array(x_in.attr("copy")("C"));
    ImageShape image = image_shape(me, x);
    if (!fill_in.dtype().equal(x.dtype()) || fill_in.ndim() != 1 || fill_in.shape(0) != x.shape(3) ||
        !(fill_in.flags() & py::array::c_style))
        value_error({me, "fill"}, "is not one pixel of x");
    if (x.dtype().attr("hasobject").cast<bool>()) type_error({me, "x"}, "has dtype " + dtype_text(x) + ", expected numbers");
    check_rows({me, "down"}, down, x), check_rows({me, "right"}, right, x);
    image.channels *= std::size_t(x.itemsize());
    py::array out(x.dtype(), shape_of(x));
    auto* to = static_cast<char*>(out.mutable_data());
    const auto *from = static_cast<const char*>(x.data()), *fill = static_cast<const char*>(fill_in.data());
    without_gil_if(x.nbytes() > kKeepGil,
                   [&] { shift_images(to, from, std::size_t(x.shape(0)), image, down.data(), right.data(), fill); });
    return out;
}

}  // namespace

void bind_data(py::module_& m) {
    m.def("sample_uniform", uniform, py::arg("samples"), py::arg("k"), py::arg("seed"), py::arg("epoch"), py::arg("place"));
    m.def("sample_beta", beta, py::arg("samples"), py::arg("alpha"), py::arg("seed"), py::arg("epoch"), py::arg("place"));
    m.def("sample_noise", noise, py::arg("x"), py::arg("samples"), py::arg("std"), py::arg("seed"), py::arg("epoch"),
          py::arg("place"));
    m.def("warp", warp_op, py::arg("x"), py::arg("angle"), py::arg("scale"), py::arg("fill"));
    m.def("shift_images", shift_op, py::arg("x"), py::arg("down"), py::arg("right"), py::arg("fill"));
    // For a thread that prepares batches: the team is the one's that trains with them.
    m.def("keep_to_one_thread", [] { thread_local const OneThread alone; });
}

}  // namespace trainstep
