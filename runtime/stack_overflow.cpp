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

#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>
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
  // As control_block::describe() has it.
  line& operator<<(const control_block& fiber) noexcept {
    *this << "fiber " << fiber.id;
    if (!fiber.name().empty()) {
      *this << " \"" << fiber.name() << "\"";
    }
    if (fiber.place.line() != 0) {
      *this << " (spawned at " << fiber.place.file_name() << ":" << std::uint64_t{fiber.place.line()} << ")";
    }
    return *this;
  }
  void write() noexcept {
    text_[used_] = '\n';
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text_.data(), used_ + 1);
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

// In the middle of a switch the fiber that is to go on counts as running, and the other's stack is in use.
bool stands_on(std::uintptr_t stack_pointer, std::span<const std::byte> memory) noexcept {
  const auto start = reinterpret_cast<std::uintptr_t>(memory.data());
  const auto guard = static_cast<std::uintptr_t>(::getauxval(AT_PAGESZ));
  return stack_pointer >= start - guard && stack_pointer <= start + memory.size();
}

// Of the last guard that was touched: where a handler returns in spite of it, once is enough.
constinit thread_local const void* told_of = nullptr;

void tell_of_overflow(const void* address, const void* context) noexcept {
  scheduler* const here = scheduler::current();
  if (here == nullptr || address == told_of) {
    return;
  }
  const std::span<const std::byte> memory = here->guarded_at(address);
  if (memory.empty()) {
    return;
  }
  told_of = address;
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
  bool overridden = false;  // the last one to end found another's in its place
  struct sigaction before {};
} constinit installed;

void be_default() noexcept {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  ::sigaction(SIGSEGV, &action, nullptr);
}

// A handler returns into the instruction that faulted, so the default does what it would have done. A signal
// that was sent does not come again by itself.
void pass_on(int number, siginfo_t* info, void* context) noexcept {
  const struct sigaction& before = installed.before;
  const bool sent = info->si_code <= 0;
  if ((before.sa_flags & SA_SIGINFO) == 0 && before.sa_handler == SIG_IGN && sent) {
    return;
  }
  if ((before.sa_flags & SA_SIGINFO) == 0 && (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN)) {
    be_default();
    if (sent) {
      ::raise(number);
    }
    return;
  }
  if ((before.sa_flags & SA_RESETHAND) != 0) {
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
    tell_of_overflow(info->si_addr, context);
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
  } else {
    installed.overridden = true;
  }
}

// Another thread may hold it while one forks, and the child has only the latter.
void hold_lock_across_forks() noexcept {
  [[maybe_unused]] static const int done = ::pthread_atfork(
      [] { installed.lock.lock(); }, [] { installed.lock.unlock(); }, [] { installed.lock.unlock(); });
}

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
  hold_lock_across_forks();
  const std::lock_guard hold(installed.lock);
  if (installed.hubs++ == 0) {
    install();
  }
  counted_ = true;
}

overflow_watch::~overflow_watch() {
  if (counted_) {
    const std::lock_guard hold(installed.lock);
    if (--installed.hubs == 0) {
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
