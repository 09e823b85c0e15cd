// trainstep.nn and trainstep.Trainer: programs and their training.
#include <pybind11/stl.h>

#include <chrono>
#include <optional>

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
        specs.push_back({py::cast<std::string>(layer["kind"]), py::cast<std::size_t>(layer["in_features"]),
                         py::cast<std::size_t>(layer["out_features"]),
                         Activation(name_index("Dense", "activation", kActivationNames, layer["activation"], true)),
                         py::cast<bool>(layer["bias"])});
    }
    return specs;
}

// A parameter or a gradient as a NumPy array over the arena, which lives as long as the array does.
template <class T>
py::list views(const std::shared_ptr<Program<T>>& program, T* Parameter<T>::* place) {
    py::list result;
    for (const Parameter<T>& p : program->parameters()) {
        const std::vector<py::ssize_t> shape(p.shape.begin(), p.shape.end());
        result.append(py::make_tuple(p.name, py::array(py::dtype::of<T>(), shape, p.*place, py::cast(program))));
    }
    return result;
}

// x as T, C-contiguous, for a program that takes `columns` features; other real dtypes are cast.
template <class T>
Table cast_table(Site site, py::handle x, std::size_t columns, py::array& keep) {
    Table t = table(site, x, columns, keep);
    if (has_dtype<T>(keep)) return t;
    py::array_t<T> cast({py::ssize_t(t.rows), py::ssize_t(t.columns)});
    gather_rows(cast.mutable_data(), t, nullptr, 0, t.rows);
    keep = cast;
    t.data = keep.data();
    return t;
}

// Inference on a whole table.
template <class T>
py::array predict(Program<T>& program, py::handle x_in, py::handle out) {
    const Site site{"model", "x"};
    py::array x;
    const Table t = cast_table<T>(site, x_in, program.in(), x);
    py::array y = output<T>({"model", "out"}, out, {py::ssize_t(t.rows), py::ssize_t(program.out())}, {&x});
    T* to = mutable_data<T>(y);
    const WithoutGil released;
    const std::lock_guard held(program.lock);
    program.predict(to, static_cast<const T*>(t.data), t.rows);
    return y;
}

// Forward that keeps what backward needs, a copy of x included.
template <class T>
py::array forward(Program<T>& program, py::handle x_in) {
    py::array x;
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
    for (std::size_t layer = program.layers(); layer-- > 0;) program.backward_parameters(layer, accumulate, Team{0, 1});
    held.unlock();
    return dx;
}

template <class T>
void bind_program(py::module_& m, const char* name) {
    using P = Program<T>;
    py::class_<P, std::shared_ptr<P>>(m, name)
        .def(py::init([](const py::list& layers) { return std::make_shared<P>(layer_specs(layers)); }), py::arg("layers"))
        .def_property_readonly("in_features", &P::in)
        .def_property_readonly("out_features", &P::out)
        .def("parameters", [](const std::shared_ptr<P>& self) { return views(self, &Parameter<T>::weight); })
        .def("gradients", [](const std::shared_ptr<P>& self) { return views(self, &Parameter<T>::gradient); })
        .def("predict", predict<T>, py::arg("x"), py::arg("out") = py::none())
        .def("forward", forward<T>, py::arg("x"))
        .def("backward", backward<T>, py::arg("dy"), py::arg("need_dx") = true, py::arg("accumulate") = false);
}

// --- training ----------------------------------------------------------------------------------------------------------------

// The targets of `rows` rows, checked: class indices, or values of the network's output shape.
template <class T>
Targets<T> targets(Site site, py::handle y_in, std::size_t rows, std::size_t columns, Loss loss, py::array& keep) {
    Targets<T> result;
    py::array y = as_array(site, y_in);
    if (is_classification(loss) && y.ndim() == 1) {
        keep = labels(site, y, py::ssize_t(rows), py::ssize_t(columns));
        result.labels = data<std::int64_t>(keep);
        return result;
    }
    if (y.ndim() == 1 && columns == 1) y = y.reshape({py::ssize_t(-1), py::ssize_t(1)});
    if (y.ndim() != 2 || std::size_t(y.shape(0)) != rows || std::size_t(y.shape(1)) != columns)
        value_error(site, "has shape " + shape_text(y) + ", expected (" + std::to_string(rows) + ", " + std::to_string(columns) +
                              ")" + (is_classification(loss) ? " or (" + std::to_string(rows) + ",)" : ""));
    result.values = table(site, y, columns, keep);
    if (has_dtype<float>(keep)) check_target<float>(site, keep, is_classification(loss));
    if (has_dtype<double>(keep)) check_target<double>(site, keep, is_classification(loss));
    return result;
}

