#include "program/program.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "ops/elementwise.h"
#include "ops/ewma.h"
#include "ops/penalty.h"
#include "program/activation_layer.h"
#include "program/batch_norm_layer.h"
#include "program/dense_layer.h"
#include "program/dropout_layer.h"
#include "program/layer_norm_layer.h"
#include "program/standardize_layer.h"
#include "program/sum_layer.h"
#include "runtime/philox.h"

namespace trainstep {

template <class T>
std::unique_ptr<Layer<T>> make_layer(const LayerSpec& spec) {
    if (spec.kind == "dense") return std::make_unique<DenseLayer<T>>(spec);
    if (spec.kind == "standardize") return std::make_unique<StandardizeLayer<T>>(spec);
    if (spec.kind == "dropout") return std::make_unique<DropoutLayer<T>>(spec);
    if (spec.kind == "activation") return std::make_unique<ActivationLayer<T>>(spec);
    if (spec.kind == "batch_norm") return std::make_unique<BatchNormLayer<T>>(spec);
    if (spec.kind == "layer_norm") return std::make_unique<LayerNormLayer<T>>(spec);
    if (spec.kind == "sum") return std::make_unique<SumLayer<T>>(spec);
    throw std::invalid_argument("Sequential: no layer is named '" + spec.kind + "'");
}

namespace {
// One thread's speed in small and middle-sized products, for the cost model (bench/bench_dense.py).
template <class T>
constexpr double kFlopsPerNs = 320.0 / sizeof(T);

constexpr std::size_t kPredictRows = 512;  // a block of predict: enough for the products, few enough for the cache
constexpr std::size_t kBlockBytes =
    64 << 10;                            // of x, in a block of rows that stays in L2 (with 16 KiB relu of 1024 x 1024 is slower)
constexpr double kSharedProducts = 1e6;  // ns of such a block on one thread, from which on its products are shared (reasoned)

template <class T>
Rows<T> from(Rows<T> rows, std::size_t first) {
    return {rows.at + first * rows.stride, rows.stride};
}
template <class T>
Rows<const T> constant(Rows<T> rows) {
    return {rows.at, rows.stride};
}
// Threads' shares of columns are cut at whole cache lines.
template <class T>
constexpr std::size_t kLine = 64 / sizeof(T);

bool is_identity(const Activation& f) { return f.kind == ActivationKind::identity; }
}  // namespace

template <class T>
Program<T>::Program(const std::vector<LayerSpec>& specs, std::uint64_t seed) {
    plan(specs, "", kX, specs.empty() ? 0 : specs.front().in);
    plan_inference();
    std::size_t total = 0, buffer_total = 0;
    for (const auto& layer : layers_) {
        for (const ArraySpec& p : layer->parameters()) total += padded<T>(p.size());
        for (const ArraySpec& b : layer->buffers()) buffer_total += padded<T>(b.size());
    }
    weight_arena_ = Arena(total * sizeof(T));
    buffer_arena_ = Arena(buffer_total * sizeof(T));
    std::size_t at = 0, buffer_at = 0;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        first_parameter_.push_back(parameters_.size());
        const std::string prefix = nodes_[i].name + ".";
        std::vector<T*> weights, buffers;
        for (const ArraySpec& p : layers_[i]->parameters()) {
            weights.push_back(weight_arena_.template as<T>() + at);
            parameters_.push_back({prefix + p.name, p.shape, p.size(), weights.back(), nullptr, false});
            at += padded<T>(p.size());
        }
        for (const ArraySpec& b : layers_[i]->buffers()) {
            buffers.push_back(buffer_arena_.template as<T>() + buffer_at);
            buffers_.push_back({prefix + b.name, b.shape, buffers.back()});
            buffer_at += padded<T>(b.size());
        }
        layers_[i]->place(weights, buffers);
        if (layers_[i]->draws()) {
            const PhiloxCounter words = PhiloxStream{seed, Purpose::dropout, 0}.at(i);
            drawing_.push_back({layers_[i].get(), std::uint64_t{words[1]} << 32 | words[0]});
        }
        ns_per_row_ += ns_per_row(i);
    }
    first_parameter_.push_back(parameters_.size());
    outputs_.resize(layers_.size());
    gradients_.resize(layers_.size());
    z_.resize(layers_.size());
    dx_.resize(layers_.size());
    freeze(std::vector<bool>(parameters_.size()));
}

