// Program: a network planned once over flat memory, then run without allocating.
//
// The planner lays every parameter out in one arena, on cache-line bounds, and its gradient at the same offset of a second one,
// which is made when it is asked for. What layers keep besides, their buffers, is in a third: no optimizer sees it. The workspace
// holds each layer's output and its gradient, for the largest batch seen so far.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "program/layer.h"
#include "program/turn_lock.h"
#include "runtime/arena.h"

namespace trainstep {

// A parameter in its arenas.
template <class T>
struct Parameter {
    std::string name;  // "0.weight": the layer's index and the name within it
    std::vector<std::size_t> shape;
    std::size_t size;
    T *weight, *gradient;  // gradient: null before keep_gradients()
    bool frozen = false;   // gets no gradient (what is there stays 0) and no update
    T* mask = nullptr;     // where it is 0 the weight is 0 and stays so; null: nowhere

    std::size_t row() const { return shape.back(); }  // elements of a row
};

// An array of a layer that is not trained, in its arena.
template <class T>
struct Buffer {
    std::string name;  // "0.mean"
    std::vector<std::size_t> shape;
    T* values;
};

template <class T>
class Program {
  public:
    // seed: what the random numbers of training follow from. Throws std::invalid_argument where neighbours do not fit.
    Program(const std::vector<LayerSpec>& specs, std::uint64_t seed);

    std::size_t in() const { return layers_.front()->in; }
    std::size_t out() const { return layers_.back()->out; }
    const std::vector<Parameter<T>>& parameters() const { return parameters_; }
    std::size_t parameter_bytes() const { return weight_arena_.bytes(); }  // with what lies between them
    const std::vector<Buffer<T>>& buffers() const { return buffers_; }

    // How float's products are calculated where a call does not say so; none: matmul_precision() then. What is set counts from the
    // next call on, without the lock.
    std::optional<MatmulPrecision> precision() const { return precision_; }
    void set_precision(std::optional<MatmulPrecision> precision) { precision_ = precision; }
    // Comes before what is calculated in a call: `of_caller`, or the program's own.
    void use_precision(std::optional<MatmulPrecision> of_caller = {});

    // A pass over a batch goes: begin, then forward on any ranges of rows, then (from output_gradient) backward_inputs on the same
    // ranges, then, when all rows are done, backward_parameter. Each is one call for the whole batch, or is shared by a team.
    // x (batch, in) must live until end(), or until the next pass begins.
    // A team calls forward and backward_inputs with all its threads, for layers that see the whole batch let them meet.
    void begin(const T* x, std::size_t batch, bool training);
    void end() { batch_ = 0; }
    void take_back();  // what forward has done to buffers
    void forward(Range rows, Team team = {0, 1});
    void backward_inputs(T* dx, Range rows, Team team = {0, 1});  // dx (batch, in), or null where it is not wanted
    // The same of a whole batch, from and to arrays of the caller's, which are his again afterwards: forward_to after begin;
    // end_backward when the parameters' gradients are there. watched: what passed() shows is kept.
    void forward_to(T* y, bool watched);
    void backward_from(const T* dy, T* dx, bool watched);
    void end_backward() { std::copy(own_gradients_.begin(), own_gradients_.end(), gradients_.begin()); }

    // The gradient of rows and columns of a layer's parameter i from that layer's input and dz, with the first element of them at
    // g.at.
    struct Factors {
        Rows<const T> x, dz;
    };
    // Before it, backward_columns for all columns of vectors that it will be called for.
    void backward_columns(std::size_t layer, const Factors& factors, Range columns);
    void backward_parameter(std::size_t layer, std::size_t i, Rows<T> g, const Factors& factors, bool accumulate, Range rows,
                            Range columns);
    Factors factors(std::size_t layer) const { return {input_of(layer), gradient_of(layer)}; }
    // Where it lies in the arena of gradients.
    Rows<T> gradient_at(std::size_t i, Range rows, Range columns) const {
        const Parameter<T>& p = parameters_[i];
        return {p.gradient + rows.begin * p.row() + columns.begin, p.row()};
    }

    // The arena of gradients. `fused`: the last step left none, for it updated each part of a parameter as its gradient was there.
    void keep_gradients();
    bool keeps_gradients() const { return gradient_arena_.bytes() > 0; }
    bool fused = false;

    // A team's shares of a layer's parameters: along the first dimension of each.
    ParameterShare share_of_parameters(std::size_t layer, Team team) const;

    // Pieces of weights that a trainer keeps from one step to the next (ops/weight_pieces.h); null: the layer has none. use_pieces
    // holds for the pass that has begun, and is only for who knows that nothing has written to a weight since they were packed.
    WeightPieces* pieces(std::size_t layer) { return layers_[layer]->pieces(); }
    bool has_pieces() const {
        return std::any_of(layers_.begin(), layers_.end(), [](const auto& layer) { return layer->pieces() != nullptr; });
    }
    void use_pieces(bool on);
    MatmulPrecision precision_of(std::size_t layer) const { return layers_[layer]->precision; }
    bool needs_dx(std::size_t layer) const { return nodes_[layer].input != kX && nodes_[layer].input >= first_trained_; }
    const void* last_writer = nullptr;  // the trainer that alone has written to parameters since its last step; null: none