template <class T>
class BoundTrainer {
  public:
    BoundTrainer(std::shared_ptr<Program<T>> program, py::handle loss, std::shared_ptr<Optimizer<T>> optimizer)
        : trainer_(std::move(program), Loss(name_index("Trainer", "loss", kLossNames, loss)), std::move(optimizer)) {}

    double step(py::handle x_in, py::handle y_in) {
        py::array x, y;
        const Table xs = table({"step", "x"}, x_in, trainer_.program().in(), x);
        const Targets<T> ys = targets<T>({"step", "y"}, y_in, xs.rows, trainer_.program().out(), trainer_.loss(), y);
        const WithoutGil released;
        return trainer_.step(xs, ys);
    }

    // progress(batches, rows, mean loss, accuracy or None) is called with the GIL about every `interval` seconds.
    py::tuple fit_epoch(py::handle x, py::handle y, std::size_t batch_size, bool drop_last, py::handle order, py::handle progress,
                        double interval) {
        return run("fit", x, y, batch_size, drop_last, order, progress, interval, true);
    }
    py::tuple evaluate(py::handle x, py::handle y, std::size_t batch_size) {
        return run("evaluate", x, y, batch_size, false, py::none(), py::none(), 1, false);
    }

  private:
    using Clock = std::chrono::steady_clock;

    // Between two batches: Python's signals, at least every kSignals, and the caller's progress.
    struct Breath {
        BoundTrainer* self;
        py::handle progress;
        std::chrono::duration<double> interval;
        Clock::time_point last_signals, last_progress;
        bool raised = false;  // a Python exception is set
    };
    static constexpr std::chrono::milliseconds kSignals{10};

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

    py::tuple run(const char* me, py::handle x_in, py::handle y_in, std::size_t batch_size, bool drop_last, py::handle order_in,
                  py::handle progress, double interval, bool train) {
        if (batch_size == 0) value_error({me, "batch_size"}, "is 0, expected at least 1");
        py::array x, y;
        py::array_t<std::int64_t> order;
        const Table xs = table({me, "x"}, x_in, trainer_.program().in(), x);
        const Targets<T> ys = targets<T>({me, "y"}, y_in, xs.rows, trainer_.program().out(), trainer_.loss(), y);
        if (drop_last && xs.rows < batch_size)
            value_error({me, "batch_size"}, "is " + std::to_string(batch_size) + ", expected at most the " +
                                                std::to_string(xs.rows) + " rows of x with drop_last");
        const auto now = Clock::now();
        Breath breath{this, progress, std::chrono::duration<double>(interval), now, now};
        Pass pass{batch_size, drop_last, nullptr, breathe, &breath};
        if (!order_in.is_none()) {
            order = py::cast<py::array_t<std::int64_t>>(order_in);
            pass.order = order.data();
        }
        Totals totals;
        {
            const WithoutGil released;
            totals = train ? trainer_.fit_epoch(xs, ys, pass) : trainer_.evaluate(xs, ys, pass);
        }
        if (breath.raised) throw py::error_already_set();
        const auto [loss, accuracy] = means(totals);
        return py::make_tuple(loss, accuracy, totals.batches);
    }

    Trainer<T> trainer_;
};

template <class T>
void bind_trainer(py::module_& m, const char* name) {
    using B = BoundTrainer<T>;
    py::class_<B>(m, name)
        .def(py::init<std::shared_ptr<Program<T>>, py::handle, std::shared_ptr<Optimizer<T>>>(), py::arg("program"),
             py::arg("loss"), py::arg("optimizer"))
        .def("step", &B::step, py::arg("x"), py::arg("y"))
        .def("fit_epoch", &B::fit_epoch, py::arg("x"), py::arg("y"), py::arg("batch_size"), py::arg("drop_last"), py::arg("order"),
             py::arg("progress"), py::arg("interval"))
        .def("evaluate", &B::evaluate, py::arg("x"), py::arg("y"), py::arg("batch_size"));
}

}  // namespace

void bind_nn(py::module_& m) {
    bind_program<float>(m, "ProgramFloat32");
    bind_program<double>(m, "ProgramFloat64");
    bind_trainer<float>(m, "TrainerFloat32");
    bind_trainer<double>(m, "TrainerFloat64");
}

}  // namespace trainstep
