// trainstep.nn and trainstep.Trainer: programs and their training.
#include <pybind11/stl.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <tuple>
#include <utility>

#include "bindings/activations.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/metric_values.h"
#include "bindings/optim_values.h"
#include "bindings/precisions.h"
#include "ops/elementwise.h"
#include "ops/losses.h"
#include "program/program.h"
#include "program/trainer.h"

namespace trainstep {

namespace {

std::vector<LayerSpec> layer_specs(const py::list& layers);

LayerSpec layer_spec(const py::dict& layer) {
    LayerSpec spec;
    spec.kind = py::cast<std::string>(layer["kind"]);
    if (spec.kind == "dense") {
        spec.in = py::cast<std::size_t>(layer["in_features"]), spec.out = py::cast<std::size_t>(layer["out_features"]);
        spec.activation = activation_named("Dense", "activation", layer["activation"]);
        spec.bias = py::cast<bool>(layer["bias"]);
        return spec;
    }
    if (spec.kind == "residual") {
        spec.body = layer_specs(py::cast<py::list>(layer["layers"]));
        if (!layer["shortcut"].is_none()) spec.shortcut = {layer_spec(py::cast<py::dict>(layer["shortcut"]))};
        if (!spec.body.empty()) spec.in = spec.body.front().in, spec.out = spec.body.back().out;
        return spec;
    }
    spec.in = spec.out = py::cast<std::size_t>(layer["features"]);
    if (spec.kind == "dropout") spec.rate = py::cast<double>(layer["rate"]);
    if (spec.kind == "activation") spec.activation = activation_named("Activation", "name", layer["name"]);
    if (spec.kind == "batch_norm") spec.momentum = py::cast<double>(layer["momentum"]);
    if (spec.kind == "batch_norm" || spec.kind == "layer_norm")
        spec.eps = py::cast<double>(layer["eps"]), spec.affine = py::cast<bool>(layer["affine"]);
    return spec;
}

std::vector<LayerSpec> layer_specs(const py::list& layers) {
    std::vector<LayerSpec> specs;
    for (const auto& layer : layers) specs.push_back(layer_spec(py::cast<py::dict>(layer)));
    return specs;
}

// Parameters, gradients or buffers as NumPy arrays over the arena, which lives as long as an array does.
template <class T, class Held>
py::list views(const std::shared_ptr<Program<T>>& program, const std::vector<Held>& arrays, T* Held::* place) {
    py::list result;
    for (const Held& a : arrays) {
        const std::vector<py::ssize_t> shape(a.shape.begin(), a.shape.end());
        result.append(py::make_tuple(a.name, py::array(py::dtype::of<T>(), shape, a.*place, py::cast(program))));
    }
    return result;
}

template <class T>
py::list gradients(const std::shared_ptr<Program<T>>& program) {
    {
        const WithoutGil released;
        const std::lock_guard held(program->lock);
        if (program->fused)
            throw std::runtime_error(
                "gradients: the last training step kept none, for it updated each part of a weight as soon as its gradient was "
                "there; "
                "Trainer(..., fuse_update=False) keeps them, and so does asking for them before the first step");
        program->keep_gradients();
    }
    return views(program, program->parameters(), &Parameter<T>::gradient);
}

// Inference on a whole table.
template <class T>
py::array predict(Program<T>& program, py::handle x_in, py::handle out) {
    const Site site{"model", "x"};
    py::object keep;
    const Table t = cast_table<T>(site, x_in, program.in(), keep);
    const py::array x = py::reinterpret_borrow<py::array>(keep);
    py::array y = output<T>({"model", "out"}, out, {py::ssize_t(t.rows), py::ssize_t(program.out())}, {&x});
    T* to = mutable_data<T>(y);
    if (program.owns(to, to + y.size())) value_error({"model", "out"}, "lies in the model's own memory");
    const WithoutGil released;
    const std::lock_guard held(program.lock);
    program.use_precision();
    program.predict(to, static_cast<const T*>(t.data), t.rows);
    return y;
}

// Forward that keeps what backward needs.
template <class T>
py::array forward(Program<T>& program, py::handle x_in, bool watched) {
    py::object x;
    const Table t = table({"forward", "x"}, x_in, program.in(), x);
    py::array y = output<T>({"forward", "out"}, py::none(), {py::ssize_t(t.rows), py::ssize_t(program.out())}, {});
    T* to = mutable_data<T>(y);
    const WithoutGil released;
    const std::lock_guard held(program.lock);
    constexpr InputDtype own = sizeof(T) == 4 ? InputDtype::float32_ : InputDtype::float64_;
    const T* input = static_cast<const T*>(t.data);
    if (t.dtype != own) {
        T* const buffer = program.input_buffer(t.rows);
        gather_rows(buffer, t, nullptr, 0, t.rows);
        input = buffer;
    }
    program.use_precision();
    program.begin(input, t.rows, true);
    program.forward_to(to, watched);
    return y;
}

template <class T>
py::object backward(Program<T>& program, py::handle dy_in, bool need_dx, bool accumulate, bool watched) {
    const Site site{"backward", "dy"};
    const py::array dy = contiguous<T>(site, dy_in);
    std::unique_lock held(program.lock, std::defer_lock);
    {
        const WithoutGil released;
        held.lock();
    }
    const std::size_t batch = program.batch();
    if (batch == 0) throw std::runtime_error("backward: no forward(x, training=True) came before it");
    check_shape(site, dy, {py::ssize_t(batch), py::ssize_t(program.out())});
    py::object dx = py::none();
    T* dx_to = nullptr;
    if (need_dx) {
        py::array a(py::dtype::of<T>(), std::vector<py::ssize_t>{py::ssize_t(batch), py::ssize_t(program.in())});
        dx_to = mutable_data<T>(a);
        dx = a;
    }
    const WithoutGil released;
    program.keep_gradients();
    program.use_precision();
    program.backward_from(data<T>(dy), dx_to, watched);
    program.fused = false;
    for (std::size_t layer = program.layers(); layer-- > 0;) {
        const ParameterShare all = program.share_of_parameters(layer, {0, 1});
        program.backward_columns(layer, program.factors(layer), all.elements);
        for (std::size_t i = program.first_parameter(layer); i < program.first_parameter(layer + 1); ++i) {
            if (program.parameters()[i].frozen) continue;
            const std::vector<std::size_t>& shape = program.parameters()[i].shape;
            const Range rows = all.rows_of(shape), columns = all.columns_of(shape);
            program.backward_parameter(layer, i, program.gradient_at(i, rows, columns), program.factors(layer), accumulate, rows,
                                       columns);
        }
    }
    program.end_backward();
    held.unlock();
    return dx;
}

// Of every layer of the pass that backward has gone through: its name, that of its activation, and copies
// of what came out of it and of the gradient of what its activation was applied to.
template <class T>
py::list passed(Program<T>& program) {
    std::unique_lock held(program.lock, std::defer_lock);
    {
        const WithoutGil released;
        held.lock();
    }
    py::list result;
    for (std::size_t i = 0; i < program.layers(); ++i) {
        const auto layer = program.passed(i);
        const auto copy = [&](Rows<const T> rows) {
            py::array_t<T> a({py::ssize_t(program.batch()), py::ssize_t(layer.out)});
            for (std::size_t r = 0; r < program.batch(); ++r)
                std::copy_n(rows.at + r * rows.stride, layer.out, a.mutable_data() + r * layer.out);
            return a;
        };
        const std::string_view f = kActivationKindNames[int(layer.activation.kind)];
        result.append(py::make_tuple(layer.name, py::str(f.data(), f.size()), copy(layer.output), copy(layer.dz)));
    }
    return result;
}

// Which elements of each parameter are kept: None, for all, or an array of bools of its shape.
template <class T>
void set_masks(Program<T>& program, const py::list& masks_in) {
    std::vector<py::array_t<bool, py::array::c_style>> held;
    std::vector<const bool*> masks;
    const auto& parameters = program.parameters();
    if (masks_in.size() != parameters.size())
        value_error({"set_masks", "masks"},
                    "has " + std::to_string(masks_in.size()) + " entries, expected " + std::to_string(parameters.size()));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        const bool* mask = nullptr;
        if (!masks_in[i].is_none()) {
            held.push_back(py::cast<py::array_t<bool, py::array::c_style>>(masks_in[i]));
            const std::vector<py::ssize_t> shape(parameters[i].shape.begin(), parameters[i].shape.end());
            const py::array& given = held.back();
            if (!std::equal(shape.begin(), shape.end(), given.shape(), given.shape() + given.ndim()))
                value_error({"set_masks", "masks"}, "has shape " + shape_text(given) + " for " + parameters[i].name);
            mask = held.back().data();
        }
        masks.push_back(mask);
    }
    const WithoutGil released;
    const std::lock_guard lock(program.lock);
    program.set_masks(masks);
}

template <class T>
py::list masks(const Program<T>& program) {
    py::list result;
    for (const Parameter<T>& p : program.parameters()) {
        if (!p.mask) {
            result.append(py::none());
            continue;
        }
        py::array_t<bool> mask(std::vector<py::ssize_t>(p.shape.begin(), p.shape.end()));
        std::transform(p.mask, p.mask + p.size, mask.mutable_data(), [](T kept) { return kept != 0; });
        result.append(mask);
    }
    return result;
}

template <class T>
void bind_program(py::module_& m, const char* name) {
    using P = Program<T>;
    py::class_<P, std::shared_ptr<P>>(m, name)
        .def(py::init([](const py::list& layers, std::uint64_t seed) { return std::make_shared<P>(layer_specs(layers), seed); }),
             py::arg("layers"), py::arg("seed"))
        .def_property_readonly("in_features", &P::in)
        .def_property_readonly("out_features", &P::out)
        .def("parameters", [](const std::shared_ptr<P>& self) { return views(self, self->parameters(), &Parameter<T>::weight); })
        .def("gradients", gradients<T>)
        .def(
            "freeze",
            [](P& self, const std::vector<bool>& frozen) {
                const WithoutGil released;
                const std::lock_guard held(self.lock);
                self.freeze(frozen);
            },
            py::arg("frozen"))
        .def_property_readonly("frozen",
                               [](const P& self) {
                                   py::list frozen;
                                   for (const Parameter<T>& p : self.parameters()) frozen.append(p.frozen);
                                   return frozen;
                               })
        .def_property("passes", &P::passes, &P::set_passes)
        .def_property(
            "precision", [](const P& self) { return precision_name(self.precision()); },
            [](P& self, py::handle name) {
                const auto precision = precision_named("Sequential", name);
                precision_of_call<T>("Sequential", precision);
                self.set_precision(precision);
            })
        .def("passed", passed<T>)
        .def("set_masks", set_masks<T>, py::arg("masks"))
        .def("masks", masks<T>)
        .def("buffers", [](const std::shared_ptr<P>& self) { return views(self, self->buffers(), &Buffer<T>::values); })
        .def("predict", predict<T>, py::arg("x"), py::arg("out") = py::none())
        .def("forward", forward<T>, py::arg("x"), py::arg("watched") = false)
        .def("backward", backward<T>, py::arg("dy"), py::arg("need_dx") = true, py::arg("accumulate") = false,
             py::arg("watched") = false);
}

// --- training ----------------------------------------------------------------------------------------------------------------

// A table and its targets, checked and held: what a pass runs over.
template <class T>
struct HeldData {
    Data<T> data;
    py::object x, y, weight;
    py::object metric_y;      // y as metrics take it, where the loss is a caller's
    py::object callers_loss;  // null where the core calculates the loss
};

// Checks that y fits x and the loss: class indices, or values of the network's output shape; of a caller's loss anything with as
// many rows, and that metrics can take.
template <class T>
HeldData<T> hold(Site x_site, py::handle x_in, Site y_site, py::handle y_in, Site weight_site, py::handle weight_in,
                 py::handle callers_loss, const Program<T>& program, std::optional<Loss> loss, std::optional<MetricOf> metrics) {
    HeldData<T> held;
    held.data.x = table(x_site, x_in, program.in(), held.x);
    const std::size_t rows = held.data.x.rows, columns = program.out();
    // A step would read what it is writing.
    const auto check_apart = [&program](Site site, const void* first, std::size_t bytes) {
        if (program.owns(first, static_cast<const char*>(first) + bytes)) value_error(site, "lies in the model's own memory");
    };
    check_apart(x_site, held.data.x.data, std::size_t(py::array(held.x).nbytes()));
    py::array y = as_array(y_site, y_in);
    if (!loss) {
        if (y.ndim() == 0 || std::size_t(y.shape(0)) != rows)
            value_error(y_site, "has shape " + shape_text(y) + ", expected " + std::to_string(rows) + " rows as x");
        if (!weight_in.is_none())
            value_error(weight_site, "is given, expected None: a loss of one's own is called with (y_pred, y_true) alone");
        held.y = y;
        held.callers_loss = py::reinterpret_borrow<py::object>(callers_loss);
        if (metrics) {
            held.data.y = metric_target<T>(y_site, *metrics, y, rows, columns, held.metric_y);
            if (held.data.y.values) check_apart(y_site, held.data.y.values, rows * columns * sizeof(T));
        }
        return held;
    }
    if (!weight_in.is_none()) {
        const py::array weight = weights<T>(weight_site, weight_in, py::ssize_t(rows), true);
        held.data.weight = data<T>(weight);
        check_apart(weight_site, held.data.weight, rows * sizeof(T));
        held.weight = weight;
    }
    const bool classes = facts(*loss).over == LossOver::classes;
    if (classes && y.ndim() == 1) {
        const py::array indices = labels(y_site, y, py::ssize_t(rows), py::ssize_t(columns));
        held.data.y.labels = data<std::int64_t>(indices);
        held.y = indices;
        return held;
    }
    if (y.ndim() == 1 && columns == 1) y = y.reshape({py::ssize_t(-1), py::ssize_t(1)});
    if (y.ndim() != 2 || std::size_t(y.shape(0)) != rows || std::size_t(y.shape(1)) != columns)
        value_error(y_site, "has shape " + shape_text(y) + ", expected (" + std::to_string(rows) + ", " + std::to_string(columns) +
                                ")" + (classes ? " or (" + std::to_string(rows) + ",)" : ""));
    held.data.y.values = static_cast<const T*>(cast_table<T>(y_site, y, columns, held.y).data);
    check_target(y_site, held.data.y.values, rows * columns, facts(*loss).target);
    check_apart(y_site, held.data.y.values, rows * columns * sizeof(T));
    return held;
}

// The loss of a name, or of None, with (class weights or None, label_smoothing, delta).
template <class T>
LossSetting<T> loss_setting(py::handle name, const py::tuple& options, std::size_t classes) {
    LossSetting<T> setting;
    if (name.is_none()) return setting;
    setting.loss = Loss(name_index("Trainer", "loss", kLossNames, name));
    if (!options[0].is_none()) {
        const py::array weight = weights<T>({"Trainer", "weight of loss"}, options[0], py::ssize_t(classes), true);
        setting.class_weight.assign(data<T>(weight), data<T>(weight) + classes);
    }
    setting.options.label_smoothing = T(py::cast<double>(options[1])), setting.options.delta = T(py::cast<double>(options[2]));
    return setting;
}

// A loss in Python: loss(y_pred, y_true) -> (loss, dy) of the rows of a batch, both arrays copies.
template <class T>
struct LossCall {
    const HeldData<T>& held;
    const std::int64_t* order;
    std::size_t columns;

