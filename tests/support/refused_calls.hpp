// System calls refused by a seccomp filter, in a child process: the filter stays for good.
#pragma once

#include <cerrno>
#include <cstdint>
#include <functional>
#include <future>
#include <initializer_list>
#include <memory>
#include <span>
#include <system_error>
#include <thread>
#include <utility>

#include <seccomp.h>

namespace annulet::test {

class seccomp_filter {
 public:
  seccomp_filter() : context_(::seccomp_init(SCMP_ACT_ALLOW), &::seccomp_release) {
    require(context_ == nullptr ? -ENOMEM : 0, "seccomp_init");
  }

  // Of a call with any arguments, or with these.
  void add(std::uint32_t action, int call, std::span<const scmp_arg_cmp> with = {}) {
    require(::seccomp_rule_add_array(context_.get(), action, call, static_cast<unsigned>(with.size()),
                                     with.data()),
            "seccomp_rule_add_array");
  }
  // For this thread, and those that it starts from now on.
  void load() { require(::seccomp_load(context_.get()), "seccomp_load"); }
  [[nodiscard]] int notify_fd() const {
    return require(::seccomp_notify_fd(context_.get()), "seccomp_notify_fd");
  }

  static int require(int result, const char* call) {
    if (result < 0) {
      throw std::system_error(-result, std::generic_category(), call);
    }
    return result;
  }

 private:
  std::unique_ptr<void, void (*)(scmp_filter_ctx)> context_;
};

// From now on this thread is told this errno by these calls.
inline void refuse(std::initializer_list<int> calls, int error) {
  seccomp_filter filter;
  for (const int call : calls) {
    filter.add(SCMP_ACT_ERRNO(static_cast<std::uint32_t>(error)), call);
  }
  filter.load();
}

// The same of a call whose argument (0 to 5) has this value.
inline void refuse_where(int call, unsigned argument, std::uint64_t value, int error) {
  const scmp_arg_cmp same{argument, SCMP_CMP_EQ, value, 0};
  seccomp_filter filter;
  filter.add(SCMP_ACT_ERRNO(static_cast<std::uint32_t>(error)), call, {&same, 1});
  filter.load();
}

// From now on each such call of this thread is put before a judge, which runs on another thread and returns
// an errno to refuse it with, or 0 to let it go to the kernel.
using call_judge = std::function<int(const seccomp_data&)>;

inline void judge_calls(std::initializer_list<int> calls, call_judge judge) {
  std::promise<int> loaded;
  std::promise<void> begins;
  const std::future<void> begun = begins.get_future();
  std::thread([begins = std::move(begins), listener = loaded.get_future(),
               judge = std::move(judge)]() mutable {
    begins.set_value();
    const int fd = listener.get();
    seccomp_notif* call = nullptr;
    seccomp_notif_resp* answer = nullptr;
    if (::seccomp_notify_alloc(&call, &answer) != 0) {
      std::abort();
    }
    for (;;) {
      *call = {};
      if (::seccomp_notify_receive(fd, call) != 0) {
        continue;  // the caller was interrupted by a signal, and asks again
      }
      *answer = {};
      answer->id = call->id;
      answer->error = -judge(call->data);
      answer->flags = answer->error == 0 ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0;
      ::seccomp_notify_respond(fd, answer);
    }
  }).detach();
  begun.wait();  // a sanitizer begins no second thread before the first, which is to let it
  seccomp_filter filter;
  for (const int call : calls) {
    filter.add(SCMP_ACT_NOTIFY, call);
  }
  filter.load();
  loaded.set_value(filter.notify_fd());
}

}  // namespace annulet::test
