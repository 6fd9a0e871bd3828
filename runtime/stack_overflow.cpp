#include "stack_overflow.hpp"

#include "sanitizer.hpp"
#include "scheduler.hpp"

#include <signal.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <system_error>
#include <utility>

#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace annulet::detail {

namespace {

// --- what is said, by a handler: nothing here allocates, locks or parks

class line {
 public:
  line& operator<<(std::string_view text) noexcept {
    const std::size_t length = std::min(text.size(), text_.size() - 1 - used_);  // one for the line's end
    std::copy_n(text.data(), length, text_.data() + used_);
    used_ += length;
    return *this;
  }
  line& operator<<(std::uint64_t number) noexcept {
    std::array<char, 20> digits;
    const char* const end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
    return *this << std::string_view(digits.data(), static_cast<std::size_t>(end - digits.data()));
  }
  line& operator<<(const control_block& fiber) noexcept {
    fiber.describe_by([this](std::string_view piece) noexcept { *this << piece; });
    return *this;
  }
  void write() noexcept {
    text_[used_] = '\n';
    [[maybe_unused]] const auto written = ::syscall(SYS_write, STDERR_FILENO, text_.data(), used_ + 1);
  }

 private:
  std::array<char, 1024> text_;
  std::size_t used_ = 0;
};

// Where the interrupted code had its stack; 0 where this is not known of the machine.
std::uintptr_t stack_pointer(const void* context) noexcept {
  [[maybe_unused]] const auto& machine = static_cast<const ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
  return static_cast<std::uintptr_t>(machine.gregs[REG_RSP]);
#elif defined(__aarch64__)
  return machine.sp;
#else
  return 0;
#endif
}

// A fault at a page says where. That it was no address at all, or that there is no room on the stack for the
// frame of another signal, is told without a place; only the former comes again when the handler returns.
bool is_without_place(const siginfo_t& info) noexcept { return info.si_code == SI_KERNEL; }

bool is_of_no_address(const void* context) noexcept {
#if defined(__x86_64__)
  constexpr greg_t general_protection = 13;
  return static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_TRAPNO] == general_protection;
#else
  return context == nullptr;
#endif
}

std::size_t signal_frame_size() noexcept {
  constexpr std::size_t without_vectors = 2048, red_zone = 128;
  return std::max<std::size_t>(::getauxval(AT_MINSIGSTKSZ), without_vectors) + red_zone;
}

// In the middle of a switch the fiber that is to go on counts as running, and the other's stack is in use.
bool stands_on(std::uintptr_t stack_pointer, std::span<const std::byte> memory) noexcept {
  const auto start = reinterpret_cast<std::uintptr_t>(memory.data());
  const auto guard = static_cast<std::uintptr_t>(::getauxval(AT_PAGESZ));
  return stack_pointer >= start - guard && stack_pointer <= start + memory.size();
}

// The stack whose guard was touched, or is where a signal's frame was to go; empty where there is none.
std::span<const std::byte> touched(const scheduler& here, const siginfo_t& info,
                                   const void* context) noexcept {
  if (!is_without_place(info)) {
    return here.guarded_at(info.si_addr);
  }
  if (is_of_no_address(context)) {
    return {};
  }
  const auto page = static_cast<std::uintptr_t>(::getauxval(AT_PAGESZ));
  const std::uintptr_t from = stack_pointer(context);
  for (std::uintptr_t below = 0; below < signal_frame_size() + page; below += page) {
    const auto memory = here.guarded_at(reinterpret_cast<const void*>(from - below));
    if (!memory.empty()) {
      return memory;
    }
  }
  return {};
}

// The last time: where a handler returns in spite of it, once is enough.
struct told {
  const void* address = nullptr;
  std::uint64_t fiber = 0;
  bool operator==(const told&) const noexcept = default;
};
constinit thread_local told last_told;

void tell_of_overflow(const siginfo_t& info, const void* context) noexcept {
  scheduler* const here = scheduler::current();
  if (here == nullptr) {
    return;
  }
  const std::span<const std::byte> memory = touched(*here, info, context);
  const told now{info.si_addr, here->running().id};
  if (memory.empty() || now == last_told) {
    return;
  }
  last_told = now;
  const control_block* const owner = here->fiber_on(memory.data());
  line said;
  said << "annulet: ";
  if (owner != nullptr && (owner == &here->running() || stands_on(stack_pointer(context), memory))) {
    said << *owner << " ran over the end of its stack of " << memory.size() << " bytes";
  } else {
    said << here->running() << " touched the guard below a stack that is not its own";
    if (owner != nullptr) {
      said << " but that of " << *owner;
    }
    said << ": it jumped over its own guard, or a pointer is wrong";
  }
  said.write();
}

// --- the handler, and what was there before it

// Changed under the lock, and only while ours is not installed.
struct {
  std::mutex lock;
  unsigned hubs = 0;        // that want it
  unsigned forks = 0;       // between this process and the first one with hubs
  bool overridden = false;  // the last one to end found another's in its place
  struct sigaction before {};
} constinit installed;

void be_default() noexcept {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  ::sigaction(SIGSEGV, &action, nullptr);
}