    static double call(void* context, void* dpred, const void* pred, std::size_t first, std::size_t rows) {
        const LossCall& c = *static_cast<const LossCall*>(context);
        const py::gil_scoped_acquire held;
        const auto n = py::ssize_t(rows), from = py::ssize_t(first), columns = py::ssize_t(c.columns);
        py::array y_pred(py::dtype::of<T>(), std::vector<py::ssize_t>{n, columns});
        std::copy_n(static_cast<const T*>(pred), rows * c.columns, mutable_data<T>(y_pred));
        const py::object y_true = c.order ? c.held.y.attr("take")(py::array_t<std::int64_t>(n, c.order + from), 0)
                                          : py::object(c.held.y[py::slice(from, from + n, 1)]).attr("copy")();
        const py::object result = c.held.callers_loss(y_pred, y_true);
        if (!(py::isinstance<py::tuple>(result) || py::isinstance<py::list>(result)) || py::len(result) != 2)
            type_error({"Trainer", "loss"}, "gave a " + type_name(result) + ", expected a pair (loss, dy)");
        const Site site{"Trainer", "dy of loss"};
        const double loss = number("Trainer", "value of loss", result[py::int_(0)]);
        const py::array dy = contiguous<T>(site, py::object(result[py::int_(1)]));
        check_shape(site, dy, {n, columns});
        if (dpred) std::copy_n(trainstep::data<T>(dy), rows * c.columns, static_cast<T*>(dpred));
        return loss;
    }

