/* What tests/test_capi.py compiles as C99 against the installed package: a program that starts Python, takes the table of steps,
 * and writes the bytes of what it trained. Exit status: 0, or the number of the check that failed. */
#include <stdio.h>
#include <trainstep.h>

enum { N = 1000, STEPS = 5 };

/* A bowl: halving is exact, so that Python's gradient has the same bits. */
#define TRAIN(T, suffix, dtype)                                                                             \
    static int train_##suffix(void) {                                                                       \
        static T w[N], g[N], a[N], b[N], c[N];                                                              \
        void* states[TRAINSTEP_MAX_STATES] = {a, b, c};                                                     \
        trainstep_scalars scalars = TRAINSTEP_SCALARS_INIT;                                                 \
        trainstep_options options;                                                                          \
        int i, error = 0;                                                                                   \
        for (i = 0; i < N; ++i) w[i] = (T)(i % 17 - 8) / 8, a[i] = b[i] = c[i] = 0;                         \
        for (scalars.step = 1; scalars.step <= STEPS && !error; ++scalars.step) {                           \
            for (i = 0; i < N; ++i) g[i] = w[i] / 2;                                                        \
            error = trainstep_adam_step_##suffix(N, w, g, a, b, scalars.step, 1e-2, 0.9, 0.99, 1e-8, 0.02); \
        }                                                                                                   \
        for (i = 0; i < N; ++i) a[i] = b[i] = c[i] = 0;                                                     \
        if (!error) error = trainstep_options_init(trainstep_rmsprop, &options);                            \
        options.momentum = 0.5, options.centered = 1, options.weight_decay = 0.02, options.l1 = 0.003;      \
        for (scalars.step = 1; scalars.step <= STEPS && !error; ++scalars.step) {                           \
            for (i = 0; i < N; ++i) g[i] = w[i] / 2;                                                        \
            error = trainstep_step(trainstep_rmsprop, dtype, N, w, g, dtype, states, &scalars, &options);   \
        }                                                                                                   \
        if (error) fprintf(stderr, "%s\n", trainstep_error(error));                                         \
        return error || fwrite(w, sizeof w, 1, stdout) != 1;                                                \
    }
TRAIN(float, f32, trainstep_float32)
TRAIN(double, f64, trainstep_float64)

int main(void) {
    float w = 1, g = 1;
    PyThreadState* state;
    if (trainstep_sgd_step_f32(1, &w, &g, NULL, 1, 0.1, 0, 0, 0, 0) != TRAINSTEP_NOT_IMPORTED) return 1;
    Py_Initialize();
    if (trainstep_import() < 0) return PyErr_Print(), 2;
    state = PyEval_SaveThread(); /* the GIL is free from here on */
    if (trainstep_sgd_step_f32(1, &w, NULL, NULL, 1, 0.1, 0, 0, 0, 0) != TRAINSTEP_NULL || w != 1) return 3;
    if (trainstep_sgd_step_f32(1, &w, &g, NULL, 1, 0.5, 0, 0, 0, 0) != TRAINSTEP_OK || w != 0.5f) return 4;
    if (train_f32()) return 5;
    if (train_f64()) return 6;
    PyEval_RestoreThread(state);
    return Py_FinalizeEx() < 0 ? 7 : 0;
}