// Adds the layers of a list, one after the other: the first takes `input`, of `width` features. Returns the last.
template <class T>
std::size_t Program<T>::plan(const std::vector<LayerSpec>& specs, const std::string& prefix, std::size_t input, std::size_t width) {
    if (specs.empty())
        throw std::invalid_argument(
            "Sequential: " + (prefix.empty() ? "a network" : "block " + prefix.substr(0, prefix.size() - 1)) +
            " needs at least one layer");
    const auto text = [](std::size_t n) { return std::to_string(n); };
    for (std::size_t i = 0; i < specs.size(); ++i) {
        const LayerSpec& spec = specs[i];
        const std::string name = prefix + text(i);
        if (spec.in == 0 || spec.out == 0)
            throw std::invalid_argument("Sequential: layer " + name + " is " + text(spec.in) + " -> " + text(spec.out) +
                                        ", both widths must be at least 1");
        if (spec.in != width)
            throw std::invalid_argument("Sequential: layer " + name + " takes " + text(spec.in) + " features, " +
                                        (i > 0 ? "layer " + prefix + text(i - 1) : "what comes before it") + " gives " +
                                        text(width));
        width = spec.out;
        if (spec.kind == "residual") {
            const std::size_t body = plan(spec.body, name + ".", input, spec.in);
            std::size_t past = input, past_width = spec.in;
            if (!spec.shortcut.empty()) {
                const LayerSpec& shortcut = spec.shortcut.front();
                if (shortcut.in != spec.in)
                    throw std::invalid_argument("Sequential: layer " + name + ".shortcut takes " + text(shortcut.in) +
                                                " features, what comes before it gives " + text(spec.in));
                add_node(shortcut, name + ".shortcut", input);
                past = layers_.size() - 1, past_width = shortcut.out;
            }
            if (layers_[body]->out != past_width || past_width != spec.out)
                throw std::invalid_argument("Sequential: layer " + name + " adds " + text(layers_[body]->out) +
                                            " features of its layers and " + text(past_width) + " of its shortcut");
            LayerSpec sum;
            sum.kind = "sum", sum.in = sum.out = spec.out;
            add_node(sum, name, body, past);
        } else if (i > 0 && spec.kind == "activation" && specs[i - 1].kind == "dense" && is_identity(specs[i - 1].activation)) {
            layers_.back()->activation = spec.activation;  // a dense layer takes it along, on its way to memory
        } else {
            add_node(spec, name, input);
        }
        input = layers_.size() - 1;
    }
    return input;
}

template <class T>
void Program<T>::add_node(const LayerSpec& spec, const std::string& name, std::size_t input, std::size_t past) {
    for (std::size_t source : {input, past})
        if (source != kNone) (source == kX ? x_readers_ : nodes_[source].readers).push_back(layers_.size());
    layers_.push_back(make_layer<T>(spec));
    nodes_.push_back({name, input, past});
}

// In inference a layer that only trains is not there, and one that another takes along neither: what it gives is what came to it.
template <class T>
std::size_t Program<T>::source_in_inference(std::size_t layer) const {
    while (layer != kX && layer != kNone && (only_passes(layer) || nodes_[layer].is_folded)) layer = nodes_[layer].input;
    return layer;
}

// Which layer takes which along, and which of few arrays each output goes to: one that nobody reads any more.
template <class T>
void Program<T>::plan_inference() {
    const std::size_t n = layers_.size();
    for (std::size_t i = 0; i < n; ++i)
        if (layers_[i]->folds() && nodes_[i].readers.size() == 1 && layers_[i + 1]->is_map_of_columns() && nodes_[i + 1].input == i)
            nodes_[i].folded = i + 1, nodes_[i + 1].is_folded = true;
    std::vector<std::size_t> last_reader(n, 0);
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t source : {nodes_[i].input, nodes_[i].past})
            if (const std::size_t s = source_in_inference(source); s != kX && s != kNone) last_reader[s] = i;
    std::vector<std::size_t> owner;  // of each place
    for (std::size_t i = 0; i < n; ++i) {
        if (only_passes(i) || nodes_[i].is_folded) continue;
        std::size_t p = 0;
        while (p < owner.size() && last_reader[owner[p]] >= i) ++p;
        if (p == owner.size()) owner.push_back(i);
        owner[p] = i, nodes_[i].place = p;
    }
    places_ = owner.size();
}

