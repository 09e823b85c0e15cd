#include "runtime/caches.h"

#ifdef __linux__
#include <unistd.h>
#endif

namespace trainstep {

namespace {

Caches sizes_here() {
    Caches sizes;
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
    if (const long l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE); l1 > 0) sizes.l1 = std::size_t(l1);
    if (const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE); l2 > 0) sizes.l2 = std::size_t(l2);
#endif
    return sizes;
}

}  // namespace

Caches core_caches = sizes_here();

}  // namespace trainstep