    void put_into(Pass& pass) {
        if (held.callers_loss) pass.loss = call, pass.loss_context = this;
    }
};

template <class T>
class BoundTrainer {
  public:
    BoundTrainer(std::shared_ptr<Program<T>> program, py::handle loss, const py::tuple& loss_options,
                 std::shared_ptr<Optimizer> optimizer, const std::vector<std::optional<std::size_t>>& places,
                 std::optional<bool> fuse_update, const py::dict& rules, py::handle precision)
        : trainer_(program, loss_setting<T>(loss, loss_options, program->out()), std::move(optimizer), in_core(places),
                   !fuse_update   ? FuseUpdate::where_it_pays
                   : *fuse_update ? FuseUpdate::always
                                  : FuseUpdate::never,
                   regularization(rules)) {
        trainer_.precision = precision_named("Trainer", precision);
    }

    static Regularization regularization(const py::dict& rules) {
        Regularization r;
        r.l1 = py::cast<double>(rules["l1"]), r.l2 = py::cast<double>(rules["l2"]);
        r.penalize_bias = py::cast<bool>(rules["penalize_bias"]);
        r.clip_norm = py::cast<double>(rules["clip_norm"]), r.max_norm = py::cast<double>(rules["max_norm"]);
        return r;
    }

    static std::vector<std::size_t> in_core(const std::vector<std::optional<std::size_t>>& places) {
        std::vector<std::size_t> result;
        for (const std::optional<std::size_t>& place : places) result.push_back(place.value_or(Trainer<T>::kNoPlace));
        return result;
    }