// By begin and backward_from: the threads of a team that backward_inputs is shared by would come each at another time.
template <class T>
void Program<T>::begin_backward() {
    for (const auto& layer : layers_) layer->begin_backward();
}

template <class T>
void Program<T>::begin_inference() {
    for (const auto& layer : layers_) layer->begin_inference();
    for (std::size_t i = 0; i < layers_.size(); ++i)
        if (nodes_[i].folded != kNone) layers_[i]->fold(*layers_[nodes_[i].folded]);
}

template <class T>
bool Program<T>::shares_gradient(std::size_t layer) const {
    const std::vector<std::size_t>& r = nodes_[layer].readers;
    return r.size() == 1 && layers_[r[0]]->passes_gradient() && is_identity(layers_[layer]->activation) &&
           stride(layer) == layers_[layer]->out;
}

template <class T>
void Program<T>::freeze(const std::vector<bool>& frozen) {
    first_trained_ = layers_.size();
    for (std::size_t layer = layers_.size(); layer-- > 0;)
        for (std::size_t i = first_parameter(layer); i < first_parameter(layer + 1); ++i) {
            Parameter<T>& p = parameters_[i];
            p.frozen = frozen[i];
            if (!p.frozen)
                first_trained_ = layer;
            else if (p.gradient)
                std::fill_n(p.gradient, p.size, T(0));
        }
}

template <class T>
void Program<T>::set_masks(const std::vector<const bool*>& masks) {
    last_writer = nullptr;
    const bool any = std::any_of(masks.begin(), masks.end(), [](const bool* m) { return m != nullptr; });
    masks_ = Arena(any ? weight_arena_.bytes() : 0);
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        Parameter<T>& p = parameters_[i];
        p.mask = masks[i] ? masks_.template as<T>() + (p.weight - weight_arena_.template as<T>()) : nullptr;
        if (!p.mask) continue;
        std::copy_n(masks[i], p.size, p.mask);
        keep<T>({p.weight, p.size}, {p.mask, p.size}, 1, p.size);
    }
}

template <class T>
double Program<T>::ns_per_row(std::size_t layer) const {
    return 3 * layers_[layer]->flops() / kFlopsPerNs<T>;  // forward, and twice as much backward
}

template <class T>
void Program<T>::keep_gradients() {
    if (keeps_gradients()) return;
    gradient_arena_ = Arena(weight_arena_.bytes());
    for (Parameter<T>& p : parameters_) p.gradient = gradient_arena_.template as<T>() + (p.weight - weight_arena_.template as<T>());
    gradients_begin_ = gradient_arena_.as<char>();
}

// Elements from one row of a layer's output to the next. Rows of a multiple of 256 bytes would fall on few sets of the caches: of a
// block of columns only a part would stay in L1. (Two lines more, so that lines that are fetched in pairs belong to one thread.)
template <class T>
std::size_t Program<T>::stride(std::size_t layer) const {
    constexpr std::size_t few_sets = 256 / sizeof(T), gap = kPair / sizeof(T);
    const std::size_t width = layers_[layer]->out;
    const std::vector<std::size_t>& r = nodes_[layer].readers;
    const bool may_lie_apart = r.size() == 1 && layers_[layer]->has_units() && layers_[r[0]]->has_units();
    return may_lie_apart && width % few_sets == 0 ? width + gap : width;
}

