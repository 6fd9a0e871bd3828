// What the thread and the address sanitizer and valgrind are told of fibers, where one of them is built in:
// each takes a thread for a single stack, and would mix up those of its fibers. Without them all here is
// empty. Internal.
//
// A control block has no member for it: a program that is built with a sanitizer and a library that is not
// have to agree on its layout. What has to be kept lies at the far end of the fiber's stack.
#pragma once

#include "control_block.hpp"

#include <array>
#include <cstddef>
#include <span>

#if defined(ANNULET_VALGRIND)
#include <valgrind/memcheck.h>
#include <valgrind/valgrind.h>
#endif

namespace annulet::detail {

enum class sanitizer { none, thread, address };

// GCC says it by a macro of its own, Clang by a question that GCC 12 cannot even read.
#if defined(__SANITIZE_THREAD__)
inline constexpr sanitizer built_in = sanitizer::thread;
#elif defined(__SANITIZE_ADDRESS__)
inline constexpr sanitizer built_in = sanitizer::address;
#elif !defined(__has_feature)
inline constexpr sanitizer built_in = sanitizer::none;
#elif __has_feature(thread_sanitizer)
inline constexpr sanitizer built_in = sanitizer::thread;
#elif __has_feature(address_sanitizer)
inline constexpr sanitizer built_in = sanitizer::address;
#else
inline constexpr sanitizer built_in = sanitizer::none;
#endif

// As in <sanitizer/*.h>, which not every compiler comes with.
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_set_fiber_name(void* fiber, const char* name);
void __tsan_acquire(void* at);
void __tsan_release(void* at);
void __sanitizer_syscall_pre_impl_close(long fd);
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, std::size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, std::size_t* size);
void __asan_unpoison_memory_region(const volatile void* start, std::size_t size);
void __lsan_register_root_region(const void* start, std::size_t size);
void __lsan_unregister_root_region(const void* start, std::size_t size);
}

// Of a stack that is in use, and no longer. Memcheck sees by itself when the stack pointer goes from one that
// it knows into another; otherwise it takes that for a very large frame, and all in between for garbage.
#if defined(ANNULET_VALGRIND)
[[nodiscard]] inline unsigned& valgrind_stack(const control_block& fiber) noexcept {
  return *reinterpret_cast<unsigned*>(fiber.memory.memory.data() + sizeof(void*));
}
inline void valgrind_start(const control_block& fiber) noexcept {
  const std::span<std::byte> memory = fiber.memory.memory;
  valgrind_stack(fiber) = VALGRIND_STACK_REGISTER(memory.data(), memory.data() + memory.size() - 1);
}
inline void valgrind_end(const control_block& fiber) noexcept {
  const std::span<std::byte> memory = fiber.memory.memory;
  VALGRIND_STACK_DEREGISTER(valgrind_stack(fiber));
  // What lay below its last frame is out of bounds still, and who spawns next writes there.
  (void)VALGRIND_MAKE_MEM_UNDEFINED(memory.data(), memory.size());
}
#else
inline void valgrind_start(const control_block&) noexcept {}
inline void valgrind_end(const control_block&) noexcept {}
#endif

// The thread sanitizer's fiber of this thread's main one, which has no stack of ours.
inline constinit thread_local void* tsan_main = nullptr;

[[nodiscard]] inline void*& tsan_fiber(const control_block& fiber) noexcept {
  return fiber.memory.pool == nullptr ? tsan_main : *reinterpret_cast<void**>(fiber.memory.memory.data());
}

// The thread has a main fiber now.
inline void sanitize_thread() noexcept {
  if constexpr (built_in == sanitizer::thread) {
    tsan_main = __tsan_get_current_fiber();
  }
}

// It has none any more.
inline void sanitize_thread_end([[maybe_unused]] const control_block& main) noexcept {
  if constexpr (built_in == sanitizer::address) {
    if (!main.memory.memory.empty()) {
      __lsan_unregister_root_region(main.memory.memory.data(), main.memory.memory.size());
    }
  }
}

// Of a fiber that has its stack, and its name, and has not run.
inline void sanitize_start(const control_block& fiber) noexcept {
  valgrind_start(fiber);
  if constexpr (built_in == sanitizer::thread) {
    std::array<char, 32> name{};
    fiber.name().copy(name.data(), name.size() - 1);
    tsan_fiber(fiber) = __tsan_create_fiber(0);
    __tsan_set_fiber_name(tsan_fiber(fiber), name.data());
  }
  if constexpr (built_in == sanitizer::address) {
    // What only a parked fiber refers to is no leak.
    __lsan_register_root_region(fiber.memory.memory.data(), fiber.memory.memory.size());
  }
}

// Of one whose stack goes back. The frames that it never returned from are poisoned still.
inline void sanitize_end(const control_block& fiber) noexcept {
  valgrind_end(fiber);
  if constexpr (built_in == sanitizer::thread) {
    __tsan_destroy_fiber(tsan_fiber(fiber));
  }
  if constexpr (built_in == sanitizer::address) {
    __lsan_unregister_root_region(fiber.memory.memory.data(), fiber.memory.memory.size());
    __asan_unpoison_memory_region(fiber.memory.memory.data(), fiber.memory.memory.size());
  }
}

// Right before the jump; what it returns is for sanitize_arrival, when the fiber goes on. Never a function of
// its own, nor is the next: it would be entered on one stack and left on the other.
[[nodiscard, gnu::always_inline]] inline void* sanitize_departure(
    [[maybe_unused]] const control_block& self, [[maybe_unused]] const control_block& next) {
  void* fake_stack = nullptr;
  if constexpr (built_in == sanitizer::thread) {
    __tsan_switch_to_fiber(tsan_fiber(next), 0);
  }
  if constexpr (built_in == sanitizer::address) {
    const std::span<std::byte> to = next.memory.memory;
    const bool is_last = self.state == fiber_state::done;  // what it has beside its stack is freed
    __sanitizer_start_switch_fiber(is_last ? nullptr : &fake_stack, to.data(), to.size());
  }
  return fake_stack;
}

// Right behind the jump. `fake_stack`: null where the fiber begins.
[[gnu::always_inline]] inline void sanitize_arrival([[maybe_unused]] void* fake_stack,
                                                    [[maybe_unused]] control_block& left) noexcept {
  if constexpr (built_in == sanitizer::address) {
    const void* bottom = nullptr;
    std::size_t size = 0;
    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &size);
    if (left.memory.pool == nullptr && left.memory.memory.empty()) {  // main, whose stack only it knows
      left.memory.memory = {static_cast<std::byte*>(const_cast<void*>(bottom)), size};
      __lsan_register_root_region(bottom, size);  // as of any fiber
    }
  }
}

}  // namespace annulet::detail