    // callers_loss: where the trainer was made without one.
    double step(py::handle x, py::handle y, py::handle sample_weight, py::handle callers_loss) {
        const HeldData<T> batch = hold<T>({"step", "x"}, x, {"step", "y"}, y, {"step", "sample_weight"}, sample_weight,
                                          callers_loss, trainer_.program(), trainer_.loss(), {});
        Pass pass;
        LossCall<T> loss_call{batch, nullptr, trainer_.program().out()};
        loss_call.put_into(pass);
        const WithoutGil released;
        return trainer_.step(batch.data, pass);
    }

    // The names are for the messages.
    HeldData<T> data(py::handle x, py::handle y, const std::string& function, const std::string& x_name, const std::string& y_name,
                     py::handle sample_weight, const std::string& weight_name, py::handle callers_loss) {
        const char* me = function.c_str();
        return hold<T>({me, x_name.c_str()}, x, {me, y_name.c_str()}, y, {me, weight_name.c_str()}, sample_weight, callers_loss,
                       trainer_.program(), trainer_.loss(), metrics_of_);
    }

    // What is measured besides the loss; checked before (check_metrics).
    void set_metrics(const std::vector<py::tuple>& settings) {
        std::vector<MetricSetting> metrics;
        for (const py::tuple& setting : settings) metrics.push_back(metric_setting(setting));
        metrics_of_.reset();
        if (!metrics.empty()) metrics_of_ = of(metrics[0].metric);
        const bool signs = trainer_.loss() && facts(*trainer_.loss()).target == TargetKind::signs;
        trainer_.unfinished_metrics = {std::move(metrics), trainer_.program().out(), signs ? T(0) : kMiddleOfFractions<T>};
    }
    std::vector<double> metric_sums() const { return trainer_.unfinished_metrics.sums; }
    void set_metric_sums(const std::vector<double>& sums) {
        std::vector<double>& own = trainer_.unfinished_metrics.sums;
        if (sums.size() != own.size())
            value_error({"Trainer", "metric_sums"},
                        "has " + std::to_string(sums.size()) + " numbers, expected " + std::to_string(own.size()));
        own = sums;
    }