template <class T>
void Program<T>::reserve(std::size_t batch) {
    if (batch <= reserved_) return;
    std::size_t total = padded<T>(batch * in());
    // Whether a layer's dx is added to what others say of the same gradient: all but the first in their order, which comes last.
    const auto keeps_dx = [this](std::size_t i) {
        const std::vector<std::size_t>& r = readers(nodes_[i].input);
        return r.front() != i && !layers_[i]->passes_gradient();
    };
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        const std::size_t arrays = 1 + !shares_gradient(i) + layers_[i]->keeps_z();
        total += arrays * padded<T>(batch * stride(i)) + (keeps_dx(i) ? padded<T>(batch * layers_[i]->in) : 0);
    }
    total += chains() * (chain_size(batch) + 3 * kApart<T>);
    reserved_ = batch_ = 0;  // what the last forward kept goes with the old workspace
    workspace_ = Arena(total * sizeof(T));
    T* at = workspace_.template as<T>();
    const auto take = [&at](std::size_t n) {
        T* here = at;
        at += padded<T>(n);
        return here;
    };
    input_ = take(batch * in());
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        const std::size_t gaps = i == 0 ? chains() * kApart<T> : 0, size = batch * stride(i) + gaps;
        outputs_[i] = {take(size), stride(i)};
        if (!shares_gradient(i)) gradients_[i] = {take(size), stride(i)};
        z_[i] = layers_[i]->keeps_z() ? take(size) : nullptr;
        dx_[i] = keeps_dx(i) ? take(batch * layers_[i]->in) : nullptr;
        layers_[i]->reserve(batch);
    }
    for (std::size_t i = layers_.size(); i-- > 0;)
        if (shares_gradient(i)) gradients_[i] = gradients_[nodes_[i].readers[0]];
    own_gradients_ = gradients_;
    chains_ = at;
    reserved_ = batch;
}

template <class T>
bool Program<T>::owns(const void* first, const void* last) const {
    const auto meets = [=](const char* begin, std::size_t bytes) { return begin && first < begin + bytes && last > begin; };
    return meets(weight_arena_.as<char>(), weight_arena_.bytes()) || meets(gradients_begin_, weight_arena_.bytes()) ||
           meets(buffer_arena_.as<char>(), buffer_arena_.bytes());
}

template <class T>
void Program<T>::begin(const T* x, std::size_t batch, bool training) {
    reserve(batch);
    x_ = x, batch_ = batch, training_ = training, sides_ = nullptr;
    if (!training) return begin_inference();
    begin_backward();
    for (const Drawing& d : drawing_) d.layer->draw(d.seed, passes_);
    ++passes_;
}

template <class T>
void Program<T>::use_precision(std::optional<MatmulPrecision> of_caller) {
    if constexpr (sizeof(T) == 4) {
        const MatmulPrecision used = of_caller ? *of_caller : precision().value_or(matmul_precision());
        for (const auto& layer : layers_) layer->precision = used;
        use_pieces(false);
    }
}

template <class T>
void Program<T>::use_pieces(bool on) {
    for (const auto& layer : layers_)
        if (WeightPieces* const pieces = layer->pieces()) pieces->use(on, layer->precision);
}

template <class T>
void Program<T>::take_back() {
    for (const auto& layer : layers_) layer->take_back();
}

template <class T>
std::string Program<T>::first_not_finite(const T* x, std::size_t batch) {
    take_back();
    --passes_;
    begin(x, batch, true);
    forward({0, batch});
    take_back();
    end();
    for (std::size_t i = 0; i < layers_.size(); ++i)
        for (std::size_t r = 0; r < batch; ++r) {
            const T* const y = outputs_[i].at + r * outputs_[i].stride;
            if (std::any_of(y, y + layers_[i]->out, [](T v) { return !std::isfinite(v); })) return nodes_[i].name;
        }
    return "loss";
}

template <class T>
void Program<T>::save(Arena& weights, Arena& buffers) const {
    copy_arena(weights, weight_arena_);
    copy_arena(buffers, buffer_arena_);
}

template <class T>
void Program<T>::load(const Arena& weights, const Arena& buffers) {
    if (weights.bytes() != weight_arena_.bytes() || buffers.bytes() != buffer_arena_.bytes())
        throw std::logic_error(
            "Program: there is no copy of the parameters and buffers");  // views are over these arenas: they stay
    last_writer = nullptr;
    copy_arena(weight_arena_, weights);
    copy_arena(buffer_arena_, buffers);
}

template <class T>
void Program<T>::approach(Arena& weights, Arena& buffers, double rate) const {
    trainstep::approach(weights.template as<T>(), weight_arena_.template as<T>(), weight_arena_.bytes() / sizeof(T), rate);
    trainstep::approach(buffers.template as<T>(), buffer_arena_.template as<T>(), buffer_arena_.bytes() / sizeof(T), rate);
}

