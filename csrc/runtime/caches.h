// How large the caches of a core are.
#pragma once

#include <cstddef>

namespace trainstep {

// Bytes of a core's first cache for data and of its second.
struct Caches {
    std::size_t l1 = 32 * 1024, l2 = 1024 * 1024;  // where the system does not say
};

extern Caches core_caches;  // set when the library is loaded
inline const Caches& caches() { return core_caches; }

// For tests: what caches() tells from now on.
inline void set_caches(const Caches& sizes) { core_caches = sizes; }

}  // namespace trainstep
