// The table of this ISA level, put together from its families.
#include "kernels/fill.h"

namespace trainstep::TRAINSTEP_ISA {

const KernelTable& kernel_table() {
    static const KernelTable table = [] {
        KernelTable t{};
        fill_elementwise(t);
        fill_gemm(t);
        fill_losses(t);
        fill_metrics(t);
        fill_normalize(t);
        fill_optimizers(t);
        fill_probes(t);
        return t;
    }();
    return table;
}

}  // namespace trainstep::TRAINSTEP_ISA
