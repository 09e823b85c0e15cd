// The table of this ISA level, put together from its families; or that of the level that it is built upon, with what it has itself.
#include "kernels/fill.h"

#ifdef TRAINSTEP_BASE_ISA
namespace trainstep::TRAINSTEP_BASE_ISA {
const KernelTable& kernel_table();
}
#endif

namespace trainstep::TRAINSTEP_ISA {

const KernelTable& kernel_table() {
    static const KernelTable table = [] {
#ifdef TRAINSTEP_BASE_ISA
        KernelTable t = TRAINSTEP_BASE_ISA::kernel_table();
#else
        KernelTable t{};
        fill_elementwise(t);
        fill_gemm(t);
        fill_losses(t);
        fill_metrics(t);
        fill_normalize(t);
        fill_optimizers(t);
        fill_probes(t);
#endif
        fill_pieces(t);
        return t;
    }();
    return table;
}

}  // namespace trainstep::TRAINSTEP_ISA