// Rows go through the layers `block` at a time, from one layer that sees the whole batch to the next; done(rows, first, end): these
// have been through the layers [first, end).
template <class T>
template <class F>
void Program<T>::forward_in_blocks(Range rows, std::size_t block, Team team, F done) {
    const auto meets_at = [this](std::size_t i) { return training_ && layers_[i]->sees_batch(); };
    for (std::size_t first = 0, end = 0; first < layers_.size(); first = end) {
        if (meets_at(first)) {
            team.barrier();
            layers_[first]->forward_batch(input_of(first), batch_, share_of(layers_[first]->in, kLine<T>, team));
            team.barrier();
        }
        do ++end;
        while (end < layers_.size() && !meets_at(end));
        for (std::size_t r = rows.begin; r < rows.end; r += block) {
            const Range some{r, std::min(r + block, rows.end)};
            for (std::size_t i = first; i < end; ++i) forward_layer(i, of_pass(some));
            done(some, first, end);
        }
    }
}

template <class T>
void Program<T>::forward_layer(std::size_t i, const BatchRows& rows) {
    const Node& node = nodes_[i];
    const Rows<const T> x = from(input_of(i), rows.first);
    const Rows<T> y = from(outputs_[i], rows.first);
    if (node.past != kNone)
        layers_[i]->forward_sum(y, x, from(output_of(node.past), rows.first), rows);
    else if (!training_ && node.folded != kNone)
        layers_[i]->forward_folded(from(outputs_[node.folded], rows.first), x, rows);
    else if (sides_ && i + 1 == layers_.size() && layers_[i]->is_activation())
        activation_sides(layers_[i]->activation, y.at, sides_ + rows.first * out(), x.at, rows.count * out());
    else if (training_ || !node.is_folded)
        layers_[i]->forward(y, z_[i] ? z_[i] + rows.first * y.stride : nullptr, x, rows, {0, layers_[i]->out});
}

template <class T>
void Program<T>::forward(Range rows, Team team) {
    forward_in_blocks(rows, std::max<std::size_t>(rows.end - rows.begin, 1), team, [](Range, std::size_t, std::size_t) {});
}

template <class T>
void Program<T>::predict(T* y, const T* x, std::size_t rows) {
    // Of a small net each thread takes blocks through all layers; of a large one every product is shared, and its weights packed
    // once.
    const double ns_per_row = ns_per_row_ / 3;
    const int threads = kPredictRows * ns_per_row < kSharedProducts ? threads_for(double(rows) * ns_per_row) : 1;
    const std::size_t share = (rows + std::size_t(threads) - 1) / std::size_t(threads), block = std::min(share, kPredictRows);
    std::size_t widest = 0;
    for (std::size_t i = 0; i < layers_.size(); ++i) widest = std::max(widest, stride(i));
    const std::size_t size = padded<T>(block * widest), own = places_ * size;
    if (predict_workspace_.bytes() < own * sizeof(T) * std::size_t(threads))
        predict_workspace_ = Arena(own * sizeof(T) * std::size_t(threads));
    begin_inference();
    run_team(threads, [&](Team team) {
        T* const places = predict_workspace_.template as<T>() + own * std::size_t(team.part);
        const Range mine = share_of(rows, 1, team);
        for (std::size_t r = mine.begin; r < mine.end; r += block) {
            const BatchRows part{r, std::min(block, mine.end - r), rows, false};
            const auto output = [&](std::size_t i) { return Rows<T>{places + nodes_[i].place * size, stride(i)}; };
            const auto input = [&](std::size_t source) {
                const std::size_t i = source_in_inference(source);
                return i == kX ? Rows<const T>{x + r * in(), in()} : constant(output(i));
            };
            for (std::size_t i = 0; i < layers_.size(); ++i) {
                const Node& node = nodes_[i];
                if (only_passes(i) || node.is_folded) continue;
                const bool is_last = i + 1 == layers_.size() || node.folded + 1 == layers_.size();
                const Rows<T> to = is_last ? Rows<T>{y + r * out(), out()} : output(i);
                if (node.past != kNone)
                    layers_[i]->forward_sum(to, input(node.input), input(node.past), part);
                else if (node.folded != kNone)
                    layers_[i]->forward_folded(to, input(node.input), part);
                else
                    layers_[i]->forward(to, nullptr, input(node.input), part, {0, layers_[i]->out});
            }
        }
    });
}

