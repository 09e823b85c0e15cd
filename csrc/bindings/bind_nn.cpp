// trainstep.nn and trainstep.Trainer: programs and their training.
#include <pybind11/stl.h>

#include <atomic>
#include <chrono>
#include <optional>

#include "bindings/activations.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "ops/losses.h"
#include "program/program.h"
#include "program/trainer.h"

namespace trainstep {

namespace {

std::vector<LayerSpec> layer_specs(const py::list& layers) {
    std::vector<LayerSpec> specs;
    for (const auto& item : layers) {
        const auto layer = py::cast<py::dict>(item);
        LayerSpec spec{py::cast<std::string>(layer["kind"])};
        if (spec.kind != "dense") {
            spec.in = spec.out = py::cast<std::size_t>(layer["features"]);
            if (spec.kind == "activation") spec.activation = activation_named("Activation", "name", layer["name"]);
        } else {
            spec.in = py::cast<std::size_t>(layer["in_features"]), spec.out = py::cast<std::size_t>(layer["out_features"]);
            spec.activation = activation_named("Dense", "activation", layer["activation"]);
            spec.bias = py::cast<bool>(layer["bias"]);
        }
        specs.push_back(spec);
    }
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
    program.predict(to, static_cast<const T*>(t.data), t.rows);
    return y;
}

// Forward that keeps what backward needs, a copy of x included.
template <class T>
py::array forward(Program<T>& program, py::handle x_in) {
    py::object x;
    const Table t = table({"forward", "x"}, x_in, program.in(), x);
    py::array y = output<T>({"forward", "out"}, py::none(), {py::ssize_t(t.rows), py::ssize_t(program.out())}, {});
    T* to = mutable_data<T>(y);
    const WithoutGil released;
    const std::lock_guard held(program.lock);
    T* input = program.input_buffer(t.rows);
    gather_rows(input, t, nullptr, 0, t.rows);
    program.begin(input, t.rows);
    program.forward({0, t.rows});
    std::copy(program.output(), program.output() + t.rows * program.out(), to);
    return y;
}

template <class T>
py::object backward(Program<T>& program, py::handle dy_in, bool need_dx, bool accumulate) {
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
    std::copy(data<T>(dy), data<T>(dy) + dy.size(), program.output_gradient());
    program.backward_inputs(dx_to, {0, batch});
    program.keep_gradients();
    program.fused = false;
    for (std::size_t layer = program.layers(); layer-- > 0;)
        for (std::size_t i = program.first_parameter(layer); i < program.first_parameter(layer + 1); ++i) {
            if (program.parameters()[i].frozen) continue;
            const std::vector<std::size_t>& shape = program.parameters()[i].shape;
            const ParameterShare all = program.share_of_parameters(layer, {0, 1});
            const Range rows = all.rows_of(shape), columns = all.columns_of(shape);
            program.backward_parameter(layer, i, program.gradient_at(i, rows, columns), program.factors(layer), accumulate, rows,
                                       columns);
        }
    held.unlock();
    return dx;
}

// Of every layer of the pass that backward has gone through: the number of its description, the name of its activation, and copies
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
        result.append(py::make_tuple(layer.spec, py::str(f.data(), f.size()), copy(layer.output), copy(layer.dz)));
    }
    return result;
}

template <class T>
void bind_program(py::module_& m, const char* name) {
    using P = Program<T>;
    py::class_<P, std::shared_ptr<P>>(m, name)
        .def(py::init([](const py::list& layers) { return std::make_shared<P>(layer_specs(layers)); }), py::arg("layers"))
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
        .def("passed", passed<T>)
        .def("buffers", [](const std::shared_ptr<P>& self) { return views(self, self->buffers(), &Buffer<T>::values); })
        .def("predict", predict<T>, py::arg("x"), py::arg("out") = py::none())
        .def("forward", forward<T>, py::arg("x"))
        .def("backward", backward<T>, py::arg("dy"), py::arg("need_dx") = true, py::arg("accumulate") = false);
}