    // Which parameters are frozen. Below the lowest layer with another, nothing is calculated backward unless dx is wanted.
    void freeze(const std::vector<bool>& frozen);
    // That layer, or layers() where all are frozen.
    std::size_t first_trained() const { return first_trained_; }

    // masks[i]: for parameter i which elements are kept, or null for all. What is not kept is 0 from now on.
    void set_masks(const std::vector<const bool*>& masks);
    bool has_masks() const { return masks_.bytes() > 0; }

    // A net of one hidden layer and few outputs may also be shared by the hidden units, cut at multiples of unit_chain() (0: it may
    // not), which takes little from the other threads: with forward_units on all units; when all threads have done so, with
    // output_from_chains, backward_output, backward_units and backward_parameter, where each has an output and its gradient of its
    // own. The results are the same.
    std::size_t unit_chain() const { return has_hidden_units() ? layers_[1]->chain() : 0; }
    std::size_t hidden_units() const { return layers_[0]->out; }
    void forward_units(Range units);
    void output_from_chains(T* y) const;  // (batch, out)
    void backward_units(const T* dz, Range units);
    // What these units' parameters of both layers follow from; `dz` is the output's.
    Factors unit_factors(std::size_t layer, const T* dz, Range units) const {
        const Rows<T> own = units_in(layer == 0 ? gradients_[0] : outputs_[0], units);
        return layer == 0 ? Factors{input_of(0), {own.at, own.stride}} : Factors{{own.at, own.stride}, {dz, out()}};
    }

    // From the gradient with respect to rows of the output to the last layer's dz, in place. `source`: what its activation takes
    // the derivative from, y unless the layer keeps more.
    void backward_output(T* dy, const T* source, std::size_t rows) const;

    // (batch, out), in the workspace: the result of forward, and where the gradient with respect to it goes for backward.
    const T* output() const { return outputs_.back().at; }
    T* output_place() { return outputs_.back().at; }
    T* output_gradient() { return gradients_.back().at; }

    // y (rows, out) for any number of rows, in blocks that fit the cache. It has a workspace of its own: a pass that has begun goes
    // on.
    void predict(T* y, const T* x, std::size_t rows);

    // Takes the last pass of training back, on x (batch, in), and says out of which layer came its first number that is not finite:
    // its name, or "loss" where all were finite.
    std::string first_not_finite(const T* x, std::size_t batch);

    // Training passes begun so far: what a layer draws follows from it.
    std::uint32_t passes() const { return passes_; }
    void set_passes(std::uint32_t passes) { passes_ = passes; }

    // Copies of parameters and buffers, and those back.
    void save(Arena& weights, Arena& buffers) const;
    void load(const Arena& weights, const Arena& buffers);
    // Lets such copies come nearer: += rate * (what is there - copy).
    void approach(Arena& weights, Arena& buffers, double rate) const;
    // Where in a copy of its arena a parameter or a buffer lies.
    T* in_copy(const Arena& weights, const Parameter<T>& p) const {
        return weights.template as<T>() + (p.weight - weight_arena_.template as<T>());
    }
    T* in_copy(const Arena& buffers, const Buffer<T>& b) const {
        return buffers.template as<T>() + (b.values - buffer_arena_.template as<T>());
    }

    // Whether memory from first to last holds parameters, gradients or buffers.
    bool owns(const void* first, const void* last) const;

    std::size_t layers() const { return layers_.size(); }
    // A layer as the last pass left it: its name ("0"; within a block "3.0"), what came out of it, and once backward has been, the
    // gradient of what its activation was applied to. (batch(), out)
    struct Passed {
        std::string name;
        Activation activation;
        std::size_t out;
        Rows<const T> output, dz;
    };
    Passed passed(std::size_t layer) const {
        const Layer<T>& l = *layers_[layer];
        return {nodes_[layer].name, l.activation, l.out, {outputs_[layer].at, outputs_[layer].stride}, gradient_of(layer)};
    }
    // The parameters of a layer are [first_parameter(layer), first_parameter(layer + 1)).
    std::size_t first_parameter(std::size_t layer) const { return first_parameter_[layer]; }
    // Rows of the pass that has begun; 0 where there is none.
    std::size_t batch() const { return batch_; }
    // One thread's time for forward and backward of a row, in ns, of all layers or of one.
    double ns_per_row() const { return ns_per_row_; }
    double ns_per_row(std::size_t layer) const;
    // A place in the workspace for an input that must be cast or gathered first: (batch, in).
    T* input_buffer(std::size_t batch) {
        reserve(batch);
        return input_;
    }

    // Held by whoever runs the program; two threads that use one model take turns.
    TurnLock lock;

