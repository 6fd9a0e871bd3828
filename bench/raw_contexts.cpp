#include "raw_contexts.hpp"

#include <sys/mman.h>
#include <boost/context/detail/fcontext.hpp>

#include "harness.hpp"
#include "relay.hpp"

namespace bench {
namespace {

constexpr std::size_t stack_size = 256 * 1024;
constexpr int frame_lines =
    3;  // what a parked context needs to go on: its registers and the frame of entry()
constexpr std::size_t stride = stack_size + 4096;
using boost::context::detail::jump_fcontext;
using boost::context::detail::transfer_t;

}  // namespace

struct raw_contexts::round_state {
  relay course;
  std::vector<void*>& contexts;
  std::size_t starting = 0;  // the member that is being started
  void* home = nullptr;

  template <bool prefetch>
  static void entry(transfer_t from) {
    auto& state = *static_cast<round_state*>(from.data);
    const std::size_t own = state.starting;
    const std::size_t count = state.contexts.size();
    const std::size_t next = own + 1 == count ? 0 : own + 1;
    const std::size_t previous = own == 0 ? count - 1 : own - 1;
    // All members come up first and hold at once, so that the ring is whole before the first lap.
    state.contexts[own] = nullptr;
    from = jump_fcontext(from.fctx, nullptr);
    if (own == 0) {
      state.home = from.fctx;
    } else {
      state.contexts[previous] = from.fctx;
    }
    const std::size_t after_next = next + 1 == count ? 0 : next + 1;
    state.course.run(own, [&] {
      if constexpr (prefetch) {
        const auto* stack = static_cast<const char*>(state.contexts[after_next]);
        for (int line = 0; line < frame_lines; ++line) {
          __builtin_prefetch(stack + line * 64);
        }
      }
      state.contexts[previous] = jump_fcontext(state.contexts[next], nullptr).fctx;
    });
    // Whoever is through hands on once more; the last one through goes home. None is ever resumed again.
    jump_fcontext(next == 0 ? state.home : state.contexts[next], nullptr);
  }
};

raw_contexts::raw_contexts(std::size_t count) : count_(count), contexts_(count) {
  void* mapped = mmap(nullptr, count * stride, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapped == MAP_FAILED) {
    fail("cannot map %zu stacks", count);
  }
  // No huge pages: they would make a floor that no pool of separately touched stacks can have.
  madvise(mapped, count * stride, MADV_NOHUGEPAGE);
  stacks_ = static_cast<char*>(mapped);
}

raw_contexts::~raw_contexts() { munmap(stacks_, count_ * stride); }

void raw_contexts::turn(meter& clock, std::uint64_t rounds) { run<false>(clock, rounds); }

void raw_contexts::turn_with_prefetch(meter& clock, std::uint64_t rounds) { run<true>(clock, rounds); }

template <bool prefetch>
void raw_contexts::run(meter& clock, std::uint64_t rounds) {
  round_state state{.course = relay(clock, count_, rounds), .contexts = contexts_};
  for (std::size_t i = 0; i < count_; ++i) {
    state.starting = i;
    char* top = stacks_ + (i + 1) * stride;
    void* fresh = boost::context::detail::make_fcontext(top, stack_size, round_state::entry<prefetch>);
    contexts_[i] = jump_fcontext(fresh, &state).fctx;
  }
  jump_fcontext(contexts_[0], nullptr);
  state.course.check();
}

}  // namespace bench