    // A running average of what is trained: after every update with a decay, or when average() is called.
    void keep_average(std::optional<double> decay, bool warmup) { trainer_.keep_average({decay, warmup}); }
    void average() {
        const WithoutGil released;
        trainer_.average();
    }
    std::int64_t averages() const { return trainer_.averages; }
    void set_averages(std::int64_t n) { trainer_.averages = n; }
    // Views of it: pairs of names and arrays.
    static py::tuple average_arrays(const py::object& self) {
        auto& trainer = py::cast<BoundTrainer&>(self).trainer_;
        const auto list = [&](const auto& arrays, const Arena& arena) {
            py::list result;
            for (const auto& a : arrays) {
                const std::vector<py::ssize_t> shape(a.shape.begin(), a.shape.end());
                result.append(
                    py::make_tuple(a.name, py::array(py::dtype::of<T>(), shape, trainer.program().in_copy(arena, a), self)));
            }
            return result;
        };
        return py::make_tuple(list(trainer.program().parameters(), trainer.average_weights()),
                              list(trainer.program().buffers(), trainer.average_buffers()));
    }

    // How the passes of a fit go: progress is None or (f, seconds), f(updates, rows, mean loss, accuracy or None) called about that
    // often; on_step is None or f(mean loss of the step), called after every update: False ends the pass there. Both with the GIL.
    // guarded: a loss that is not finite ends the pass before its update.
    void set_fit(std::size_t accumulate, py::object progress, py::object on_step, bool guarded) {
        trainer_.begin_fit();
        fit_ = {accumulate, py::none(), {}, std::move(on_step), guarded};
        if (progress.is_none()) return;
        const auto call = py::cast<py::tuple>(progress);
        fit_.progress = call[0];
        fit_.interval = std::chrono::duration<double>(py::cast<double>(call[1]));
    }