// --- training ----------------------------------------------------------------------------------------------------------------

// A table and its targets, checked and held: what a pass runs over.
template <class T>
struct HeldData {
    Data<T> data;
    py::object x, y;
};

// Checks that y fits x and the loss: class indices, or values of the network's output shape.
template <class T>
HeldData<T> hold(Site x_site, py::handle x_in, Site y_site, py::handle y_in, const Program<T>& program, Loss loss) {
    HeldData<T> held;
    held.data.x = table(x_site, x_in, program.in(), held.x);
    const std::size_t rows = held.data.x.rows, columns = program.out();
    // A step would read what it is writing.
    const auto check_apart = [&program](Site site, const void* first, std::size_t bytes) {
        if (program.owns(first, static_cast<const char*>(first) + bytes)) value_error(site, "lies in the model's own memory");
    };
    check_apart(x_site, held.data.x.data, std::size_t(py::array(held.x).nbytes()));
    const bool classes = is_classification(loss);
    py::array y = as_array(y_site, y_in);
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
    check_target(y_site, held.data.y.values, rows * columns, classes);
    check_apart(y_site, held.data.y.values, rows * columns * sizeof(T));
    return held;
}

template <class T>
class BoundTrainer {
  public:
    BoundTrainer(std::shared_ptr<Program<T>> program, py::handle loss, std::shared_ptr<Optimizer> optimizer,
                 const std::vector<std::optional<std::size_t>>& places, std::optional<bool> fuse_update)
        : trainer_(std::move(program), Loss(name_index("Trainer", "loss", kLossNames, loss)), std::move(optimizer), in_core(places),
                   !fuse_update   ? FuseUpdate::where_it_pays
                   : *fuse_update ? FuseUpdate::always
                                  : FuseUpdate::never) {}

    static std::vector<std::size_t> in_core(const std::vector<std::optional<std::size_t>>& places) {
        std::vector<std::size_t> result;
        for (const std::optional<std::size_t>& place : places) result.push_back(place.value_or(Trainer<T>::kNoPlace));
        return result;
    }

    double step(py::handle x, py::handle y) {
        const HeldData<T> batch = hold<T>({"step", "x"}, x, {"step", "y"}, y, trainer_.program(), trainer_.loss());
        const WithoutGil released;
        return trainer_.step(batch.data);
    }

    // The names are for the messages.
    HeldData<T> data(py::handle x, py::handle y, const std::string& function, const std::string& x_name,
                     const std::string& y_name) {
        return hold<T>({function.c_str(), x_name.c_str()}, x, {function.c_str(), y_name.c_str()}, y, trainer_.program(),
                       trainer_.loss());
    }

    // progress is None or (f, seconds): f(batches, rows, mean loss, accuracy or None) is called with the GIL about that often.
    // Six arguments with self: for more, pybind11 allocates.
    py::tuple fit_epoch(const HeldData<T>& data, std::size_t batch_size, bool drop_last, py::handle order_in, py::handle progress) {
        const std::size_t rows = data.data.x.rows;
        if (drop_last && rows < batch_size)
            value_error({"fit", "batch_size"}, "is " + std::to_string(batch_size) + ", expected at most the " +
                                                   std::to_string(rows) + " rows of x with drop_last");
        Pass pass{batch_size, drop_last};
        std::optional<py::array_t<std::int64_t>> order;
        if (!order_in.is_none()) pass.order = order.emplace(py::cast<py::array_t<std::int64_t>>(order_in)).data();
        const auto now = Clock::now();
        Breath breath{this, py::none(), {}, now, now};
        if (!progress.is_none()) {
            const auto call = py::cast<py::tuple>(progress);
            breath.progress = call[0];
            breath.interval = std::chrono::duration<double>(py::cast<double>(call[1]));
        }
        pass.air = breathe, pass.air_context = &breath;
        Totals totals;
        {
            const WithoutGil released;
            totals = trainer_.fit_epoch(data.data, pass);
        }
        // Counted here, so that no signal can come between an epoch's last step and its count.
        if (std::size_t(totals.batches) == (drop_last ? rows / batch_size : (rows + batch_size - 1) / batch_size)) ++epochs;
        return result(totals, breath);
    }

