// The switch between two stacks: Boost.Context's jump_fcontext, named in this file only.
//
// jump_fcontext keeps the callee-saved registers and the floating-point control words. The C++ exception
// state and errno are the scheduler's to keep (scheduler.cpp): both belong to the thread, and a fiber
// that parks inside a catch block, or between a call and its look at errno, must find its own again.
#pragma once

#include <boost/context/detail/fcontext.hpp>

#include <cstddef>

namespace annulet::detail {

using context = boost::context::detail::fcontext_t;

// What the resumed side learns: where the side that jumped stands now, and the word it passed.
using arrival = boost::context::detail::transfer_t;

// A context that calls entry(arrival) on the stack below `top` when it is first jumped to.
inline context make_context(std::byte* top, std::size_t size, void (*entry)(arrival)) noexcept {
  return boost::context::detail::make_fcontext(top, size, entry);
}

// Saves where it stands on its own stack, tells the side at `to` of that and of `word`, and goes on there.
//
// The CPU predicts each return from a stack of its own, onto which each call pushes. A call of jump_fcontext,
// which never returns but jumps, leaves one entry too many there, and every return of the fiber that goes on
// would be mispredicted, up to its outermost frame. So it is jumped to as well: then the entries are those of
// the fiber that left, which has often parked by the same calls.
inline arrival jump(context to, void* word) noexcept {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__APX_F__)
  arrival from;
  asm volatile(
      "leaq 1f(%%rip), %%rax\n\t"
      "pushq %%rax\n\t"  // there is no red zone below: meson.build
      "jmp jump_fcontext@PLT\n"
      "1:"
      : "=a"(from.fctx), "=d"(from.data), "+D"(to), "+S"(word)
      :
      :  // what a call may change
      "rcx", "r8", "r9", "r10", "r11", "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
      "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "st", "st(1)", "st(2)",
      "st(3)", "st(4)", "st(5)", "st(6)", "st(7)"
#if defined(__AVX512F__)
      ,
      "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",
      "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#endif
  );
  return from;
#else
  return boost::context::detail::jump_fcontext(to, word);
#endif
}

}  // namespace annulet::detail