  private:
    // Where a layer stands: what it takes comes from the layer `input` and, of a sum, `past`; who reads what comes out of it.
    static constexpr std::size_t kX = std::size_t(-1), kNone = std::size_t(-2);  // the network's x; nothing
    struct Node {
        std::string name;
        std::size_t input, past = kNone;
        std::vector<std::size_t> readers{};  // in ascending order
        std::size_t folded = kNone;          // the layer that this one takes along in inference
        bool is_folded = false;
        std::size_t place = 0;  // in inference: which of the arrays that a thread has
    };
    std::size_t plan(const std::vector<LayerSpec>& specs, const std::string& prefix, std::size_t input, std::size_t width);
    void add_node(const LayerSpec& spec, const std::string& name, std::size_t input, std::size_t past = kNone);
    void plan_inference();
    void begin_inference();
    void begin_backward();
    // Who reads what a layer's output or x is.
    const std::vector<std::size_t>& readers(std::size_t layer) const { return layer == kX ? x_readers_ : nodes_[layer].readers; }
    // Whether the gradient of what comes out of a layer is that of its one reader, in the same place.
    bool shares_gradient(std::size_t layer) const;
    bool only_passes(std::size_t layer) const { return layers_[layer]->only_trains() && layer + 1 < layers_.size(); }
    std::size_t source_in_inference(std::size_t layer) const;
    void forward_layer(std::size_t layer, const BatchRows& rows);
    template <class F>
    void forward_in_blocks(Range rows, std::size_t block, Team team, F done);
    void backward_layers(T* dx, Range rows, Team team);
    void backward_to(std::size_t below, std::size_t layer, Rows<T> dx, const BatchRows& rows);

    void reserve(std::size_t batch);
    std::size_t stride(std::size_t layer) const;
    BatchRows of_pass(Range rows) const { return {rows.begin, rows.end - rows.begin, batch_, training_}; }
    bool has_hidden_units() const { return layers_.size() == 2 && layers_[0]->has_units() && layers_[1]->has_units(); }
    // Where columns `units` of a hidden array lie when threads share its units: end to end, and apart from the other threads'. As a
    // whole array, so that its column units.begin is the first of them.
    template <class Element>
    Rows<Element> units_in(Rows<Element> hidden, Range units) const {
        return {hidden.at + units.begin * batch_ + units.begin / unit_chain() * kApart<T> - units.begin, units.end - units.begin};
    }
    std::size_t chains() const { return has_hidden_units() ? layers_[1]->chains() : 0; }
    std::size_t chain_size(std::size_t batch) const { return padded<T>(batch * out()) + kApart<T>; }
    Rows<const T> output_of(std::size_t layer) const {
        return layer == kX ? Rows<const T>{x_, in()} : Rows<const T>{outputs_[layer].at, outputs_[layer].stride};
    }
    Rows<const T> input_of(std::size_t layer) const { return output_of(nodes_[layer].input); }
    Rows<const T> gradient_of(std::size_t layer) const { return {gradients_[layer].at, gradients_[layer].stride}; }

    // What a layer's activation takes its derivative from, laid out as its output.
    Rows<const T> source_of(std::size_t layer) const {
        if (layers_[layer]->keeps_z()) return {z_[layer], outputs_[layer].stride};
        return {outputs_[layer].at, outputs_[layer].stride};
    }

    std::vector<std::unique_ptr<Layer<T>>> layers_;
    std::vector<Parameter<T>> parameters_;
    std::vector<Buffer<T>> buffers_;
    std::vector<std::size_t> first_parameter_;
    std::vector<Node> nodes_;  // of the layers; a dense layer and the activation behind it are one layer, of two descriptions
    std::vector<std::size_t> x_readers_;
    std::size_t places_ = 0;  // arrays that a thread needs in inference
    std::size_t first_trained_ = 0;
    double ns_per_row_ = 0;
    Arena weight_arena_, gradient_arena_, buffer_arena_, workspace_, predict_workspace_;
    Arena masks_;  // laid out as the weights
    std::atomic<std::optional<MatmulPrecision>> precision_{std::nullopt};

    std::atomic<const char*> gradients_begin_{nullptr};  // of gradient_arena_: owns() is asked without the lock

    std::size_t reserved_ = 0;            // rows that the workspace has room for
    T* input_ = nullptr;                  // (rows, in)
    std::vector<Rows<T>> outputs_;        // one per layer: (rows, layer.out)
    std::vector<Rows<T>> gradients_;      // dz of each layer, of the same shape
    std::vector<Rows<T>> own_gradients_;  // the same where none of them is an array of the caller's
    std::uint8_t* sides_ = nullptr;       // what forward_to has kept in place of the last output; else null
    std::vector<T*> dx_;   // of a layer whose input others read too, and which is not the last to add to its gradient
    std::vector<T*> z_;    // what the activation of a layer that keeps it was applied to, laid out alike; else null
    T* chains_ = nullptr;  // (chains(), rows, out), apart from each other

    struct Drawing {
        Layer<T>* layer;
        std::uint64_t seed;
    };
    std::vector<Drawing> drawing_;  // the layers that draw numbers, each with a seed of its own
    std::uint32_t passes_ = 0;      // of training, begun so far: each draws others

    const T* x_ = nullptr;  // of the pass
    std::size_t batch_ = 0;
    bool training_ = false;
};

}  // namespace trainstep
