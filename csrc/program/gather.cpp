#include "program/gather.h"

#include "runtime/parallel.h"

namespace trainstep {

namespace {

template <class T, class Source>
void gather(T* out, const Source* source, std::size_t columns, const std::int64_t* order, std::size_t first, std::size_t rows) {
    const double ns_per_row = 5 + 0.3 * double(columns);
    parallel_for(rows, 16, ns_per_row, [=](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const Source* from = source + (order ? std::size_t(order[first + i]) : first + i) * columns;
            T* to = out + i * columns;
            for (std::size_t j = 0; j < columns; ++j) to[j] = T(from[j]);
        }
    });
}

}  // namespace

template <class T>
void gather_rows(T* out, const Table& table, const std::int64_t* order, std::size_t first, std::size_t rows) {
    switch (table.dtype) {
#define TRAINSTEP_GATHER(name, type) \
    case InputDtype::name##_:        \
        return gather(out, static_cast<const type*>(table.data), table.columns, order, first, rows);
        TRAINSTEP_INPUT_DTYPES(TRAINSTEP_GATHER)
#undef TRAINSTEP_GATHER
    }
}

template void gather_rows(float*, const Table&, const std::int64_t*, std::size_t, std::size_t);
template void gather_rows(double*, const Table&, const std::int64_t*, std::size_t, std::size_t);

}  // namespace trainstep