template <class T>
void Program<T>::backward_inputs(T* dx, Range rows, Team team) {
    if (rows.begin < rows.end)
        backward_output(from(gradients_.back(), rows.begin).at, from(source_of(layers_.size() - 1), rows.begin).at,
                        rows.end - rows.begin);
    backward_layers(dx, rows, team);
}

// x, and what backward takes from the last output, are copied while they are in the cache: the caller may write to his.
template <class T>
void Program<T>::forward_to(T* y, bool watched) {
    const bool keeps_x =
        x_ != input_ && std::any_of(x_readers_.begin(), x_readers_.end(), [this](std::size_t i) { return layers_[i]->keeps_x(); });
    const Rows<T> own = outputs_.back();
    const Activation& f = layers_.back()->activation;
    const bool keeps_y = watched || (!is_identity(f) && !layers_.back()->keeps_z());
    sides_ = keeps_y && !watched && info(f.kind).two_sided ? reinterpret_cast<std::uint8_t*>(own.at) : nullptr;
    outputs_.back() = {y, out()};
    // A product packs its weight once for all rows, and is shared in its own way.
    const bool has_products = std::any_of(parameters_.begin(), parameters_.end(), [](const auto& p) { return p.shape.size() > 1; });
    const std::size_t block = has_products ? batch_ : std::clamp<std::size_t>(kBlockBytes / (in() * sizeof(T)), 1, batch_);
    run_team(has_products ? 1 : threads_for(double(batch_) * ns_per_row_ / 3), [&](Team team) {
        forward_in_blocks(share_of(batch_, 1, team), block, team, [&](Range rows, std::size_t first, std::size_t end) {
            const std::size_t n = rows.end - rows.begin, at = rows.begin * out();
            if (first == 0 && keeps_x) copy(input_ + rows.begin * in(), x_ + rows.begin * in(), n * in());
            if (end < layers_.size() || !keeps_y) return;
            if (!sides_)
                copy(own.at + at, y + at, n * out());
            else if (!layers_.back()->is_activation())
                activation_sides<T>(f, y + at, sides_ + at, nullptr, n * out());
        });
    });
    outputs_.back() = own;
    if (keeps_x) x_ = input_;
}

// dy, and dx where the first layer passes its gradient on, are for once the places of gradients, so that nothing is copied.
template <class T>
void Program<T>::backward_from(const T* dy, T* dx, bool watched) {
    begin_backward();
    const std::size_t last = layers_.size() - 1;
    const bool identity = is_identity(layers_[last]->activation);
    if (dx && !watched && x_readers_.size() == 1 && layers_[0]->passes_gradient() && !shares_gradient(0) &&
        !(last == 0 && identity))
        gradients_[0] = {dx, in()};
    if (identity && !watched) {
        gradients_[last] = {const_cast<T*>(dy), out()};  // which nobody writes to: the derivative there is 1
        for (std::size_t i = last; i-- > 0;)
            if (shares_gradient(i)) gradients_[i] = gradients_[nodes_[i].readers[0]];
    } else if (identity) {
        copy(gradients_[last].at, dy, batch_ * out());
    } else if (sides_) {
        backward_of_sides(layers_[last]->activation, gradients_[last].at, dy, sides_, batch_ * out());
    } else {
        activation_backward(layers_[last]->activation, gradients_[last].at, dy, source_of(last).at, batch_, out());
    }
    backward_layers(dx, {0, batch_}, {0, 1});
}

template <class T>
void Program<T>::backward_layers(T* dx, Range rows, Team team) {
    const BatchRows mine = of_pass(rows);
    for (std::size_t i = layers_.size(); i-- > (dx ? 0 : first_trained_);) {
        if (layers_[i]->sees_batch()) {
            team.barrier();
            layers_[i]->backward_batch(gradient_of(i), input_of(i), batch_, share_of(layers_[i]->in, kLine<T>, team));
            team.barrier();
        }
        if (mine.count == 0) continue;
        for (std::size_t below : {nodes_[i].input, nodes_[i].past}) {
            if (below == kX && dx)
                backward_to(kX, i, {dx, in()}, mine);
            else if (below != kX && below != kNone && (dx || below >= first_trained_))
                backward_to(below, i, gradients_[below], mine);
        }
    }
}

