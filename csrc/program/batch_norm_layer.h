// BatchNorm: y = (x - mean) / sqrt(variance + eps) * gamma + beta, mean and variance of each column: of the batch in training, and
// otherwise the running ones, which training moves.
#pragma once

#include <algorithm>

#include "ops/elementwise.h"
#include "ops/normalize.h"
#include "program/layer.h"
#include "runtime/arena.h"

namespace trainstep {

template <class T>
class BatchNormLayer final : public Layer<T> {
  public:
    explicit BatchNormLayer(const LayerSpec& spec) : momentum_(spec.momentum), eps_(spec.eps), affine_(spec.affine) {
        this->in = spec.in, this->out = spec.out;
        columns_ = Arena(kArrays * padded<T>(this->in) * sizeof(T));
    }

    std::vector<ArraySpec> parameters() const override {
        return affine_ ? std::vector<ArraySpec>{{"gamma", {this->in}}, {"beta", {this->in}}} : std::vector<ArraySpec>{};
    }
    std::vector<ArraySpec> buffers() const override { return {{"running_mean", {this->in}}, {"running_var", {this->in}}}; }
    void place(const std::vector<T*>& weights, const std::vector<T*>& buffers) override {
        if (affine_) gamma_ = weights[0], beta_ = weights[1];
        running_mean_ = buffers[0], running_var_ = buffers[1];
        std::fill_n(running_var_, this->in, T(1));
    }

    bool sees_batch() const override { return true; }
    void forward_batch(Rows<const T> x, std::size_t batch, Range columns) override {
        const std::size_t n = columns.end - columns.begin;
        std::copy_n(running_mean_ + columns.begin, n, column(kMeanBefore) + columns.begin);
        std::copy_n(running_var_ + columns.begin, n, column(kVarBefore) + columns.begin);
        batch_statistics(call({}, x, batch, true), columns);
    }
    void take_back() override {
        std::copy_n(column(kMeanBefore), this->in, running_mean_);
        std::copy_n(column(kVarBefore), this->in, running_var_);
    }
    void begin_inference() override { running_statistics(call({}, {}, 0, false), {0, this->in}); }
    void forward(Rows<T> y, T*, Rows<const T> x, const BatchRows& rows, Range) const override {
        batch_norm_rows(call(y, x, rows.count, rows.training), this->in);
    }

    bool is_map_of_columns() const override { return true; }
    void column_map(T* scale, T* shift, const T* b) const override {
        const T *const mean = column(kInference + kMean), *const inv_std = column(kInference + kInvStd);
        for (std::size_t j = 0; j < this->in; ++j) {
            scale[j] = gamma_ ? inv_std[j] * gamma_[j] : inv_std[j];
            const double from_mean = (b ? double(b[j]) : 0) - double(mean[j]);
            shift[j] = T(from_mean * double(scale[j]) + (beta_ ? double(beta_[j]) : 0));
        }
    }

    void backward_batch(Rows<const T> dz, Rows<const T> x, std::size_t batch, Range columns) override {
        batch_norm_backward_parameters(backward_call({}, dz, x, batch), columns);
    }
    void backward_input(Rows<T> dx, Rows<const T> dz, Rows<const T> x, const T* source, const Activation& below,
                        const BatchRows& rows, Range) const override {
        batch_norm_backward_rows(backward_call(dx, dz, x, rows.batch), rows.count, this->in);
        if (below.kind != ActivationKind::identity) activation_backward(below, dx.at, dx.at, source, rows.count, this->in);
    }
    void backward_parameter(std::size_t parameter, Rows<T> g, Rows<const T>, Rows<const T>, bool accumulate, std::size_t, Range,
                            Range columns) const override {
        this->deliver(g.at, column(parameter == 0 ? kDgamma : kDbeta), columns, accumulate);
    }
    double flops() const override { return 16.0 * double(this->in); }  // 0.2 ns an element forward, 0.4 backward

  private:
    // What is known of each column; what inference takes is apart, so that backward finds the batch's.
    enum { kMean, kMeanLow, kInvStd, kInference, kDgamma = 2 * kInference, kDbeta, kMeanBefore, kVarBefore, kArrays };
    T* column(int which) const { return columns_.template as<T>() + std::size_t(which) * padded<T>(this->in); }

    BatchNorm<T> call(Rows<T> y, Rows<const T> x, std::size_t rows, bool training) const {
        const int from = training ? 0 : kInference;
        BatchNorm<T> c{};
        c.y = y.at, c.y_stride = y.stride;
        c.mean = column(from + kMean), c.mean_low = column(from + kMeanLow), c.inv_std = column(from + kInvStd);
        c.running_mean = running_mean_, c.running_var = running_var_;
        c.x = x.at, c.x_stride = x.stride;
        c.gamma = gamma_, c.beta = beta_;
        c.rows = rows, c.momentum = momentum_, c.eps = eps_;
        return c;
    }
    BatchNormBackward<T> backward_call(Rows<T> dx, Rows<const T> dz, Rows<const T> x, std::size_t batch) const {
        BatchNormBackward<T> c{};
        c.dx = dx.at, c.dx_stride = dx.stride;
        c.dgamma = column(kDgamma), c.dbeta = column(kDbeta);
        c.dy = dz.at, c.dy_stride = dz.stride;
        c.x = x.at, c.x_stride = x.stride;
        c.mean = column(kMean), c.mean_low = column(kMeanLow), c.inv_std = column(kInvStd);
        c.gamma = gamma_, c.rows = batch, c.of_batch = true;
        return c;
    }

    double momentum_, eps_;
    bool affine_;
    T *gamma_ = nullptr, *beta_ = nullptr, *running_mean_ = nullptr, *running_var_ = nullptr;
    Arena columns_;
};

}  // namespace trainstep