    py::tuple evaluate(const HeldData<T>& data, std::size_t batch_size) {
        const auto now = Clock::now();
        Breath breath{this, py::none(), {}, now, now};
        Pass pass{batch_size};
        pass.air = breathe, pass.air_context = &breath;
        Totals totals;
        {
            const WithoutGil released;
            totals = trainer_.evaluate(data.data, pass);
        }
        return result(totals, breath);
    }

    std::atomic<std::int64_t> epochs{0};  // completed

  private:
    using Clock = std::chrono::steady_clock;

    // Between two batches: Python's signals, at least every kSignals, and the caller's progress.
    struct Breath {
        BoundTrainer* self;
        py::object progress;
        std::chrono::duration<double> interval;
        Clock::time_point last_signals, last_progress;
        bool raised = false;  // a Python exception is set
    };
    // Below what a person notices; a breath waits for the GIL, for 5 ms where another thread runs Python code.
    static constexpr std::chrono::milliseconds kSignals{50};

    static bool breathe(void* context, const Totals& so_far) {
        Breath& b = *static_cast<Breath*>(context);
        const auto now = Clock::now();
        if (now - b.last_signals < kSignals) return true;
        b.last_signals = now;
        const py::gil_scoped_acquire held;
        b.raised = PyErr_CheckSignals() != 0;
        if (!b.raised && !b.progress.is_none() && now - b.last_progress >= b.interval) {
            b.last_progress = now;
            try {
                const auto [loss, accuracy] = b.self->means(so_far);
                b.progress(so_far.batches, so_far.rows, loss, accuracy);
            } catch (py::error_already_set& e) {
                e.restore();
                b.raised = true;
            }
        }
        return !b.raised;
    }

    std::pair<double, py::object> means(const Totals& t) const {
        const bool counted = is_classification(trainer_.loss()) && t.rows > 0;
        return {t.loss / t.count, counted ? py::object(py::float_(double(t.correct) / double(t.rows))) : py::none()};
    }

    py::tuple result(const Totals& totals, const Breath& breath) const {
        if (breath.raised) throw py::error_already_set();
        const auto [loss, accuracy] = means(totals);
        return py::make_tuple(loss, accuracy);
    }

    Trainer<T> trainer_;
};

template <class T>
void bind_trainer(py::module_& m, const char* name) {
    using B = BoundTrainer<T>;
    py::class_<B> trainer(m, name);
    py::class_<HeldData<T>>(trainer, "Data").def_property_readonly("rows", [](const HeldData<T>& self) {
        return self.data.x.rows;
    });
    trainer
        .def(py::init<std::shared_ptr<Program<T>>, py::handle, std::shared_ptr<Optimizer>,
                      const std::vector<std::optional<std::size_t>>&, std::optional<bool>>(),
             py::arg("program"), py::arg("loss"), py::arg("optimizer"), py::arg("places"), py::arg("fuse_update"))
        .def("step", &B::step, py::arg("x"), py::arg("y"))
        .def("data", &B::data, py::arg("x"), py::arg("y"), py::arg("function"), py::arg("x_name"), py::arg("y_name"))
        .def("fit_epoch", &B::fit_epoch, py::arg("data"), py::arg("batch_size"), py::arg("drop_last"), py::arg("order"),
             py::arg("progress"))
        .def("evaluate", &B::evaluate, py::arg("data"), py::arg("batch_size"))
        .def_property_readonly("epochs", [](const B& self) { return self.epochs.load(); });
}

}  // namespace

void bind_nn(py::module_& m) {
    bind_program<float>(m, "ProgramFloat32");
    bind_program<double>(m, "ProgramFloat64");
    bind_trainer<float>(m, "TrainerFloat32");
    bind_trainer<double>(m, "TrainerFloat64");
}

}  // namespace trainstep
