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
    void place(const std::vector<T*>&, const std::vector<T*>&, const std::vector<T*>& buffers) override {
        mean_ = buffers[0], scale_ = buffers[1];
        std::fill(scale_, scale_ + this->in, T(1));
    }

    void forward(T* y, const T* x, std::size_t rows, Range) const override { standardize(y, x, mean_, scale_, rows, this->in); }
    void backward_input(T* dx, const T* dz, const T* x, Activation below, std::size_t rows, Range) const override {
        standardize_backward(dx, dz, scale_, rows, this->in);
        if (below != Activation::identity) activation_backward(below, dx, dx, x, rows * this->in);
    }
    void backward_parameters(const T*, const T*, bool, std::size_t, const ParameterShare&) const override {}
    double flops() const override { return 2.0 * double(this->in); }

  private:
    T *mean_ = nullptr, *scale_ = nullptr;
};

}  // namespace trainstep
