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
    if constexpr (info(which).has_slope()) {
        k.activation_slope[kind] = [](T* y, T* slope, const T* x, std::size_t n, T parameter) {
            for_each_vector<T>(n, [=](std::size_t i, auto part) __attribute__((always_inline)) {
                const Vec<T> v = get<T>(x + i, part), f = Formula::template forward<T>(v, parameter);
                put<T>(y + i, part, f);
                if constexpr (requires { Formula::template slope<T>(v); })
                    put<T>(slope + i, part, Formula::template slope<T>(v));
                else
                    put<T>(slope + i, part, Formula::template backward<T>(set1<T>(T(1)), info(which).of_input ? v : f, parameter));
            });
        };
    }
    if constexpr (info(which).two_sided) {
        k.activation_sides[kind] = [](T* y, std::uint8_t* sides, const T* x, std::size_t n, T parameter) {
            for_each_vector<T>(n, [=](std::size_t i, auto part) __attribute__((always_inline)) {
                Vec<T> v = get<T>((x ? x : y) + i, part);
                if (x) put<T>(y + i, part, v = Formula::template forward<T>(v, parameter));
                put_bytes<T>(sides + i, part, n - i, T(2) * Formula::template side<T>(v));
            });
        };
        k.backward_of_sides[kind] = [](T* dx, const T* dy, const std::uint8_t* sides, std::size_t n, T parameter) {
            for_each_vector<T>(n, [=](std::size_t i, auto part) __attribute__((always_inline)) {
                const Vec<T> side = T(0.5) * get_bytes<T>(sides + i, part, n - i);
                put<T>(dx + i, part, Formula::template backward<T>(get<T>(dy + i, part), side, parameter));
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
