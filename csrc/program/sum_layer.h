// Sum: y = x + past, the end of a residual block: what its layers gave, and what went past them.
#pragma once

#include "ops/elementwise.h"
#include "program/layer.h"

namespace trainstep {

template <class T>
class SumLayer final : public Layer<T> {
  public:
    explicit SumLayer(const LayerSpec& spec) { this->in = spec.in, this->out = spec.out; }

    std::vector<ArraySpec> parameters() const override { return {}; }
    void place(const std::vector<T*>&, const std::vector<T*>&) override {}

    void forward(Rows<T>, T*, Rows<const T>, const BatchRows&, Range) const override {}
    void forward_sum(Rows<T> y, Rows<const T> x, Rows<const T> past, const BatchRows& rows) const override {
        sum(y.at, x.at, past.at, rows.count * this->in);
    }
    bool passes_gradient() const override { return true; }
    void backward_input(Rows<T> dx, Rows<const T> dz, Rows<const T>, const T* source, const Activation& below,
                        const BatchRows& rows, Range) const override {
        if (below.kind == ActivationKind::identity)
            copy(dx.at, dz.at, rows.count * this->in);
        else
            activation_backward(below, dx.at, dz.at, source, rows.count, this->in);
    }
    void backward_parameter(std::size_t, Rows<T>, Rows<const T>, Rows<const T>, bool, std::size_t, Range, Range) const override {}
    bool keeps_x() const override { return false; }
    double flops() const override { return 4.0 * double(this->in); }  // bound by memory
};

}  // namespace trainstep