    // The learning rates of the epochs that follow, (updates, groups), NaN where one stays as it is; None: all do.
    void set_rates(std::optional<py::array_t<double, py::array::c_style>> rates) { rates_ = std::move(rates); }

    // An epoch from where the unfinished one stands: True where it has come to its end.
    bool fit_epoch(const HeldData<T>& data, std::size_t batch_size, bool drop_last, py::handle order_in) {
        const std::size_t rows = data.data.x.rows;
        if (drop_last && rows < batch_size)
            value_error({"fit", "batch_size"}, "is " + std::to_string(batch_size) + ", expected at most the " +
                                                   std::to_string(rows) + " rows of x with drop_last");
        Pass pass{batch_size, drop_last};
        pass.accumulate = fit_.accumulate, pass.guarded = fit_.guarded;
        pass.alone = fit_.on_step.is_none();  // progress and signals write to no parameter
        std::optional<py::array_t<std::int64_t>> order;
        if (!order_in.is_none()) pass.order = order.emplace(py::cast<py::array_t<std::int64_t>>(order_in)).data();
        const auto now = Clock::now();
        Breath breath{this, fit_.progress, fit_.interval, fit_.on_step, now, now};
        pass.air = breathe, pass.air_context = &breath;
        const std::size_t end = drop_last ? rows / batch_size * batch_size : rows, done = std::size_t(trainer_.unfinished.rows);
        if (rates_) {
            const std::size_t of_update = batch_size * fit_.accumulate, left = end - std::min(end, done);
            if (std::size_t(rates_->shape(0)) * of_update < left)
                value_error({"fit_epoch", "rates"}, "has shape " + shape_text(*rates_) + ", expected a row for each update");
            pass.rates = rates_->data();
        }
        LossCall<T> loss_call{data, pass.order, trainer_.program().out()};
        loss_call.put_into(pass);
        {
            const WithoutGil released;
            trainer_.fit_epoch(data.data, pass);
        }
        const bool whole = trainer_.diverged().empty() && std::size_t(trainer_.unfinished.rows) >= end;
        if (whole) end_epoch();  // here, so that no signal can come between an epoch's last step and its count
        if (breath.raised) throw py::error_already_set();
        return whole;
    }

    // One batch of an epoch that comes batch by batch. False where on_step has said so.
    bool fit_batch(const HeldData<T>& batch, bool updates) {
        Pass pass{};
        pass.guarded = fit_.guarded;
        LossCall<T> loss_call{batch, nullptr, trainer_.program().out()};
        loss_call.put_into(pass);
        {
            const WithoutGil released;
            trainer_.fit_batch(batch.data, pass, updates);
        }
        if (!updates || fit_.on_step.is_none() || !trainer_.diverged().empty()) return true;
        const Totals& t = trainer_.unfinished;
        return py::cast<bool>(fit_.on_step(mean_of(t.step_loss, t.step_count)));
    }