// A handler returns into the instruction that faulted, so the default does what it would have done. What was
// sent, or has no place, does not come again by itself.
void pass_on(int number, siginfo_t* info, void* context) noexcept {
  const struct sigaction& before = installed.before;
  const bool sent = info->si_code <= 0;
  if ((before.sa_flags & SA_SIGINFO) == 0 && before.sa_handler == SIG_IGN && sent) {
    return;
  }
  if ((before.sa_flags & SA_SIGINFO) == 0 && (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN)) {
    be_default();
    if (sent || is_without_place(*info)) {
      ::raise(number);
    }
    return;
  }
  if ((before.sa_flags & static_cast<int>(SA_RESETHAND)) != 0) {
    be_default();
  }
  if ((before.sa_flags & SA_NODEFER) != 0) {
    sigset_t open;
    ::sigemptyset(&open);
    ::sigaddset(&open, number);
    ::pthread_sigmask(SIG_UNBLOCK, &open, nullptr);
  }
  if ((before.sa_flags & SA_SIGINFO) != 0) {
    before.sa_sigaction(number, info, context);
  } else {
    before.sa_handler(number);
  }
}

void on_fault(int number, siginfo_t* info, void* context) {
  const int kept = errno;
  if (info->si_code > 0) {  // the kernel's
    tell_of_overflow(*info, context);
  }
  errno = kept;
  pass_on(number, info, context);
}

bool is_ours(const struct sigaction& action) noexcept {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == on_fault;
}

bool is_handler(const struct sigaction& action) noexcept {
  return (action.sa_flags & SA_SIGINFO) != 0 ||
         (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
}

void install() noexcept {
  struct sigaction now {};
  ::sigaction(SIGSEGV, nullptr, &now);
  if (is_ours(now) || (installed.overridden && is_handler(now))) {
    return;
  }
  installed.overridden = false;
  installed.before = now;
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_mask = now.sa_mask;  // a handler of the program's has the mask that it asked for
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | (now.sa_flags & SA_RESTART);
  ::sigaction(SIGSEGV, &action, nullptr);
}

void put_back() noexcept {
  struct sigaction now {};
  ::sigaction(SIGSEGV, nullptr, &now);
  if (is_ours(now)) {
    ::sigaction(SIGSEGV, &installed.before, nullptr);
    installed.overridden = false;
  } else {
    installed.overridden = true;
  }
}

// In a forked child, whose hubs so far are its parent's, and never end here. The signal stack stays, as
// memory of theirs does: the thread may be on it.
void forget_hubs() noexcept {
  ++installed.forks;
  if (std::exchange(installed.hubs, 0U) != 0) {
    put_back();
  }
}

// Another thread may hold it while one forks, and the child has only the latter. From the program's start on:
// the first hub may be in the making then.
[[maybe_unused]] const int held_across_forks =
    ::pthread_atfork([] { installed.lock.lock(); }, [] { installed.lock.unlock(); },
                     [] {
                       forget_hubs();
                       installed.lock.unlock();
                     });

std::size_t page_size() noexcept { return ::getauxval(AT_PAGESZ); }

}  // namespace

const control_block* scheduler::fiber_on(const std::byte* stack_start) noexcept {
  if (running_->memory.memory.data() == stack_start) {
    return running_;
  }
  const control_block* found = nullptr;
  all_.for_each([&](control_block& fiber) {
    if (fiber.memory.memory.data() == stack_start) {
      found = &fiber;
    }
  });
  return found;
}

overflow_watch::overflow_watch(overflow_report wanted) {
  if (wanted == overflow_report::none || built_in != sanitizer::none) {
    return;
  }
  stack_t now{};
  ::sigaltstack(nullptr, &now);
  if ((now.ss_flags & SS_DISABLE) != 0) {
    // Room for a handler that prints a backtrace; what it does not touch costs no memory.
    const std::size_t size =
        (std::size_t{128} << 10) + ::getauxval(AT_MINSIGSTKSZ) / page_size() * page_size();
    length_ = page_size() + size;
    void* const memory = ::mmap(nullptr, length_, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) {
      throw std::system_error(errno, std::generic_category(), "annulet: no memory for a signal stack");
    }
    signal_stack_ = static_cast<std::byte*>(memory);
    ::mprotect(signal_stack_, page_size(), PROT_NONE);
    stack_t ours{};
    ours.ss_sp = signal_stack_ + page_size();
    ours.ss_size = size;
    ::sigaltstack(&ours, nullptr);
  }
  const std::lock_guard hold(installed.lock);
  if (installed.hubs++ == 0) {
    install();
  }
  counted_ = true;
  forks_ = installed.forks;
}

overflow_watch::~overflow_watch() {
  if (counted_) {
    const std::lock_guard hold(installed.lock);
    if (forks_ == installed.forks && --installed.hubs == 0) {
      put_back();
    }
  }
  if (signal_stack_ == nullptr) {
    return;
  }
  stack_t now{};
  ::sigaltstack(nullptr, &now);
  if (now.ss_sp == signal_stack_ + page_size()) {  // or else the program has put another in its place
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    ::sigaltstack(&none, nullptr);
  }
  ::munmap(signal_stack_, length_);
}

}  // namespace annulet::detail
