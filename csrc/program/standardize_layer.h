// Standardize: y = (x - mean) * scale, mean and scale (in) set from data and not trained.
#pragma once

#include <algorithm>

#include "ops/elementwise.h"
#include "program/layer.h"

namespace trainstep {

template <class T>
class StandardizeLayer final : public Layer<T> {
  public:
    explicit StandardizeLayer(const LayerSpec& spec) { this->in = spec.in, this->out = spec.out; }

    std::vector<ArraySpec> parameters() const override { return {}; }
    std::vector<ArraySpec> buffers() const override { return {{"mean", {this->in}}, {"scale", {this->in}}}; }

    // The identity, until the statistics of data are put in.
    void place(const std::vector<T*>&, const std::vector<T*>& buffers) override {
        mean_ = buffers[0], scale_ = buffers[1];
        std::fill(scale_, scale_ + this->in, T(1));
    }

    void forward(Rows<T> y, T*, Rows<const T> x, const BatchRows& rows, Range) const override {
        standardize(y.at, x.at, mean_, scale_, rows.count, this->in);
    }
    void backward_input(Rows<T> dx, Rows<const T> dz, Rows<const T>, const T* source, const Activation& below,
                        const BatchRows& rows, Range) const override {
        standardize_backward(dx.at, dz.at, scale_, rows.count, this->in);
        if (below.kind != ActivationKind::identity) activation_backward(below, dx.at, dx.at, source, rows.count, this->in);
    }
    void backward_parameter(std::size_t, Rows<T>, Rows<const T>, Rows<const T>, bool, std::size_t, Range, Range) const override {}
    bool keeps_x() const override { return false; }
    double flops() const override { return 2.0 * double(this->in); }

  private:
    T *mean_ = nullptr, *scale_ = nullptr;
};

}  // namespace trainstep