    void end_epoch() {
        last_ = std::exchange(trainer_.unfinished, {});
        last_metrics_.clear();
        for (std::size_t i = 0; i < trainer_.unfinished_metrics.count(); ++i)
            last_metrics_.push_back(trainer_.unfinished_metrics.value(i));
        trainer_.unfinished_metrics.clear();
        ++epochs;
    }

    // Loss, accuracy and metrics of the last epoch that came to its end.
    py::tuple last_epoch() const {
        const auto [loss, accuracy] = means(last_);
        return py::make_tuple(loss, accuracy, py::tuple(py::cast(last_metrics_)));
    }

    py::tuple unfinished() const {
        const Totals& t = trainer_.unfinished;
        return py::make_tuple(t.loss, t.count, t.correct, t.judged, t.rows, t.batches, t.updates);
    }
    void set_unfinished(const py::tuple& values) {
        Totals t;
        std::tie(t.loss, t.count, t.correct, t.judged, t.rows, t.batches, t.updates) =
            py::cast<std::tuple<double, double, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>>(values);
        trainer_.unfinished = t;
        trainer_.unfinished_metrics.clear();
    }

    py::object diverged() const { return trainer_.diverged().empty() ? py::object(py::none()) : py::str(trainer_.diverged()); }
    void remember() {
        const WithoutGil released;
        trainer_.remember();
    }
    void restore() {
        const WithoutGil released;
        trainer_.restore();
    }
    void forget() { trainer_.forget(); }  // who calls it sees to it that no fit runs

    py::tuple evaluate(const HeldData<T>& data, std::size_t batch_size) {
        const auto now = Clock::now();
        Breath breath{this, py::none(), {}, py::none(), now, now};
        Pass pass{batch_size};
        pass.air = breathe, pass.air_context = &breath;
        LossCall<T> loss_call{data, nullptr, trainer_.program().out()};
        loss_call.put_into(pass);
        Totals totals;
        std::optional<MetricSums<T>> metrics;  // of this call alone: another thread may measure at the same time
        {
            const WithoutGil released;
            if (metrics_of_) {
                const std::scoped_lock held(trainer_.program().lock);  // a fit adds to those
                metrics.emplace(trainer_.unfinished_metrics).clear();
            }
            totals = trainer_.evaluate(data.data, pass, metrics ? *metrics : none_);
        }
        if (breath.raised) throw py::error_already_set();
        const auto [loss, accuracy] = means(totals);
        py::tuple values(metrics ? metrics->count() : 0);
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = metrics->value(i);
        return py::make_tuple(loss, accuracy, values);
    }

    std::optional<MatmulPrecision> precision() const { return trainer_.precision; }

    std::atomic<std::int64_t> epochs{0};  // completed

  private:
    using Clock = std::chrono::steady_clock;

    // Between two batches: Python's signals, at least every kSignals, and the caller's progress.
    struct Breath {
        BoundTrainer* self;
        py::object progress;
        std::chrono::duration<double> interval;
        py::object on_step;
        Clock::time_point last_signals, last_progress;
        bool raised = false;  // a Python exception is set
    };
    // Below what a person notices; a breath waits for the GIL, for 5 ms where another thread runs Python code.
    static constexpr std::chrono::milliseconds kSignals{50};

    static bool breathe(void* context, const Totals& so_far) {
        Breath& b = *static_cast<Breath*>(context);
        const auto now = Clock::now();
        const bool has_hook = !b.on_step.is_none();
        if (now - b.last_signals < kSignals && !has_hook) return true;
        const py::gil_scoped_acquire held;
        bool goes_on = true;
        if (now - b.last_signals >= kSignals) b.last_signals = now, b.raised = PyErr_CheckSignals() != 0;
        try {
            if (!b.raised && has_hook && b.self->trainer_.diverged().empty())
                goes_on = py::cast<bool>(b.on_step(mean_of(so_far.step_loss, so_far.step_count)));
            if (!b.raised && !b.progress.is_none() && now - b.last_progress >= b.interval) {
                b.last_progress = now;
                const auto [loss, accuracy] = b.self->means(so_far);
                b.progress(so_far.updates, so_far.rows, loss, accuracy);
            }
        } catch (py::error_already_set& e) {
            e.restore();
            b.raised = true;
        }
        return goes_on && !b.raised;
    }

