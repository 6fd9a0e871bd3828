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

inline arrival jump(context to, void* word) noexcept {
  return boost::context::detail::jump_fcontext(to, word);
}

}  // namespace annulet::detail
