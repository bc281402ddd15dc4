// One source, several instruction sets: GCC on Linux emits a clone per target and picks at load time. Sanitizer builds stay on
// the baseline (their runtime is not ready when the picker runs).
#pragma once
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(VMOBA_SANITIZE)
#define VMOBA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
/// Functions may also be written once per target.
#define VMOBA_X86_VERSIONS
#else
#define VMOBA_CLONES
#endif
