// Functions of one element at a time: vmath, activations, standardize.
#include "kernels/fill.h"
#include "kernels/loops.h"
#include "kernels/standardize.h"

namespace trainstep::TRAINSTEP_ISA {

namespace {

template <class T, class Formula, ActivationKind which>
void fill_activation(Kernels<T>& k) {
    constexpr int kind = int(which);
    if constexpr (requires { Formula::template forward_row<T>; }) {
        k.activation[kind] = Formula::template forward_row<T>;
        k.activation_backward[kind] = Formula::template backward_row<T>;
    } else {
        k.activation[kind] = [](T* y, const T* x, std::size_t n, T parameter) {
            map<T>(y, x, n, [=](Vec<T> v) __attribute__((always_inline)) { return Formula::template forward<T>(v, parameter); });
        };
        k.activation_backward[kind] = [](T* dx, const T* dy, const T* source, std::size_t n, T parameter) {
            zip<T>(dx, dy, source, n, [=](Vec<T> d, Vec<T> v) __attribute__((always_inline)) {
                return Formula::template backward<T>(d, v, parameter);
            });
        };
    }
    if constexpr (info(which).of_input) {
        k.activation_slope[kind] = [](T* y, T* slope, const T* x, std::size_t n, T parameter) {
            for_each_vector<T>(n, [=](std::size_t i, auto part) __attribute__((always_inline)) {
                const Vec<T> v = get<T>(x + i, part);
                put<T>(y + i, part, Formula::template forward<T>(v, parameter));
                put<T>(slope + i, part, Formula::template backward<T>(set1<T>(T(1)), v, parameter));
            });
        };
    }
    if constexpr (info(which).two_sided) {
        k.activation_sides[kind] = [](std::uint8_t* sides, const T* y, std::size_t n) {
            for_each_vector<T>(n, [=](std::size_t i, auto part) __attribute__((always_inline)) {
                put_bytes<T>(sides + i, part, n - i, Formula::template side<T>(get<T>(y + i, part)));
            });
        };
        k.backward_of_sides[kind] = [](T* dx, const T* dy, const std::uint8_t* sides, std::size_t n, T parameter) {
            for_each_vector<T>(n, [=](std::size_t i, auto part) __attribute__((always_inline)) {
                put<T>(dx + i, part,
                       Formula::template backward<T>(get<T>(dy + i, part), get_bytes<T>(sides + i, part, n - i), parameter));
            });
        };
    }
}

template <class T>
void fill(Kernels<T>& k) {
#define TRAINSTEP_VMATH(name)                                                                            \
    k.vmath[int(VmathFunction::name)] = [](T* y, const T* x, std::size_t n) {                            \
        map<T>(y, x, n, [](Vec<T> v) __attribute__((always_inline)) { return TRAINSTEP_ISA::name(v); }); \
    };
    TRAINSTEP_VMATH_FUNCTIONS(TRAINSTEP_VMATH)
#undef TRAINSTEP_VMATH
#define TRAINSTEP_ACTIVATION(name, ...) fill_activation<T, activations::name, ActivationKind::name>(k);
    TRAINSTEP_ACTIVATIONS(TRAINSTEP_ACTIVATION)
#undef TRAINSTEP_ACTIVATION
    k.backward_of_slope = [](T* dx, const T* dy, const T* slope, std::size_t n, T) {
        zip<T>(dx, dy, slope, n, [](Vec<T> d, Vec<T> s) __attribute__((always_inline)) { return d * s; });
    };
    k.sum = [](T* y, const T* a, const T* b, std::size_t n) {
        zip<T>(y, a, b, n, [](Vec<T> u, Vec<T> v) __attribute__((always_inline)) { return u + v; });
    };
    k.standardize = [](T* y, const T* x, const T* mean, const T* scale, std::size_t rows, std::size_t columns) {
        TRAINSTEP_ISA::standardize(y, x, mean, scale, rows, columns);
    };
    k.standardize_backward = [](T* dx, const T* dy, const T* scale, std::size_t rows, std::size_t columns) {
        TRAINSTEP_ISA::standardize_backward(dx, dy, scale, rows, columns);
    };
}

}  // namespace

void fill_elementwise(KernelTable& table) {
    fill(table.f32);
    fill(table.f64);
}

}  // namespace trainstep::TRAINSTEP_ISA
