#include "runtime/isa.h"

#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "kernels/table.h"
#include "trainstep_isa_levels.h"  // made by CMakeLists.txt from its trainstep_add_isa rows

namespace trainstep {

namespace {

// How each level is recognised. The builtins ask cpuid and, for the wide registers, whether the operating system saves them.
namespace supported {
bool generic() { return true; }
#if defined(__x86_64__)
bool avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool avx512() {
    return avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool avx512_bf16() { return avx512() && __builtin_cpu_supports("avx512bf16"); }
#ifdef TRAINSTEP_SOFTWARE_TILES
bool cpu_has_tiles() { return true; }
bool may_use_tiles() { return true; }
#else
bool cpu_has_tiles() {
    constexpr unsigned bf16 = 1u << 22, tile = 1u << 24;
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bf16) && (d & tile);
}
// The 8 KB of a thread's tiles are saved only for a process that has asked for them: Linux, from 5.16.
bool may_use_tiles() {
#if defined(__linux__)
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool may = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    return may;
#else
    return false;
#endif
}
#endif
bool amx() { return avx512_bf16() && cpu_has_tiles() && may_use_tiles(); }
#elif defined(__aarch64__)
bool neon() { return true; }
#endif
}  // namespace supported

const IsaLevel* selected = nullptr;
std::string reason;

std::string supported_names() {
    std::string names;
    for (const IsaLevel& level : isa_levels())
        if (level.supported()) names += (names.empty() ? "" : ", ") + std::string(level.name);
    return names;
}

void select(const IsaLevel& level) {
    selected = &level;
    selected_kernels = &level.table();
}

}  // namespace

const KernelTable* selected_kernels = nullptr;

const std::vector<IsaLevel>& isa_levels() {
#define TRAINSTEP_LEVEL(name, flags, base) {#name, flags, #base, supported::name, name::kernel_table},
    static const std::vector<IsaLevel> levels = {TRAINSTEP_ISA_LEVELS(TRAINSTEP_LEVEL)};
#undef TRAINSTEP_LEVEL
    return levels;
}

void select_isa() {
    const char* wanted = std::getenv("TRAINSTEP_ISA");
    if (wanted && *wanted) {
        for (const IsaLevel& level : isa_levels()) {
            if (level.name != std::string(wanted)) continue;
            if (!level.supported())
                throw std::invalid_argument("TRAINSTEP_ISA=" + std::string(wanted) +
                                            ": this CPU does not support it; it supports " + supported_names());
            select(level);
            reason = "TRAINSTEP_ISA=" + std::string(wanted);
            return;
        }
        throw std::invalid_argument("TRAINSTEP_ISA=" + std::string(wanted) + ": no such level; this CPU supports " +
                                    supported_names());
    }
    const IsaLevel* widest = nullptr;
    for (const IsaLevel& level : isa_levels())
        if (level.supported()) widest = &level;
    select(*widest);  // generic is there everywhere
    reason = "the widest level that this CPU supports";
#if defined(__x86_64__)
    if (supported::avx512_bf16() && supported::cpu_has_tiles() && !supported::may_use_tiles())
        reason += "; it has AMX, but the operating system refuses this process its tiles";
#endif
}

const IsaLevel& selected_isa() { return *selected; }
const std::string& selected_isa_reason() { return reason; }

}  // namespace trainstep
