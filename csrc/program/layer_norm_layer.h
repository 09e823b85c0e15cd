// LayerNorm: y = (x - mean) / sqrt(variance + eps) * gamma + beta, mean and variance of each row by itself. Training keeps
// x^ = (x - mean) / sqrt(variance + eps), from which the way back takes less than from x.
#pragma once

#include "ops/elementwise.h"
#include "ops/normalize.h"
#include "program/layer.h"
#include "runtime/arena.h"

namespace trainstep {

template <class T>
class LayerNormLayer final : public Layer<T> {
  public:
    explicit LayerNormLayer(const LayerSpec& spec) : eps_(spec.eps), affine_(spec.affine) {
        this->in = spec.in, this->out = spec.out;
        if (affine_) gradients_ = Arena(2 * padded<T>(this->in) * sizeof(T));
    }

    std::vector<ArraySpec> parameters() const override {
        return affine_ ? std::vector<ArraySpec>{{"gamma", {this->in}}, {"beta", {this->in}}} : std::vector<ArraySpec>{};
    }
    void place(const std::vector<T*>& weights, const std::vector<T*>&) override {
        if (affine_) gamma_ = weights[0], beta_ = weights[1];
    }
    void reserve(std::size_t batch) override {
        kept_ = Arena((padded<T>(batch) + batch * this->in) * sizeof(T));
        inv_std_ = kept_.template as<T>(), normalized_ = inv_std_ + padded<T>(batch);
        sums_ = Arena(affine_ ? layer_norm_sums(batch, this->in) * sizeof(double) : 0);
    }

    void forward(Rows<T> y, T*, Rows<const T> x, const BatchRows& rows, Range) const override {
        T *const inv_std = rows.training ? inv_std_ + rows.first : nullptr, *const normalized = rows.training ? at(rows) : nullptr;
        layer_norm<T>(y.at, nullptr, inv_std, normalized, x.at, gamma_, beta_, rows.count, this->in, eps_);
    }
    void begin_backward() override { summed_ = false; }
    // Where the call is for all rows, the gradients of gamma and beta come with dx.
    void backward_input(Rows<T> dx, Rows<const T> dz, Rows<const T>, const T* source, const Activation& below,
                        const BatchRows& rows, Range) const override {
        const bool whole = affine_ && rows.count == rows.batch;
        if (whole) summed_ = true;  // by one thread, for the others have no rows
        const LayerNormBackward<T> a = call(dx.at, dz.at, at(rows), inv_std_ + rows.first, rows.count);
        whole ? layer_norm_backward(a, sums_.template as<double>()) : layer_norm_backward_input(a);
        if (below.kind != ActivationKind::identity) activation_backward(below, dx.at, dx.at, source, rows.count, this->in);
    }
    void backward_columns(Rows<const T> dz, Rows<const T>, std::size_t batch, Range columns) override {
        if (!summed_) layer_norm_backward_parameters(call(nullptr, dz.at, normalized_, nullptr, batch), columns);
    }
    void backward_parameter(std::size_t parameter, Rows<T> g, Rows<const T>, Rows<const T>, bool accumulate, std::size_t, Range,
                            Range columns) const override {
        this->deliver(g.at, gradient(parameter), columns, accumulate);
    }
    bool keeps_x() const override { return false; }
    double flops() const override { return 20.0 * double(this->in); }  // 0.25 ns an element forward, 0.5 backward

  private:
    LayerNormBackward<T> call(T* dx, const T* dz, const T* normalized, const T* inv_std, std::size_t rows) const {
        T *const dgamma = affine_ ? gradient(0) : nullptr, *const dbeta = affine_ ? gradient(1) : nullptr;
        return {dx, dgamma, dbeta, dz, normalized, nullptr, inv_std, gamma_, rows, this->in};
    }
    T* at(const BatchRows& rows) const { return normalized_ + rows.first * this->in; }
    T* gradient(std::size_t parameter) const { return gradients_.template as<T>() + parameter * padded<T>(this->in); }

    double eps_;
    bool affine_;
    T *gamma_ = nullptr, *beta_ = nullptr;
    Arena gradients_;              // of gamma and beta
    Arena kept_;                   // of a pass of training
    Arena sums_;                   // of backward
    mutable bool summed_ = false;  // whether the gradients of gamma and beta came with dx
    T *inv_std_ = nullptr, *normalized_ = nullptr;
};

}  // namespace trainstep
