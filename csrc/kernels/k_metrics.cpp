// Metrics: the classes of a block of rows, and errors down columns.
#include "kernels/fill.h"

namespace trainstep::TRAINSTEP_ISA {

void fill_metrics(KernelTable& table) {
    table.f32.metric_classes = metrics::classes<float>;
    table.f64.metric_classes = metrics::classes<double>;
    table.f32.metric_errors = metrics::errors<float>;
    table.f64.metric_errors = metrics::errors<double>;
}

}  // namespace trainstep::TRAINSTEP_ISA