    std::pair<double, py::object> means(const Totals& t) const {
        return {mean_of(t.loss, t.count), t.judged > 0 ? py::object(py::float_(double(t.correct) / double(t.judged))) : py::none()};
    }

    struct Fit {
        std::size_t accumulate = 1;
        py::object progress = py::none();
        std::chrono::duration<double> interval{};
        py::object on_step = py::none();
        bool guarded = false;
    };

    Trainer<T> trainer_;
    Fit fit_;
    Totals last_;
    std::vector<double> last_metrics_;
    std::optional<MetricOf> metrics_of_;  // of the first of them
    MetricSums<T> none_{{}, 1, T(0)};
    std::optional<py::array_t<double, py::array::c_style>> rates_;
};

template <class T>
void bind_trainer(py::module_& m, const char* name) {
    using B = BoundTrainer<T>;
    py::class_<B> trainer(m, name);
    py::class_<HeldData<T>>(trainer, "Data").def_property_readonly("rows", [](const HeldData<T>& self) {
        return self.data.x.rows;
    });
    trainer
        .def(py::init<std::shared_ptr<Program<T>>, py::handle, const py::tuple&, std::shared_ptr<Optimizer>,
                      const std::vector<std::optional<std::size_t>>&, std::optional<bool>, const py::dict&, py::handle>(),
             py::arg("program"), py::arg("loss"), py::arg("loss_options"), py::arg("optimizer"), py::arg("places"),
             py::arg("fuse_update"), py::arg("rules"), py::arg("precision") = py::none())
        .def_property_readonly("precision", [](const B& self) { return precision_name(self.precision()); })
        .def("step", &B::step, py::arg("x"), py::arg("y"), py::arg("sample_weight") = py::none(),
             py::arg("callers_loss") = py::none())
        .def("data", &B::data, py::arg("x"), py::arg("y"), py::arg("function"), py::arg("x_name"), py::arg("y_name"),
             py::arg("sample_weight") = py::none(), py::arg("weight_name") = "sample_weight", py::arg("callers_loss") = py::none())
        .def("set_fit", &B::set_fit, py::arg("accumulate") = 1, py::arg("progress") = py::none(), py::arg("on_step") = py::none(),
             py::arg("guarded") = false)
        .def("set_rates", &B::set_rates, py::arg("rates"))
        .def("fit_epoch", &B::fit_epoch, py::arg("data"), py::arg("batch_size"), py::arg("drop_last"), py::arg("order"))
        .def("fit_batch", &B::fit_batch, py::arg("batch"), py::arg("updates"))
        .def("end_epoch", &B::end_epoch)
        .def("set_metrics", &B::set_metrics, py::arg("settings"))
        .def_property("metric_sums", &B::metric_sums, &B::set_metric_sums)
        .def("keep_average", &B::keep_average, py::arg("decay"), py::arg("warmup"))
        .def("average", &B::average)
        .def_property("averages", &B::averages, &B::set_averages)
        .def_static("average_arrays", &B::average_arrays, py::arg("trainer"))
        .def("last_epoch", &B::last_epoch)
        .def_property("unfinished", &B::unfinished, &B::set_unfinished)
        .def_property_readonly("diverged", &B::diverged)
        .def("remember", &B::remember)
        .def("restore", &B::restore)
        .def("forget", &B::forget)
        .def("evaluate", &B::evaluate, py::arg("data"), py::arg("batch_size"))
        .def_property("epochs", [](const B& self) { return self.epochs.load(); }, [](B& self, std::int64_t n) { self.epochs = n; });
}

}  // namespace

void bind_nn(py::module_& m) {
    bind_program<float>(m, "ProgramFloat32");
    bind_program<double>(m, "ProgramFloat64");
    bind_trainer<float>(m, "TrainerFloat32");
    bind_trainer<double>(m, "TrainerFloat64");
}

}  // namespace trainstep
