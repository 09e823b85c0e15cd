// Names and numbers from a family's one list. Each family's header writes its list once, as an X-macro; here it becomes an enum, a
// count, a name table and a look-up, for the kernel table, the bindings and Python alike.
#pragma once

#include <cstddef>
#include <string_view>

#define TRAINSTEP_ENUMERATOR(name, ...) name,
#define TRAINSTEP_COUNT(name, ...) +1
#define TRAINSTEP_NAME(name, ...) #name,

// enum class Family { ... }, kFamily = their number, family_names[].
#define TRAINSTEP_FAMILY(Family, list)                                       \
    enum class Family : int { list(TRAINSTEP_ENUMERATOR) };                  \
    inline constexpr std::size_t k##Family##Count = 0 list(TRAINSTEP_COUNT); \
    inline constexpr std::string_view k##Family##Names[] = {list(TRAINSTEP_NAME)};

namespace trainstep {

// Index of `name` in a name table, or -1.
template <std::size_t n>
constexpr int find_name(const std::string_view (&names)[n], std::string_view name) {
    for (std::size_t i = 0; i < n; ++i)
        if (names[i] == name) return int(i);
    return -1;
}

}  // namespace trainstep