// What layer i says of the gradient of what comes out of `below`, or of x: that is `dx`, the sum of what all its readers say. The
// first of them comes last, and adds the others' in their order.
template <class T>
void Program<T>::backward_to(std::size_t below, std::size_t i, Rows<T> dx, const BatchRows& rows) {
    const std::vector<std::size_t>& all = readers(below);
    const Activation f = below == kX ? Activation{} : layers_[below]->activation;
    const T* const source = from(below == kX ? input_of(i) : source_of(below), rows.first).at;
    const Layer<T>& layer = *layers_[i];
    const auto say = [&](Rows<T> to, const Activation& derivative) {
        layer.backward_input(from(to, rows.first), from(gradient_of(i), rows.first), from(input_of(i), rows.first), source,
                             derivative, rows, {0, layer.in});
    };
    if (all.size() == 1) {
        if (below == kX ? dx.at != gradients_[i].at : !shares_gradient(below)) say(dx, f);
        return;
    }
    if (all.front() != i) {
        if (!layer.passes_gradient()) say({dx_[i], layer.in}, Activation{});
        return;
    }
    say(dx, Activation{});
    const std::size_t n = rows.count * layer.in;
    T* const to = from(dx, rows.first).at;
    for (std::size_t r = 1; r < all.size(); ++r) {
        const T* const other = layers_[all[r]]->passes_gradient() ? gradients_[all[r]].at : dx_[all[r]];
        sum(to, to, other + rows.first * layer.in, n);
    }
    if (!is_identity(f)) activation_backward(f, to, to, source, rows.count, layer.in);
}

template <class T>
void Program<T>::backward_columns(std::size_t layer, const Factors& factors, Range columns) {
    const auto first = parameters_.begin() + std::ptrdiff_t(first_parameter(layer)),
               end = parameters_.begin() + std::ptrdiff_t(first_parameter(layer + 1));
    if (std::any_of(first, end, [](const Parameter<T>& p) { return !p.frozen; }))
        layers_[layer]->backward_columns(factors.dz, factors.x, batch_, columns);
}

template <class T>
void Program<T>::backward_parameter(std::size_t layer, std::size_t i, Rows<T> g, const Factors& factors, bool accumulate,
                                    Range rows, Range columns) {
    layers_[layer]->backward_parameter(i - first_parameter_[layer], g, factors.dz, factors.x, accumulate, batch_, rows, columns);
}

template <class T>
ParameterShare Program<T>::share_of_parameters(std::size_t layer, Team team) const {
    return {share_of(layers_[layer]->in, 1, team), {0, layers_[layer]->out}, share_of(layers_[layer]->out, kLine<T>, team)};
}

template <class T>
void Program<T>::forward_units(Range units) {
    const Rows<T> hidden = units_in(outputs_[0], units);
    layers_[0]->forward(hidden, z_[0] ? units_in(Rows<T>{z_[0], hidden.stride}, units).at : nullptr, input_of(0),
                        of_pass({0, batch_}), units);
    layers_[1]->forward_chains(chains_, chain_size(batch_), constant(hidden), batch_, units);
}

template <class T>
void Program<T>::output_from_chains(T* y) const {
    layers_[1]->forward_from_chains(y, chains_, chain_size(batch_), batch_);
}

template <class T>
void Program<T>::backward_output(T* dy, const T* source, std::size_t rows) const {
    const Layer<T>& last = *layers_.back();
    if (!is_identity(last.activation)) activation_backward(last.activation, dy, dy, source, rows, last.out);
}

template <class T>
void Program<T>::backward_units(const T* dz, Range units) {
    layers_[1]->backward_input(units_in(gradients_[0], units), Rows<const T>{dz, out()}, {}, units_in(source_of(0), units).at,
                               layers_[0]->activation, of_pass({0, batch_}), units);
}

template class Program<float>;
template class Program<double>;

}  // namespace trainstep
